/// What both sides of the cookie mechanism share (whitepaper sections 5.3 and 5.4.4): the two keys
/// that anybody derives from a public key, and the two MACs at the end of a handshake message.
enum Cookie {
  static let byteCount = WireGuard.macByteCount
  /// mac1 and mac2 are the last bytes of an initiation and a response.
  static let trailerByteCount = 2 * WireGuard.macByteCount

  private static var labelMAC1: StaticString { "mac1----" }
  private static var labelCookie: StaticString { "cookie--" }

  /// HASH(LABEL_MAC1 || public key), 32 bytes.
  @inline(never)
  static func deriveMAC1Key(into key: UnsafeMutableRawPointer, publicKey: Key) {
    withUnsafeBytes(of: publicKey) { BLAKE2s.hash(into: key, labelMAC1.bytes, $0) }
  }

  /// HASH(LABEL_COOKIE || public key), 32 bytes.
  @inline(never)
  static func deriveCookieKey(into key: UnsafeMutableRawPointer, publicKey: Key) {
    withUnsafeBytes(of: publicKey) { BLAKE2s.hash(into: key, labelCookie.bytes, $0) }
  }

  /// mac1 of a message of `byteCount` bytes, at least the trailer's: over all before it.
  @inline(never)
  static func computeMAC1(
    into mac: UnsafeMutableRawPointer, message: UnsafeRawPointer, byteCount: Int,
    key: UnsafeRawPointer
  ) {
    BLAKE2s.mac(
      into: mac, key: key, keyByteCount: WireGuard.keyByteCount, message: message,
      byteCount: byteCount &- trailerByteCount)
  }

  /// mac2 of a message of `byteCount` bytes, at least the trailer's: over all before it, mac1
  /// included, with the 16 bytes of `cookie` as the key.
  static func computeMAC2(
    into mac: UnsafeMutableRawPointer, message: UnsafeRawPointer, byteCount: Int,
    cookie: UnsafeRawPointer
  ) {
    BLAKE2s.mac(
      into: mac, key: cookie, keyByteCount: Cookie.byteCount, message: message,
      byteCount: byteCount &- WireGuard.macByteCount)
  }
}
