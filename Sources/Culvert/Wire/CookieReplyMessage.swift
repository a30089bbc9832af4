/// A view of a cookie reply (whitepaper section 5.4.7):
/// type, reserved 4 | receiver 4 | nonce 24 | cookie 16+16.
struct CookieReplyMessage: BitwiseCopyable {
  let bytes: UnsafeMutableRawPointer

  static let byteCount = WireGuard.cookieReplyByteCount
  static let receiverOffset = 4
  static let nonceOffset = 8
  static let encryptedCookieOffset = 32

  /// Nil unless the datagram is a cookie reply (R30).
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard MessageType(at: bytes, byteCount: byteCount) == .cookieReply else { return nil }
    self.bytes = bytes
  }

  /// Starts a message in `byteCount` bytes: writes type and receiver, leaves the rest to the
  /// caller.
  @inline(__always)
  init(writingTo bytes: UnsafeMutableRawPointer, receiver: UInt32) {
    self.bytes = bytes
    MessageType.cookieReply.write(to: bytes)
    bytes.storeLittle(receiver, CookieReplyMessage.receiverOffset)
  }

  /// The sender index of the handshake message that is answered.
  @inline(__always)
  var receiver: UInt32 { bytes.loadLittle(CookieReplyMessage.receiverOffset, as: UInt32.self) }

  /// 24 bytes.
  @inline(__always)
  var nonce: UnsafeMutableRawPointer { bytes + CookieReplyMessage.nonceOffset }

  /// 16 bytes of cookie and 16 of tag.
  @inline(__always)
  var encryptedCookie: UnsafeMutableRawPointer { bytes + CookieReplyMessage.encryptedCookieOffset }
}
