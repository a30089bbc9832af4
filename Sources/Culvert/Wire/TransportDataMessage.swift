/// A view of a transport data message (whitepaper section 5.4.6):
/// type, reserved 4 | receiver 4 | counter 8 | packet n+16.
struct TransportDataMessage: BitwiseCopyable {
  let bytes: UnsafeMutableRawPointer
  /// Of the whole message, at least 32.
  let byteCount: Int

  static let receiverOffset = 4
  static let counterOffset = 8
  static let encryptedPacketOffset = WireGuard.transportHeaderByteCount

  /// Nil unless the datagram is transport data (R30).
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard MessageType(at: bytes, byteCount: byteCount) == .transportData else { return nil }
    self.bytes = bytes
    self.byteCount = byteCount
  }

  /// Writes the 16 bytes of header before a packet.
  @inline(__always)
  static func writeHeader(to bytes: UnsafeMutableRawPointer, receiver: UInt32, counter: UInt64) {
    MessageType.transportData.write(to: bytes)
    bytes.storeLittle(receiver, receiverOffset)
    bytes.storeLittle(counter, counterOffset)
  }

  /// The index that the receiver chose for the session.
  @inline(__always)
  var receiver: UInt32 { bytes.loadLittle(TransportDataMessage.receiverOffset, as: UInt32.self) }

  /// The packet's nonce.
  @inline(__always)
  var counter: UInt64 { bytes.loadLittle(TransportDataMessage.counterOffset, as: UInt64.self) }

  /// `encryptedPacketByteCount` bytes of ciphertext, then 16 of tag.
  @inline(__always)
  var encryptedPacket: UnsafeMutableRawPointer {
    bytes + TransportDataMessage.encryptedPacketOffset
  }

  /// Bytes of ciphertext without the tag: those of the plaintext, padding included.
  @inline(__always)
  var encryptedPacketByteCount: Int { byteCount &- WireGuard.keepaliveByteCount }

  @inline(__always)
  var isKeepalive: Bool { byteCount == WireGuard.keepaliveByteCount }
}
