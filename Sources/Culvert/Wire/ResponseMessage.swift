/// A view of a handshake response (whitepaper section 5.4.3):
/// type, reserved 4 | sender 4 | receiver 4 | ephemeral 32 | nothing 0+16 | mac1 16 | mac2 16.
struct ResponseMessage: BitwiseCopyable {
  let bytes: UnsafeMutableRawPointer

  static let byteCount = WireGuard.responseByteCount
  static let senderOffset = 4
  static let receiverOffset = 8
  static let ephemeralOffset = 12
  static let encryptedNothingOffset = 44
  /// mac1 covers everything before it.
  static let mac1Offset = 60
  /// mac2 covers everything before it, mac1 included.
  static let mac2Offset = 76

  /// Nil unless the datagram is a response (R30).
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard MessageType(at: bytes, byteCount: byteCount) == .response else { return nil }
    self.bytes = bytes
  }

  /// Starts a message in `byteCount` bytes: writes type, sender and receiver, leaves the rest to
  /// the caller.
  @inline(__always)
  init(writingTo bytes: UnsafeMutableRawPointer, sender: UInt32, receiver: UInt32) {
    self.bytes = bytes
    MessageType.response.write(to: bytes)
    bytes.storeLittle(sender, ResponseMessage.senderOffset)
    bytes.storeLittle(receiver, ResponseMessage.receiverOffset)
  }

  /// The responder's index.
  @inline(__always)
  var sender: UInt32 { bytes.loadLittle(ResponseMessage.senderOffset, as: UInt32.self) }

  /// The sender index of the initiation that is answered.
  @inline(__always)
  var receiver: UInt32 { bytes.loadLittle(ResponseMessage.receiverOffset, as: UInt32.self) }

  /// 32 bytes, an unencrypted public key.
  @inline(__always)
  var ephemeral: UnsafeMutableRawPointer { bytes + ResponseMessage.ephemeralOffset }

  /// 16 bytes of tag.
  @inline(__always)
  var encryptedNothing: UnsafeMutableRawPointer { bytes + ResponseMessage.encryptedNothingOffset }

  /// 16 bytes.
  @inline(__always)
  var mac1: UnsafeMutableRawPointer { bytes + ResponseMessage.mac1Offset }

  /// 16 bytes.
  @inline(__always)
  var mac2: UnsafeMutableRawPointer { bytes + ResponseMessage.mac2Offset }
}
