import Foundation
import Testing

@testable import Culvert

/// Whole handshakes against transcripts from independent programs.
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

  /// The message with both MACs, as sent; there is no cookie.
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
    // One bit of each byte of ephemeral, static and timestamp.
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
    // It is accepted once.
    #expect(initiator.consume(response: second) == .invalid)
  }

  /// Cacophony's prologue and payloads differ from WireGuard's, so this test drives the tokens
  /// directly.
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

/// One case of a Noise test vector file for IKpsk2, and the tokens of its two messages.
struct NoiseVector {
  let prologue: [UInt8]
  let presharedKey: [UInt8]
  let initiatorStatic: [UInt8]
  let responderStatic: [UInt8]
  private let initiatorEphemeral: [UInt8]
  private let responderEphemeral: [UInt8]
  let hash: [UInt8]
  let payloads: [[UInt8]]
  let ciphertexts: [[UInt8]]

  init(file: String) throws {
    let data = try #require(TestVectors.file(file))
    let json = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    let vector = try #require((json["vectors"] as? [[String: Any]])?.first)
    let messages = try #require(vector["messages"] as? [[String: Any]])
    prologue = vector.hex("init_prologue")
    presharedKey = TestVectors.bytes(try #require((vector["init_psks"] as? [String])?.first))
    initiatorStatic = vector.hex("init_static")
    responderStatic = vector.hex("resp_static")
    initiatorEphemeral = vector.hex("init_ephemeral")
    responderEphemeral = vector.hex("resp_ephemeral")
    hash = vector.hex("handshake_hash")
    payloads = messages.map { $0.hex("payload") }
    ciphertexts = messages.map { $0.hex("ciphertext") }
  }

  /// WireGuard's initial state, with the vector's prologue instead of its identifier.
  private func start(_ party: NoiseParty, responder: Key) {
    let noise = party.noise
    party.constants.chainingKey.write(to: noise.chainingKey)
    party.constants.chainingKey.write(to: noise.hash)
    noise.mixHash(prologue, byteCount: prologue.count)
    responder.write(to: noise.remoteStatic)
    noise.mixHash(noise.remoteStatic, byteCount: 32)
  }

  private func staticProduct(_ party: NoiseParty, _ remote: Key) -> [UInt8] {
    var product = [UInt8](repeating: 0, count: 32)
    withUnsafeBytes(of: remote) { remote in
      product.withUnsafeMutableBytes {
        _ = X25519.multiply(
          into: $0.baseAddress!, secret: party.identity.privateKey, point: remote.baseAddress!)
      }
    }
    return product
  }

  private func writeEphemeral(_ secret: [UInt8], _ party: NoiseParty) -> [UInt8] {
    party.noise.ephemeralPrivate.copyMemory(from: secret, byteCount: 32)
    var ephemeral = [UInt8](repeating: 0, count: 32)
    ephemeral.withUnsafeMutableBytes {
      X25519.publicKey(into: $0.baseAddress!, secret: party.noise.ephemeralPrivate)
    }
    party.noise.mixEphemeral(ephemeral)
    return ephemeral
  }

  private func encrypt(_ text: [UInt8], _ party: NoiseParty) -> [UInt8] {
    var output = [UInt8](repeating: 0, count: text.count + 16)
    output.withUnsafeMutableBytes {
      party.noise.encryptAndHash(text, byteCount: text.count, into: $0.baseAddress!)
    }
    return output
  }

  private func decrypt(_ message: [UInt8], _ party: NoiseParty) throws -> [UInt8] {
    var output = [UInt8](repeating: 0, count: message.count - 16)
    let isGenuine = output.withUnsafeMutableBytes {
      party.noise.decryptAndHash(message, byteCount: message.count - 16, into: $0.baseAddress!)
    }
    try #require(isGenuine)
    return output
  }

  private func bytes(of key: Key) -> [UInt8] { withUnsafeBytes(of: key) { [UInt8]($0) } }

  // MARK: -> e, es, s, ss

  func writeFirst(_ party: NoiseParty, responder: Key) throws -> [UInt8] {
    start(party, responder: responder)
    let noise = party.noise
    let ephemeral = writeEphemeral(initiatorEphemeral, party)
    try #require(
      noise.mixDH(secret: noise.ephemeralPrivate, point: noise.remoteStatic, keyed: true))
    let encryptedStatic = encrypt(bytes(of: party.identity.publicKey), party)
    try #require(noise.mixPrecomputed(staticProduct(party, responder)))
    return ephemeral + encryptedStatic + encrypt(payloads[0], party)
  }

  func readFirst(_ message: [UInt8], _ party: NoiseParty) throws -> [UInt8] {
    start(party, responder: party.identity.publicKey)
    let noise = party.noise
    noise.mixEphemeral(message)
    try #require(noise.mixDH(secret: party.identity.privateKey, point: message, keyed: true))
    let remote = try decrypt(Array(message[32..<80]), party)
    let key = remote.withUnsafeBytes { Key(at: $0.baseAddress!) }
    try #require(noise.mixPrecomputed(staticProduct(party, key)))
    return try decrypt(Array(message[80...]), party)
  }

  // MARK: <- e, ee, se, psk

  func writeSecond(
    _ party: NoiseParty, remote first: [UInt8], _ initiator: Key
  ) throws -> [UInt8] {
    let noise = party.noise
    let ephemeral = writeEphemeral(responderEphemeral, party)
    try #require(noise.mixDH(secret: noise.ephemeralPrivate, point: first))
    try #require(noise.mixDH(secret: noise.ephemeralPrivate, point: bytes(of: initiator)))
    noise.mixPresharedKey(presharedKey)
    return ephemeral + encrypt(payloads[1], party)
  }

  func readSecond(_ message: [UInt8], _ party: NoiseParty) throws -> [UInt8] {
    let noise = party.noise
    noise.mixEphemeral(message)
    try #require(noise.mixDH(secret: noise.ephemeralPrivate, point: message))
    try #require(noise.mixDH(secret: party.identity.privateKey, point: message))
    noise.mixPresharedKey(presharedKey)
    return try decrypt(Array(message[32...]), party)
  }

  /// The initiator's sending key, and its receiving key.
  func split(_ party: NoiseParty) -> ([UInt8], [UInt8]) {
    var first = [UInt8](repeating: 0, count: 32)
    var second = first
    first.withUnsafeMutableBytes { first in
      second.withUnsafeMutableBytes { second in
        SymmetricState.split(
          chainingKey: party.noise.chainingKey, first: first.baseAddress!,
          second: second.baseAddress!)
      }
    }
    return (first, second)
  }
}

/// One end of a handshake, with its own memory and no tunnel around it.
final class NoiseParty {
  private let memory = TestArena(byteCount: 1 << 16)
  var identity: StaticIdentity
  let noise: SymmetricState
  let constants = NoiseConstants()
  var handshake: Handshake
  var keypairs: Keypairs
  var entropy: Entropy
  /// Seconds of the next timestamp.
  private var seconds: UInt64 = 0

  init(privateKey: [UInt8], entropy: Entropy) {
    _ = Sodium.start()
    identity = StaticIdentity(carvingFrom: &memory.arena)
    noise = SymmetricState(
      scratch: memory.arena.carveBytes(SymmetricState.byteCount, owner: "scratch").baseAddress!)
    handshake = Handshake(
      secrets: memory.arena.carveBytes(Handshake.secretByteCount, owner: "handshake")
        .baseAddress!)
    keypairs = Keypairs(
      secrets: memory.arena.carveBytes(Keypairs.secretByteCount, owner: "keypairs").baseAddress!,
      windows: memory.arena.carve(
        UInt64.self, count: Keypairs.windowWordCount, owner: "windows"
      ).baseAddress!)
    self.entropy = entropy
    privateKey.withUnsafeBytes { identity.set($0.baseAddress!) }
  }

  func meet(_ other: NoiseParty, presharedKey: [UInt8] = [UInt8](repeating: 0, count: 32)) {
    handshake.precompute(identity, noise: noise, remoteStatic: other.identity.publicKey)
    handshake.presharedKey.copyMemory(from: presharedKey, byteCount: 32)
  }

  /// An initiation without MACs.
  func initiate(to other: NoiseParty, index: UInt32, timestamp: TAI64N? = nil) -> [UInt8]? {
    seconds += 1
    var bytes = [UInt8](repeating: 0, count: WireGuard.initiationByteCount)
    let isCreated = bytes.withUnsafeMutableBytes { bytes in
      handshake.createInitiation(
        InitiationMessage(writingTo: bytes.baseAddress!, sender: index), localIndex: index,
        remoteStatic: other.identity.publicKey,
        timestamp: timestamp ?? TAI64N(seconds: seconds, nanoseconds: 0), identity: identity,
        constants: constants, noise: noise, entropy: &entropy)
    }
    return isCreated ? bytes : nil
  }

  func consume(initiation: [UInt8], at now: Instant) -> (sender: Key, Handshake.Outcome)? {
    var bytes = initiation
    return bytes.withUnsafeMutableBytes { bytes in
      let message = InitiationMessage(at: bytes.baseAddress!, byteCount: bytes.count)!
      guard
        let sender = Handshake.openInitiation(
          message, identity: identity, constants: constants, noise: noise)
      else { return nil }
      return (sender, handshake.consumeInitiation(message, noise: noise, at: now))
    }
  }

  /// A response without MACs.
  func respond(to other: NoiseParty, index: UInt32) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: WireGuard.responseByteCount)
    let isCreated = bytes.withUnsafeMutableBytes { bytes in
      handshake.createResponse(
        ResponseMessage(
          writingTo: bytes.baseAddress!, sender: index, receiver: handshake.remoteIndex),
        localIndex: index, remoteStatic: other.identity.publicKey, noise: noise,
        entropy: &entropy)
    }
    return isCreated ? bytes : nil
  }

  func consume(response: [UInt8]) -> Handshake.Outcome {
    var bytes = response
    return bytes.withUnsafeMutableBytes { bytes in
      handshake.consumeResponse(
        ResponseMessage(at: bytes.baseAddress!, byteCount: bytes.count)!, identity: identity,
        noise: noise)
    }
  }
}
