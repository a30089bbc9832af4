/// A view of a handshake initiation (whitepaper section 5.4.2):
/// type, reserved 4 | sender 4 | ephemeral 32 | static 32+16 | timestamp 12+16 | mac1 16 | mac2 16.
struct InitiationMessage: BitwiseCopyable {
  let bytes: UnsafeMutableRawPointer

  static let byteCount = WireGuard.initiationByteCount
  static let senderOffset = 4
  static let ephemeralOffset = 8
  static let encryptedStaticOffset = 40
  static let encryptedTimestampOffset = 88
  /// mac1 covers everything before it.
  static let mac1Offset = 116
  /// mac2 covers everything before it, mac1 included.
  static let mac2Offset = 132

  /// Nil unless the datagram is an initiation (R30).
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard MessageType(at: bytes, byteCount: byteCount) == .initiation else { return nil }
    self.bytes = bytes
  }

  /// Starts a message in `byteCount` bytes: writes type and sender, leaves the rest to the caller.
  @inline(__always)
  init(writingTo bytes: UnsafeMutableRawPointer, sender: UInt32) {
    self.bytes = bytes
    MessageType.initiation.write(to: bytes)
    bytes.storeLittle(sender, InitiationMessage.senderOffset)
  }

  /// The index by which the initiator wants to be answered.
  @inline(__always)
  var sender: UInt32 { bytes.loadLittle(InitiationMessage.senderOffset, as: UInt32.self) }

  /// 32 bytes, an unencrypted public key.
  @inline(__always)
  var ephemeral: UnsafeMutableRawPointer { bytes + InitiationMessage.ephemeralOffset }

  /// 32 bytes of public key and 16 of tag.
  @inline(__always)
  var encryptedStatic: UnsafeMutableRawPointer { bytes + InitiationMessage.encryptedStaticOffset }

  /// 12 bytes of TAI64N and 16 of tag.
  @inline(__always)
  var encryptedTimestamp: UnsafeMutableRawPointer {
    bytes + InitiationMessage.encryptedTimestampOffset
  }

  /// 16 bytes.
  @inline(__always)
  var mac1: UnsafeMutableRawPointer { bytes + InitiationMessage.mac1Offset }

  /// 16 bytes.
  @inline(__always)
  var mac2: UnsafeMutableRawPointer { bytes + InitiationMessage.mac2Offset }
}
