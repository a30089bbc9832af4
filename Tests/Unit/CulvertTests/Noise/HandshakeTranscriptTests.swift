import Testing

@testable import Culvert

/// Whole handshakes against transcripts that other programs have computed.
@Suite struct HandshakeTranscriptTests {
  /// Computed by an independent implementation of the whitepaper's section 5.4: Python, with
  /// hashlib's BLAKE2s and the package `cryptography` for X25519 and ChaCha20-Poly1305. Private
  /// keys are 01, 02 ... and 41, 42 ..., ephemerals 81, 82 ... and c1, c2 ..., the preshared key
  /// e0, e1 ...
  private static let initiation = TestVectors.bytes(
    """
    0100000004030201883186b800b41d5cf0429695da9b3cc4f328ebcd184a6e482fa578c103f06c77fa6ff1a7
    1203eaf305dc6260f1911ba7d914db25d127ce39ef62f6c6467fb8a777377a28376c744882e58802dabbe088
    2d2440df1a7a848f51929ae0ebf1ca0b855766512f655615bf05c4ab5e97a156f6fcd9b655e35b7269096be6
    00000000000000000000000000000000
    """)
  private static let response = TestVectors.bytes(
    """
    02000000a4a3a2a1040302013a553d74792d727efa9b9a4cde3da1ad93f1a2d0c09cb639b1a3c0fda14cbe24
    7da948c33a7c5af92550e8683e03ab50ec18e5ba48f3de59381933b7a521fe6d000000000000000000000000
    00000000
    """)
  private static let initiatorKey = TestVectors.bytes(
    "af089bc049cf782a437c0a39ad1f2da961e5edb698c98b7a60ca9e03ed38782f")
  private static let responderKey = TestVectors.bytes(
    "66683a1403805d00d31abf0fe0a9871d13fecfe74fc1c201b1260cc2474dec90")
  private static let keepalive = TestVectors.bytes(
    "04000000a4a3a2a10000000000000000d4a73156cb5625ce051aee97fdb7263a")

  private func pattern(_ start: UInt8) -> [UInt8] {
    TestVectors.pattern(32, start: start, step: 1)
  }

  private func makeParties() -> (NoiseParty, NoiseParty) {
    let initiator = NoiseParty(
      privateKey: pattern(0x01),
      entropy: .system { bytes, count in
        for index in 0..<count { bytes.storeByte(UInt8(0x81 + index), index) }
      })
    let responder = NoiseParty(
      privateKey: pattern(0x41),
      entropy: .system { bytes, count in
        for index in 0..<count { bytes.storeByte(UInt8(0xc1 + index), index) }
      })
    initiator.meet(responder, presharedKey: pattern(0xe0))
    responder.meet(initiator, presharedKey: pattern(0xe0))
    return (initiator, responder)
  }

  /// The message with both MACs, as it goes out; there is no cookie.
  private func addMACs(_ message: [UInt8], for receiver: Key) -> [UInt8] {
    var message = message
    var secrets = [UInt8](repeating: 0, count: ReceivedCookie.secretByteCount)
    secrets.withUnsafeMutableBytes { secrets in
      var cookie = ReceivedCookie(secrets: secrets.baseAddress!)
      cookie.deriveKeys(publicKey: receiver)
      message.withUnsafeMutableBytes {
        cookie.addMACs(
          to: $0.baseAddress!, byteCount: $0.count, at: Instant(nanoseconds: 1))
      }
    }
    return message
  }

  @Test func knownAnswerTranscript() throws {
    let (initiator, responder) = makeParties()
    let stamp = TAI64N(WallTime(seconds: 1_800_000_000, nanoseconds: 0x1e00_0000))
    let first = try #require(
      initiator.initiate(to: responder, index: 0x0102_0304, timestamp: stamp))
    #expect(
      addMACs(first, for: responder.identity.publicKey) == HandshakeTranscriptTests.initiation)
    let now = Instant(nanoseconds: 1)
    let opened = try #require(responder.consume(initiation: first, at: now))
    #expect(opened.sender == initiator.identity.publicKey && opened.1 == .accepted)
    let second = try #require(responder.respond(to: initiator, index: 0xa1a2_a3a4))
    #expect(addMACs(second, for: initiator.identity.publicKey) == HandshakeTranscriptTests.response)
    #expect(initiator.consume(response: second) == .accepted)

    _ = try #require(initiator.keypairs.startSession(from: &initiator.handshake, at: now))
    _ = try #require(responder.keypairs.startSession(from: &responder.handshake, at: now))
    let key = { (bytes: UnsafeMutableRawPointer) in
      [UInt8](UnsafeRawBufferPointer(start: bytes, count: 32))
    }
    let current = initiator.keypairs.current
    #expect(key(current.sendingKey) == HandshakeTranscriptTests.initiatorKey)
    #expect(key(current.receivingKey) == HandshakeTranscriptTests.responderKey)
    #expect(key(responder.keypairs.next.receivingKey) == HandshakeTranscriptTests.initiatorKey)
    #expect(key(responder.keypairs.next.sendingKey) == HandshakeTranscriptTests.responderKey)
    var message = [UInt8](repeating: 0, count: 32)
    message.withUnsafeMutableBytes {
      TransportDataMessage.writeHeader(
        to: $0.baseAddress!, receiver: current.remoteIndex, counter: 0)
      AEAD.seal($0.baseAddress! + 16, byteCount: 0, counter: 0, key: current.sendingKey)
    }
    #expect(message == HandshakeTranscriptTests.keepalive)
  }

  @Test func aMessageThatFailsLeavesThePeerAsItWas() throws {
    let (initiator, responder) = makeParties()
    let now = Instant(nanoseconds: 1)
    let first = try #require(initiator.initiate(to: responder, index: 1))
    // Ephemeral, static and timestamp, bit by byte.
    for index in 8..<116 {
      var forged = first
      forged[index] ^= 1 << (index % 8)
      let outcome = responder.consume(initiation: forged, at: now)?.1
      #expect(outcome != .accepted)
      #expect(responder.handshake.state == .none)
    }
    #expect(responder.respond(to: initiator, index: 2) == nil)
    #expect(responder.consume(initiation: first, at: now)?.1 == .accepted)
    let second = try #require(responder.respond(to: initiator, index: 2))
    for index in 8..<60 {
      var forged = second
      forged[index] ^= 1 << (index % 8)
      #expect(initiator.consume(response: forged) != .accepted)
      #expect(initiator.handshake.state == .createdInitiation)
    }
    #expect(initiator.consume(response: second) == .accepted)
    // It counts once.
    #expect(initiator.consume(response: second) == .invalid)
  }

  /// Cacophony's prologue and payloads are not WireGuard's, so this drives the tokens themselves.
  @Test(.enabled(if: TestVectors.exists("noise_ikpsk2_cacophony.json"), "no ../shared/vectors"))
  func cacophonyVector() throws {
    let vector = try NoiseVector(file: "noise_ikpsk2_cacophony.json")
    let initiator = NoiseParty(privateKey: vector.initiatorStatic, entropy: .seeded(1))
    let responder = NoiseParty(privateKey: vector.responderStatic, entropy: .seeded(2))
    let first = try vector.writeFirst(initiator, responder: responder.identity.publicKey)
    #expect(first == vector.ciphertexts[0])
    #expect(try vector.readFirst(first, responder) == vector.payloads[0])
    let second = try vector.writeSecond(responder, remote: first, initiator.identity.publicKey)
    #expect(second == vector.ciphertexts[1])
    #expect(try vector.readSecond(second, initiator) == vector.payloads[1])
    for party in [initiator, responder] {
      #expect(UnsafeRawBufferPointer(start: party.noise.hash, count: 32).elementsEqual(vector.hash))
    }
    let (sending, receiving) = vector.split(initiator)
    #expect(vector.split(responder) == (sending, receiving))
    for index in 2..<vector.payloads.count {
      let key = index % 2 == 0 ? sending : receiving
      var message = vector.payloads[index] + [UInt8](repeating: 0, count: 16)
      let byteCount = vector.payloads[index].count
      message.withUnsafeMutableBytes {
        AEAD.seal(
          $0.baseAddress!, byteCount: byteCount, counter: UInt64(index - 2) / 2, key: key)
      }
      #expect(message == vector.ciphertexts[index])
    }
  }
}
