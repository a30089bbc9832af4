import Foundation
import Testing

@testable import Culvert

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

  /// WireGuard's start, with the vector's prologue in the place of its identifier.
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
