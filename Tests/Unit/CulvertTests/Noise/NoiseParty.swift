@testable import Culvert

/// One end of a handshake, with memory of its own and no tunnel around it.
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
