import Foundation
import Testing

@testable import Culvert

/// R9: no key outlives its use.
@Suite struct SecretRequirementTests {
  /// Both keys of the current session, and the preshared key.
  private func sessionSecrets(_ node: TunnelNode, _ id: PeerID) -> [[UInt8]] {
    let keypairs = node.state(id).keypairs
    return [keypairs.current, keypairs.previous, keypairs.next]
      .flatMap { [UnsafeRawPointer($0.sendingKey), UnsafeRawPointer($0.receivingKey)] }
      .map { node.bytes(at: $0) }
      .filter { $0.contains { $0 != 0 } }
  }

  /// All secrets of a handshake: chaining key, ephemeral, preshared key, static product.
  private func handshakeSecrets(_ node: TunnelNode, _ id: PeerID) -> [[UInt8]] {
    let start = node.state(id).handshake.presharedKey - 64
    return (0..<4)
      .map { node.bytes(at: start + 32 * $0) }
      .filter { $0.contains { $0 != 0 } }
  }

  /// A pair with a current and a previous session, a preshared key, and an unanswered initiation of
  /// a.
  private func makePair() throws -> TunnelPair {
    let pair = try TunnelPair()
    let key = [UInt8](repeating: 0x3c, count: 32)
    pair.a.setPresharedKey(key, of: pair.peerOfA)
    pair.b.setPresharedKey(key, of: pair.peerOfB)
    pair.connect()
    pair.skip(125 * nanosecondsPerSecond)
    pair.sendFromA([pair.packetFromA()])
    pair.exchange()
    #expect(sessionSecrets(pair.a, pair.peerOfA).count == 4)
    _ = try #require(pair.initiationFromA())
    #expect(handshakeSecrets(pair.a, pair.peerOfA).count == 4)
    return pair
  }

  @Test func R9_aRemovedPeerLeavesNoKey() throws {
    let pair = try makePair()
    let secrets =
      sessionSecrets(pair.a, pair.peerOfA) + handshakeSecrets(pair.a, pair.peerOfA)
    for secret in secrets { #expect(pair.a.holdsSecret(secret)) }
    pair.a.tunnel.removePeer(pair.peerOfA)
    for secret in secrets { #expect(!pair.a.holdsSecret(secret)) }
  }

  @Test func R9_anInterfaceThatGoesDownLeavesNoSessionKey() throws {
    let pair = try makePair()
    let ephemerals = handshakeSecrets(pair.a, pair.peerOfA).prefix(2)
    let secrets = sessionSecrets(pair.a, pair.peerOfA) + ephemerals
    pair.a.tunnel.setUp(false, at: pair.now)
    for secret in secrets { #expect(!pair.a.holdsSecret(secret)) }
    // Configured keys stay.
    #expect(handshakeSecrets(pair.a, pair.peerOfA).count == 2)
    #expect(pair.a.indexCount == 0)
  }

  @Test func R9_silenceForThreeRejectTimesWipesKeys() throws {
    let pair = try makePair()
    pair.loses = { _ in true }
    let ephemerals = handshakeSecrets(pair.a, pair.peerOfA).prefix(2)
    let secretsOfA = sessionSecrets(pair.a, pair.peerOfA) + ephemerals
    let secretsOfB = sessionSecrets(pair.b, pair.peerOfB)
    pair.wait(seconds: 530)
    #expect(pair.b.holdsSecret(secretsOfB[0]))
    pair.wait(seconds: 11)
    for secret in secretsOfA { #expect(!pair.a.holdsSecret(secret)) }
    for secret in secretsOfB { #expect(!pair.b.holdsSecret(secret)) }
    #expect(pair.a.indexCount == 0)
    #expect(pair.b.indexCount == 0)
  }

  /// A handshake begins shortly before the keys are wiped. Its ephemeral key and its index do not
  /// stay; the next try draws new ones.
  @Test func R9_theHandshakeInProgressIsWipedWithTheKeys() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.wait(Policy.zeroKeysAfterTime - 2 * nanosecondsPerSecond)
    pair.loses = { _ in true }
    pair.sendFromA([pair.packetFromA([7])])
    pair.exchange()
    #expect(pair.sentByA.last?.type == 1)
    let ephemerals = handshakeSecrets(pair.a, pair.peerOfA).prefix(2)
    #expect(pair.a.indexCount == 2)
    pair.wait(2 * nanosecondsPerSecond - 1)
    for secret in ephemerals { #expect(pair.a.holdsSecret(secret)) }
    pair.wait(1)
    for secret in ephemerals { #expect(!pair.a.holdsSecret(secret)) }
    #expect(pair.a.indexCount == 0)
    pair.loses = { _ in false }
    pair.wait(seconds: 4)
    #expect(pair.b.delivered.last == pair.packetFromA([7]))
  }

  @Test func R9_noKeyIsLeftInBatchesOrScratch() throws {
    let pair = try TunnelPair()
    pair.connect()
    let secrets = sessionSecrets(pair.a, pair.peerOfA)
    pair.sendFromA([pair.packetFromA()])
    pair.sendFromB([pair.packetFromB()])
    // The keypair's own copy is the only one.
    pair.a.tunnel.eraseKeypairs(&pair.a.tunnel.peer(pair.peerOfA)!.pointee)
    for secret in secrets { #expect(!pair.a.holdsSecret(secret)) }
    let scratch = UnsafeRawBufferPointer(
      start: pair.a.tunnel.noise.chainingKey, count: SymmetricState.byteCount)
    let publicKey = 224..<256
    #expect(scratch.indices.allSatisfy { publicKey.contains($0) || scratch[$0] == 0 })
  }

  @Test func R9_anUnsetPrivateKeyIsWipedWithItsProducts() throws {
    let pair = try makePair()
    let privateKey = pair.a.bytes(at: pair.a.tunnel.identity.privateKey)
    let secrets = handshakeSecrets(pair.a, pair.peerOfA)
    pair.a.setPrivateKey([UInt8](repeating: 0, count: 32))
    #expect(!pair.a.holdsSecret(privateKey))
    // The preshared key is configuration.
    for index in [0, 1, 3] { #expect(!pair.a.holdsSecret(secrets[index])) }
  }

  /// Times cannot be measured reliably here, so this checks that the code has one function for it.
  @Test func R35_secretsAreComparedThroughOneConstantTimeDoor() throws {
    let sources = repositoryRoot.appendingPathComponent("Sources")
    let shim = try String(
      contentsOf: sources.appendingPathComponent("CSodium/shim.h"), encoding: .utf8)
    #expect(shim.contains("sodium_memcmp(") && shim.contains("sodium_is_zero("))
    let checker = try String(
      contentsOf: sources.appendingPathComponent("Culvert/Noise/Cookies.swift"),
      encoding: .utf8)
    #expect(checker.components(separatedBy: "Secret.equal(").count == 3)
    for folder in ["Noise", "Crypto"] {
      let directory = sources.appendingPathComponent("Culvert/\(folder)")
      let files = try FileManager.default.contentsOfDirectory(
        at: directory, includingPropertiesForKeys: nil)
      for file in files where file.pathExtension == "swift" {
        let text = try String(contentsOf: file, encoding: .utf8)
        #expect(!text.contains("memcmp") && !text.contains("elementsEqual"), "\(file.path)")
      }
    }
  }
}
