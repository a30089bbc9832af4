/// The four messages of the protocol (whitepaper section 5.4).
enum MessageType: UInt8, BitwiseCopyable {
  case initiation = 1
  case response = 2
  case cookieReply = 3
  case transportData = 4

  /// Nil unless the datagram starts with a known type and three zero bytes, and has the length of
  /// that type: exactly, or for transport data at least that of a keepalive (R30).
  @inline(__always)
  init?(at bytes: UnsafeRawPointer, byteCount: Int) {
    // Every message is longer than its type word.
    guard byteCount >= WireGuard.keepaliveByteCount else { return nil }
    // Type and reserved bytes are one little-endian word.
    switch bytes.loadLittle(0, as: UInt32.self) {
    case 4: self = .transportData
    case 1 where byteCount == WireGuard.initiationByteCount: self = .initiation
    case 2 where byteCount == WireGuard.responseByteCount: self = .response
    case 3 where byteCount == WireGuard.cookieReplyByteCount: self = .cookieReply
    default: return nil
    }
  }

  /// Writes the type and the three reserved bytes.
  @inline(__always)
  func write(to bytes: UnsafeMutableRawPointer) {
    bytes.storeLittle(UInt32(rawValue), 0)
  }
}
