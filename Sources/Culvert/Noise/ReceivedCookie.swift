/// The initiator's side of cookies (whitepaper sections 5.4.4 and 5.4.7), one for each peer: adds
/// the MACs to the handshake messages we send it, and keeps the cookie it answers with.
struct ReceivedCookie: BitwiseCopyable {
  /// Layout of the cookie's part of the locked memory, in bytes.
  private enum Offset {
    static let mac1Key = 0
    static let cookieKey = 32
    static let cookie = 64
    static let lastMAC1 = 80
  }
  static let secretByteCount = 96

  private let secrets: UnsafeMutableRawPointer
  /// When the cookie came; nil without one.
  private var birth: Instant?
  /// Whether a message is out that a cookie reply could answer.
  private var awaitsReply = false

  /// - Parameter secrets: `secretByteCount` bytes of locked memory.
  init(secrets: UnsafeMutableRawPointer) {
    self.secrets = secrets
  }

  /// Derives the keys that depend on the peer's public key, and forgets any cookie.
  mutating func prepare(publicKey: Key) {
    erase()
    Cookie.deriveMAC1Key(into: secrets + Offset.mac1Key, publicKey: publicKey)
    Cookie.deriveCookieKey(into: secrets + Offset.cookieKey, publicKey: publicKey)
  }

  /// Writes mac1 and mac2, the last 32 bytes of a handshake message of `byteCount` bytes; without
  /// a fresh cookie mac2 is zero.
  mutating func addMACs(to message: UnsafeMutableRawPointer, byteCount: Int, at now: Instant) {
    precondition(byteCount >= Cookie.trailerByteCount)
    let mac1 = message + (byteCount &- Cookie.trailerByteCount)
    let mac2 = message + (byteCount &- WireGuard.macByteCount)
    Cookie.computeMAC1(
      into: mac1, message: message, byteCount: byteCount, key: secrets + Offset.mac1Key)
    (secrets + Offset.lastMAC1).copyMemory(from: mac1, byteCount: WireGuard.macByteCount)
    awaitsReply = true
    // A cookie is dropped a little before the responder drops it: the message has yet to arrive.
    if let birth, now.since(birth) < WireGuard.cookieLifetime - Policy.cookieGrace {
      Cookie.computeMAC2(
        into: mac2, message: message, byteCount: byteCount, cookie: secrets + Offset.cookie)
      return
    }
    forget()
    mac2.initializeMemory(as: UInt8.self, repeating: 0, count: WireGuard.macByteCount)
  }

  /// Takes the cookie out of a reply to the last message sent.
  ///
  /// - Returns: false, and nothing changes, where it is no answer to that message, is forged, or
  ///   has been taken before.
  mutating func consume(_ reply: CookieReplyMessage, at now: Instant) -> Bool {
    guard awaitsReply else { return false }
    var opened = (UInt64(0), UInt64(0))
    let isGenuine = withUnsafeMutableBytes(of: &opened) { opened in
      let isGenuine = XAEAD.open(
        into: opened.baseAddress!, message: reply.encryptedCookie, byteCount: Cookie.byteCount,
        additionalData: secrets + Offset.lastMAC1, additionalByteCount: WireGuard.macByteCount,
        nonce: reply.nonce, key: secrets + Offset.cookieKey)
      if isGenuine {
        (secrets + Offset.cookie).copyMemory(
          from: opened.baseAddress!, byteCount: Cookie.byteCount)
      }
      Secret.wipe(opened.baseAddress!, byteCount: opened.count)
      return isGenuine
    }
    guard isGenuine else { return false }
    birth = now
    awaitsReply = false
    return true
  }

  /// Wipes everything; the peer is gone.
  mutating func erase() {
    Secret.wipe(secrets, byteCount: ReceivedCookie.secretByteCount)
    birth = nil
    awaitsReply = false
  }

  private mutating func forget() {
    Secret.wipe(secrets + Offset.cookie, byteCount: Cookie.byteCount)
    birth = nil
  }
}
