import Testing

@testable import Culvert

@Suite struct CookieTests {
  static let second = nanosecondsPerSecond
  static let publicKey = Key(at: TestVectors.pattern(32, start: 1))
  static let home = Endpoint(address: IPAddress(ipv4: 0xc000_0201), port: 51820)

  /// Both sides of the cookie exchange, with their own memory.
  final class Pair {
    private let memory = TestArena(byteCount: Arena.pageByteCount)
    /// The locked memory of both.
    private let secrets: UnsafeMutableRawPointer
    private let jarSecrets: UnsafeMutableRawPointer
    var checker: CookieChecker
    var jar: ReceivedCookie
    var random = Entropy.seeded(4)

    init() {
      secrets = memory.arena.carveBytes(0, owner: "test").baseAddress!
      checker = CookieChecker(carvingFrom: &memory.arena)
      jarSecrets =
        memory.arena.carveBytes(ReceivedCookie.secretByteCount, owner: "test").baseAddress!
      jar = ReceivedCookie(secrets: jarSecrets)
      checker.deriveKeys(publicKey: CookieTests.publicKey)
      jar.deriveKeys(publicKey: CookieTests.publicKey)
    }

    var isWiped: Bool { Secret.isZero(secrets, byteCount: memory.arena.byteCount) }

    /// Makes the secret of cookies what it is before the first one is made.
    func forgetSecret() { Secret.wipe(secrets + 64, byteCount: 64) }

    /// The locked memory of the jar.
    var jarBytes: [UInt8] {
      [UInt8](
        UnsafeRawBufferPointer(start: jarSecrets, count: ReceivedCookie.secretByteCount))
    }

    /// A handshake message with its MACs.
    func message(at now: UInt64, byteCount: Int = 148) -> [UInt8] {
      var message = TestVectors.pattern(byteCount, start: UInt8(random.below(256)))
      jar.addMACs(to: &message, byteCount: byteCount, at: Instant(nanoseconds: now))
      return message
    }

    func reply(to message: [UInt8], from endpoint: Endpoint, at now: UInt64) -> [UInt8] {
      var reply = [UInt8](repeating: 0, count: 64)
      checker.writeReply(
        into: &reply, to: message, byteCount: message.count, from: endpoint,
        at: Instant(nanoseconds: now), entropy: &random)
      return reply
    }

    func consume(_ reply: [UInt8], at now: UInt64) -> Bool {
      var reply = reply
      return reply.withUnsafeMutableBytes {
        guard let view = CookieReplyMessage(at: $0.baseAddress!, byteCount: $0.count) else {
          return false
        }
        return jar.store(view, at: Instant(nanoseconds: now))
      }
    }

    /// Sends a message, receives a cookie reply to it, and consumes the reply.
    func exchange(from endpoint: Endpoint, at now: UInt64) {
      let asked = message(at: now)
      let answer = reply(to: asked, from: endpoint, at: now)
      #expect(consume(answer, at: now))
    }

    func isValid(_ message: [UInt8], from endpoint: Endpoint, at now: UInt64) -> Bool {
      checker.hasValidMAC2(
        message, byteCount: message.count, from: endpoint, at: Instant(nanoseconds: now))
    }
  }

  /// Expected value from Python's hashlib.blake2s.
  @Test func mac1KnownAnswer() {
    let pair = Pair()
    var message = TestVectors.pattern(148, start: 2)
    pair.jar.addMACs(to: &message, byteCount: 148, at: Instant(nanoseconds: 0))
    #expect(Array(message[116..<132]) == TestVectors.bytes("d990e0a81c0daede105e2d7d85e5e3e2"))
    #expect(message[132...].allSatisfy { $0 == 0 })
    #expect(Array(message[..<116]) == Array(TestVectors.pattern(148, start: 2)[..<116]))
  }

  @Test(arguments: [148, 92]) func R35_everyBitOfMAC1Counts(byteCount: Int) {
    let pair = Pair()
    let message = pair.message(at: 0, byteCount: byteCount)
    #expect(pair.checker.hasValidMAC1(message, byteCount: byteCount))
    for index in 0..<(byteCount - 16) {
      var forged = message
      forged[index] ^= 1 << UInt8(index % 8)
      #expect(!pair.checker.hasValidMAC1(forged, byteCount: byteCount))
    }
    // mac2 is not covered by mac1.
    var other = message
    other[byteCount - 1] ^= 1
    #expect(pair.checker.hasValidMAC1(other, byteCount: byteCount))
    for short in [0, 1, 16, 31] {
      #expect(!pair.checker.hasValidMAC1(message, byteCount: short))
      #expect(!pair.isValid(Array(message.prefix(short)), from: CookieTests.home, at: 0))
    }
  }

  @Test func anotherKeyIsAnotherMAC1() {
    let pair = Pair()
    let message = pair.message(at: 0)
    pair.checker.deriveKeys(publicKey: Key(at: TestVectors.pattern(32, start: 2)))
    #expect(!pair.checker.hasValidMAC1(message, byteCount: 148))
  }

  @Test func aReplyNamesTheSenderAndBringsTheCookie() {
    let pair = Pair()
    let asked = pair.message(at: 0)
    #expect(!pair.isValid(asked, from: CookieTests.home, at: 0))
    let reply = pair.reply(to: asked, from: CookieTests.home, at: 0)
    #expect(Array(reply[0..<4]) == [3, 0, 0, 0])
    #expect(Array(reply[4..<8]) == Array(asked[4..<8]))
    #expect(pair.consume(reply, at: 0))
    // A second reading changes nothing, and the next two messages carry the cookie.
    #expect(!pair.consume(reply, at: 0))
    for byteCount in [148, 92] {
      let message = pair.message(at: 1, byteCount: byteCount)
      #expect(pair.checker.hasValidMAC1(message, byteCount: byteCount))
      #expect(pair.isValid(message, from: CookieTests.home, at: 1))
      for index in message.indices {
        var forged = message
        forged[index] ^= 0x40
        #expect(!pair.isValid(forged, from: CookieTests.home, at: 1))
      }
    }
  }

  @Test func aForgedOrStrayReplyChangesNothing() {
    let pair = Pair()
    pair.exchange(from: CookieTests.home, at: 0)
    let first = pair.message(at: 1)
    let stale = pair.reply(to: first, from: CookieTests.home, at: 1)
    let second = pair.message(at: 2)
    // The reply is to a message that is no longer the last one.
    #expect(!pair.consume(stale, at: 2))
    let reply = pair.reply(to: second, from: CookieTests.home, at: 2)
    for index in 8..<64 {
      var forged = reply
      forged[index] ^= 4
      #expect(!pair.consume(forged, at: 2))
    }
    // The previous cookie is still in use.
    #expect(pair.isValid(pair.message(at: 3), from: CookieTests.home, at: 3))
    // Without a sent message there is nothing to reply to.
    let quiet = Pair()
    #expect(!quiet.consume(reply, at: 2))
  }

  @Test func R4_theCookieCoversAddressAndPort() {
    let pair = Pair()
    let six = Endpoint(address: IPAddress(ipv6High: 0x2001_0db8 << 32, low: 9), port: 51820)
    for endpoint in [CookieTests.home, six] {
      pair.exchange(from: endpoint, at: 0)
      let message = pair.message(at: 0)
      #expect(pair.isValid(message, from: endpoint, at: 0))
      for port in [0, 51819, 51821, 51820 ^ 0x8000] as [UInt16] {
        var other = endpoint
        other.port = port
        #expect(!pair.isValid(message, from: other, at: 0))
      }
      let neighbours = [
        IPAddress(ipv4: 0xc000_0200), IPAddress(ipv6High: 0x2001_0db8 << 32, low: 8),
        IPAddress(ipv6High: 0x2001_0db9 << 32, low: 9),
        IPAddress(ipv6High: 0, low: 0xffff_c000_0201),
      ]
      for address in neighbours {
        let other = Endpoint(address: address, port: endpoint.port)
        #expect(!pair.isValid(message, from: other, at: 0))
      }
    }
  }

  @Test func R4_theSecretServes120SecondsAndFiveMore() {
    let second = CookieTests.second
    let pair = Pair()
    let start = 50 * second
    pair.exchange(from: CookieTests.home, at: start)
    let early = pair.message(at: start)
    // Made just before the rotation, with the old secret.
    pair.exchange(from: CookieTests.home, at: start + 120 * second - 1)
    #expect(
      pair.isValid(early, from: CookieTests.home, at: start + 125 * second - 1))
    let late = pair.message(at: start + 120 * second - 1)
    // The next reply rotates the secret; cookies of the previous one are accepted until its 125 s
    // are over.
    pair.exchange(from: CookieTests.home, at: start + 120 * second)
    let fresh = pair.message(at: start + 120 * second)
    let end = start + 125 * second
    for message in [early, late] {
      #expect(pair.isValid(message, from: CookieTests.home, at: start + 121 * second))
      #expect(pair.isValid(message, from: CookieTests.home, at: end - 1))
      #expect(!pair.isValid(message, from: CookieTests.home, at: end))
    }
    #expect(pair.isValid(fresh, from: CookieTests.home, at: end))
    #expect(pair.isValid(fresh, from: CookieTests.home, at: start + 245 * second - 1))
    #expect(!pair.isValid(fresh, from: CookieTests.home, at: start + 245 * second))
  }

  @Test func R4_aSecretRotatedLateIsNotHonouredLonger() {
    let second = CookieTests.second
    let pair = Pair()
    pair.exchange(from: CookieTests.home, at: 0)
    let message = pair.message(at: 0)
    pair.exchange(from: CookieTests.home, at: 124 * second)
    #expect(pair.isValid(message, from: CookieTests.home, at: 124 * second))
    #expect(!pair.isValid(message, from: CookieTests.home, at: 125 * second))
    #expect(!pair.isValid(message, from: CookieTests.home, at: 128 * second))
  }

  /// Before the first cookie is made, the secret is all zeros, which everybody knows.
  @Test func R4_noCookieIsHonouredBeforeOneIsMade() {
    let attacker = Pair()
    attacker.exchange(from: CookieTests.home, at: 0)
    attacker.forgetSecret()
    attacker.exchange(from: CookieTests.home, at: 1)
    let forged = attacker.message(at: 1)
    #expect(attacker.isValid(forged, from: CookieTests.home, at: 1))
    let responder = Pair()
    #expect(!responder.isValid(forged, from: CookieTests.home, at: 1))
    // Nor is it with the empty place of the previous secret.
    responder.exchange(from: CookieTests.home, at: 1)
    #expect(!responder.isValid(forged, from: CookieTests.home, at: 1))
  }

  @Test func R4_theInitiatorDropsACookieBeforeTheResponderDoes() {
    let second = CookieTests.second
    let pair = Pair()
    pair.exchange(from: CookieTests.home, at: 0)
    let last = pair.message(at: 115 * second - 1)
    #expect(!last[132...].allSatisfy { $0 == 0 })
    #expect(pair.isValid(last, from: CookieTests.home, at: 119 * second))
    let bare = pair.message(at: 115 * second)
    #expect(bare[132...].allSatisfy { $0 == 0 })
  }

  @Test func R24_aClockThatGoesBackNeverTraps() {
    let pair = Pair()
    pair.exchange(from: CookieTests.home, at: .max)
    #expect(pair.isValid(pair.message(at: 0), from: CookieTests.home, at: 0))
    pair.exchange(from: CookieTests.home, at: 5)
    #expect(pair.isValid(pair.message(at: 3), from: CookieTests.home, at: 3))
  }

  @Test func R9_eraseWipesKeysAndCookies() {
    let pair = Pair()
    pair.exchange(from: CookieTests.home, at: 0)
    #expect(pair.isValid(pair.message(at: 1), from: CookieTests.home, at: 1))
    pair.checker.erase()
    #expect(!pair.isWiped)
    pair.jar.erase()
    #expect(pair.isWiped)
    #expect(pair.message(at: 1)[132...].allSatisfy { $0 == 0 })
  }

  @Test func R9_anExpiredCookieIsWiped() {
    let second = CookieTests.second
    let pair = Pair()
    let asked = pair.message(at: 0)
    let reply = pair.reply(to: asked, from: CookieTests.home, at: 0)
    let before = pair.jarBytes
    #expect(pair.consume(reply, at: 0))
    let after = pair.jarBytes
    // Storing the cookie changes nothing else.
    let places = before.indices.filter { before[$0] != after[$0] }
    #expect((8...16).contains(places.count))
    #expect(places.allSatisfy { before[$0] == 0 })
    _ = pair.message(at: 115 * second - 1)
    let used = pair.jarBytes
    #expect(places.allSatisfy { used[$0] == after[$0] })
    _ = pair.message(at: 115 * second)
    let expired = pair.jarBytes
    #expect(places.allSatisfy { expired[$0] == 0 })
  }

  /// The secret is in one place: the checker's part of the arena, not in the struct.
  @Test func R9_secretsStandInTheArenaOnly() {
    #expect(MemoryLayout<CookieChecker>.size <= 48)
    #expect(MemoryLayout<ReceivedCookie>.size <= 32)
    var arena = Arena.measuring
    _ = CookieChecker(carvingFrom: &arena)
    #expect(arena.byteCount == CookieChecker.secretByteCount)
  }
}
