/// The common parts of both sides of the cookie mechanism (whitepaper sections 5.3 and 5.4.4): the
/// two keys derived from a public key, and the two MACs at the end of a handshake message.
enum Cookie {
  static let byteCount = WireGuard.macByteCount
  /// mac1 and mac2 are the last bytes of an initiation and a response.
  static let trailerByteCount = 2 * WireGuard.macByteCount

  private static var labelMAC1: StaticString { "mac1----" }
  private static var labelCookie: StaticString { "cookie--" }

  /// HASH(LABEL_MAC1 || public key), 32 bytes.
  static func deriveMAC1Key(into key: UnsafeMutableRawPointer, publicKey: Key) {
    withUnsafeBytes(of: publicKey) { BLAKE2s.hash(into: key, labelMAC1.bytes, $0) }
  }

  /// HASH(LABEL_COOKIE || public key), 32 bytes.
  static func deriveCookieKey(into key: UnsafeMutableRawPointer, publicKey: Key) {
    withUnsafeBytes(of: publicKey) { BLAKE2s.hash(into: key, labelCookie.bytes, $0) }
  }

  /// Computes mac1 over everything that precedes it. The message has `byteCount` bytes, at least
  /// `trailerByteCount`.
  static func computeMAC1(
    into mac: UnsafeMutableRawPointer, message: UnsafeRawPointer, byteCount: Int,
    key: UnsafeRawPointer
  ) {
    BLAKE2s.mac(
      into: mac, key: key, keyByteCount: WireGuard.keyByteCount, message: message,
      byteCount: byteCount &- trailerByteCount)
  }

  /// Computes mac2 over everything that precedes it, including mac1. The key is the 16 bytes of
  /// `cookie`. The message has `byteCount` bytes, at least `trailerByteCount`.
  static func computeMAC2(
    into mac: UnsafeMutableRawPointer, message: UnsafeRawPointer, byteCount: Int,
    cookie: UnsafeRawPointer
  ) {
    BLAKE2s.mac(
      into: mac, key: cookie, keyByteCount: Cookie.byteCount, message: message,
      byteCount: byteCount &- WireGuard.macByteCount)
  }
}

/// The responder's side of the cookie mechanism (whitepaper sections 5.3, 5.4.4 and 5.4.7). It
/// verifies the MACs of handshake messages. Under load, a message without a valid mac2 is answered
/// with a cookie reply.
///
/// A cookie is a MAC over the sender's IP address and port (R4), so no state per sender is needed.
struct CookieChecker: BitwiseCopyable {
  /// Layout of the checker's part of the locked memory, in bytes.
  private enum Offset {
    static let mac1Key = 0
    static let cookieKey = 32
    static let current = 64
    static let previous = 96
  }
  static let secretByteCount = 128

  private let secrets: UnsafeMutableRawPointer
  private var currentBirth: Instant?
  private var previousBirth: Instant?

  init(carvingFrom arena: inout Arena) {
    secrets =
      arena.carveBytes(CookieChecker.secretByteCount, owner: "secrets: cookies").baseAddress!
  }

  /// Derives the keys that depend on our public key. Must be called whenever it changes.
  mutating func deriveKeys(publicKey: Key) {
    Cookie.deriveMAC1Key(into: secrets + Offset.mac1Key, publicKey: publicKey)
    Cookie.deriveCookieKey(into: secrets + Offset.cookieKey, publicKey: publicKey)
  }

  /// Whether mac1 is valid, which proves that the sender knows our public key. False for a message
  /// that is too short to have MACs.
  func hasValidMAC1(_ message: UnsafeRawPointer, byteCount: Int) -> Bool {
    guard byteCount >= Cookie.trailerByteCount else { return false }
    var mac = (UInt64(0), UInt64(0))
    return withUnsafeMutableBytes(of: &mac) { mac in
      Cookie.computeMAC1(
        into: mac.baseAddress!, message: message, byteCount: byteCount,
        key: secrets + Offset.mac1Key)
      return Secret.equal(
        mac.baseAddress!, message + (byteCount &- Cookie.trailerByteCount),
        byteCount: WireGuard.macByteCount)
    }
  }

  /// Whether mac2 is anything but zero, as it is without a cookie. The message has at least
  /// `Cookie.trailerByteCount` bytes.
  static func hasMAC2(_ message: UnsafeRawPointer, byteCount: Int) -> Bool {
    let mac2 = byteCount &- WireGuard.macByteCount
    return message.loadLittle(mac2, as: UInt64.self)
      | message.loadLittle(mac2 &+ 8, as: UInt64.self) != 0
  }

  /// Whether mac2 is valid, which proves that the sender has received our cookie for the endpoint
  /// that it sends from. A cookie counts if it was made with the current or the previous secret,
  /// and that secret is less than 125 s old (R4).
  func hasValidMAC2(
    _ message: UnsafeRawPointer, byteCount: Int, from endpoint: Endpoint, at now: Instant
  ) -> Bool {
    guard byteCount >= Cookie.trailerByteCount else { return false }
    if CookieChecker.isHonoured(currentBirth, at: now),
      verifyMAC2(message, byteCount, endpoint, secret: secrets + Offset.current)
    {
      return true
    }
    return CookieChecker.isHonoured(previousBirth, at: now)
      && verifyMAC2(message, byteCount, endpoint, secret: secrets + Offset.previous)
  }

  /// Writes a cookie reply (`WireGuard.cookieReplyByteCount` bytes) to `reply`. It answers a
  /// message of `byteCount` bytes with a valid mac1, and its encryption is bound to that mac1.
  mutating func writeReply(
    into reply: UnsafeMutableRawPointer, to message: UnsafeRawPointer, byteCount: Int,
    from endpoint: Endpoint, at now: Instant, entropy: inout Entropy
  ) {
    precondition(byteCount >= WireGuard.responseByteCount)
    rotate(at: now, entropy: &entropy)
    // The sender index has the same offset in an initiation and a response.
    let sender = message.loadLittle(InitiationMessage.senderOffset, as: UInt32.self)
    let view = CookieReplyMessage(writingTo: reply, receiver: sender)
    entropy.fill(view.nonce, byteCount: WireGuard.cookieNonceByteCount)
    CookieChecker.makeCookie(
      into: view.encryptedCookie, for: endpoint, secret: secrets + Offset.current)
    XAEAD.seal(
      into: view.encryptedCookie, text: view.encryptedCookie, byteCount: Cookie.byteCount,
      additionalData: message + (byteCount &- Cookie.trailerByteCount),
      additionalByteCount: WireGuard.macByteCount, nonce: view.nonce,
      key: secrets + Offset.cookieKey)
  }

  /// Wipes the keys and the secrets. After that, `deriveKeys` makes the checker usable again.
  mutating func erase() {
    Secret.wipe(secrets, byteCount: CookieChecker.secretByteCount)
    currentBirth = nil
    previousBirth = nil
  }

  /// Draws a new secret if there is none, or if the current one is 120 s old. This happens when a
  /// cookie is made. A timer would wake the device up without load.
  private mutating func rotate(at now: Instant, entropy: inout Entropy) {
    if let currentBirth, now.since(currentBirth) < WireGuard.cookieLifetime { return }
    (secrets + Offset.previous).copyMemory(
      from: secrets + Offset.current, byteCount: WireGuard.keyByteCount)
    previousBirth = currentBirth
    entropy.fill(secrets + Offset.current, byteCount: WireGuard.keyByteCount)
    currentBirth = now
  }

  private static func isHonoured(_ birth: Instant?, at now: Instant) -> Bool {
    guard let birth else { return false }
    return now.since(birth) < WireGuard.cookieLifetime + Policy.cookieGrace
  }

  private func verifyMAC2(
    _ message: UnsafeRawPointer, _ byteCount: Int, _ endpoint: Endpoint, secret: UnsafeRawPointer
  ) -> Bool {
    // Room for the cookie and the MAC.
    var scratch = (UInt64(0), UInt64(0), UInt64(0), UInt64(0))
    return withUnsafeMutableBytes(of: &scratch) { scratch in
      let cookie = scratch.baseAddress!
      let mac = cookie + Cookie.byteCount
      CookieChecker.makeCookie(into: cookie, for: endpoint, secret: secret)
      Cookie.computeMAC2(into: mac, message: message, byteCount: byteCount, cookie: cookie)
      let isValid = Secret.equal(
        mac, message + (byteCount &- WireGuard.macByteCount), byteCount: WireGuard.macByteCount)
      Secret.wipe(cookie, byteCount: scratch.count)
      return isValid
    }
  }

  /// Computes MAC(secret, address || port), 16 bytes. The address has 4 or 16 bytes, the port 2,
  /// both in network byte order (R4).
  private static func makeCookie(
    into cookie: UnsafeMutableRawPointer, for endpoint: Endpoint, secret: UnsafeRawPointer
  ) {
    var source = (UInt64(0), UInt64(0), UInt64(0))
    withUnsafeMutableBytes(of: &source) { source in
      let portOffset = endpoint.address.family.byteCount
      endpoint.address.write(to: source.baseAddress!)
      source.baseAddress!.storeBig(endpoint.port, portOffset)
      BLAKE2s.mac(
        into: cookie, key: secret, keyByteCount: WireGuard.keyByteCount,
        message: source.baseAddress!, byteCount: portOffset &+ MemoryLayout<UInt16>.size)
    }
  }
}

/// The sender's side of the cookie mechanism (whitepaper sections 5.4.4 and 5.4.7), one for each
/// peer. It adds the MACs to handshake messages for the peer, and stores the cookie that the peer
/// sends in a cookie reply.
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
  /// When the cookie was received; nil if there is none.
  private var birth: Instant?
  /// Whether a message has been sent and not yet answered by a cookie reply.
  private(set) var awaitsReply = false

  /// - Parameter secrets: `secretByteCount` bytes of locked memory.
  init(secrets: UnsafeMutableRawPointer) {
    self.secrets = secrets
  }

  /// Derives the keys that depend on the peer's public key, and wipes any cookie.
  mutating func deriveKeys(publicKey: Key) {
    erase()
    Cookie.deriveMAC1Key(into: secrets + Offset.mac1Key, publicKey: publicKey)
    Cookie.deriveCookieKey(into: secrets + Offset.cookieKey, publicKey: publicKey)
  }

  /// Writes mac1 and mac2, the last 32 bytes of a handshake message of `byteCount` bytes. If there
  /// is no recent cookie, mac2 is zero.
  mutating func addMACs(to message: UnsafeMutableRawPointer, byteCount: Int, at now: Instant) {
    precondition(byteCount >= Cookie.trailerByteCount)
    let mac1 = message + (byteCount &- Cookie.trailerByteCount)
    let mac2 = message + (byteCount &- WireGuard.macByteCount)
    Cookie.computeMAC1(
      into: mac1, message: message, byteCount: byteCount, key: secrets + Offset.mac1Key)
    (secrets + Offset.lastMAC1).copyMemory(from: mac1, byteCount: WireGuard.macByteCount)
    awaitsReply = true
    // A cookie is used for slightly less than its lifetime, because the message takes time to
    // arrive.
    if let birth, now.since(birth) < WireGuard.cookieLifetime - Policy.cookieGrace {
      Cookie.computeMAC2(
        into: mac2, message: message, byteCount: byteCount, cookie: secrets + Offset.cookie)
      return
    }
    forget()
    mac2.initializeMemory(as: UInt8.self, repeating: 0, count: WireGuard.macByteCount)
  }

  /// Stores the cookie from a cookie reply to the last message sent.
  ///
  /// - Returns: false, with nothing changed, if the reply does not answer that message, is forged,
  ///   or is not the first.
  mutating func store(_ reply: CookieReplyMessage, at now: Instant) -> Bool {
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

  /// Wipes everything, when the peer is removed.
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
