import Testing

@testable import Culvert

/// The rotation of sessions against a naive model of three optional names.
@Suite struct KeypairsTests {
  private struct Model {
    var current: UInt32?
    var previous: UInt32?
    var next: UInt32?

    var names: [UInt32?] { [current, previous, next] }
    var all: Set<UInt32> { Set(names.compactMap { $0 }) }

    /// Whitepaper 6.3, and the kernel's treatment of an unconfirmed session.
    mutating func initiatorBegins(_ name: UInt32) {
      previous = next ?? current
      next = nil
      current = name
    }

    mutating func responderBegins(_ name: UInt32) {
      previous = nil
      next = name
    }

    mutating func confirm() {
      guard let next else { return }
      previous = current
      current = next
      self.next = nil
    }
  }

  private func sendingKey(_ keypair: Keypair) -> [UInt8]? {
    let key = [UInt8](UnsafeRawBufferPointer(start: keypair.sendingKey, count: 32))
    return key.contains { $0 != 0 } ? key : nil
  }

  /// Runs a handshake up to the point where `party` can begin its session.
  /// - Returns: the local index.
  private func finishHandshake(
    _ party: NoiseParty, _ other: NoiseParty, index: UInt32, isInitiator: Bool, at now: Instant
  ) throws {
    let (first, second) = isInitiator ? (party, other) : (other, party)
    let initiation = try #require(first.initiate(to: second, index: index))
    #expect(second.consume(initiation: initiation, at: now)?.1 == .accepted)
    let response = try #require(second.respond(to: first, index: index))
    #expect(first.consume(response: response) == .accepted)
    other.handshake.reset()
  }

  @Test(arguments: [1, 2, 3] as [UInt64])
  func rotationIsTheModels(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    let party = NoiseParty(privateKey: generator.bytes(32), entropy: .seeded(seed))
    let other = NoiseParty(privateKey: generator.bytes(32), entropy: .seeded(seed + 9))
    party.meet(other)
    other.meet(party)
    var model = Model()
    var keys: [UInt32: [UInt8]] = [:]
    var now = Instant(nanoseconds: 0)
    for step in 1...60 as ClosedRange<UInt32> {
      now = now.advanced(by: nanosecondsPerSecond)
      let before = model.all
      var freed: Set<UInt32> = []
      switch generator.next() % 5 {
      case 0, 1:
        try finishHandshake(party, other, index: step, isInitiator: true, at: now)
        let dropped = try #require(party.keypairs.startSession(from: &party.handshake, at: now))
        freed = [dropped.0, dropped.1]
        model.initiatorBegins(step)
        #expect(party.keypairs.current.isInitiator && party.keypairs.current.birth == now)
        keys[step] = sendingKey(party.keypairs.current)
      case 2:
        try finishHandshake(party, other, index: step, isInitiator: false, at: now)
        let dropped = try #require(party.keypairs.startSession(from: &party.handshake, at: now))
        freed = [dropped.0, dropped.1]
        model.responderBegins(step)
        #expect(!party.keypairs.next.isInitiator)
        keys[step] = sendingKey(party.keypairs.next)
      case 3 where model.next != nil:
        freed = [party.keypairs.confirmNext()]
        model.confirm()
      case 4 where generator.next() % 4 == 0:
        party.keypairs.eraseAll()
        freed = before
        model = Model()
      default: break
      }
      #expect(freed.subtracting([0]) == before.subtracting(model.all))
      check(party.keypairs, model, keys, at: now)
    }
    #expect(Set(keys.values).count == keys.count)
  }

  private func check(
    _ keypairs: Keypairs, _ model: Model, _ keys: [UInt32: [UInt8]], at now: Instant
  ) {
    let three = [keypairs.current, keypairs.previous, keypairs.next]
    #expect(three.map(\.localIndex) == model.names.map { $0 ?? 0 })
    for (keypair, name) in zip(three, model.names) {
      // A session keeps its key in whatever place it is, and an empty place holds no key.
      #expect(sendingKey(keypair) == name.flatMap { keys[$0] })
      #expect(keypair.canReceive(at: now) == (name != nil))
    }
    let roles: [Keypairs.Role] = [.current, .previous, .next]
    for (role, name) in zip(roles, model.names) {
      if let name { #expect(keypairs.role(of: name) == role) }
    }
    #expect(keypairs.role(of: 0) == nil && keypairs.role(of: .max) == nil)
  }

  @Test func aSessionEndsByTimeAndByMessages() throws {
    let party = NoiseParty(
      privateKey: TestVectors.pattern(32, start: 3), entropy: .seeded(1))
    let other = NoiseParty(privateKey: TestVectors.pattern(32, start: 4), entropy: .seeded(2))
    party.meet(other)
    other.meet(party)
    let birth = Instant(nanoseconds: 7)
    try finishHandshake(party, other, index: 5, isInitiator: true, at: birth)
    _ = try #require(party.keypairs.startSession(from: &party.handshake, at: birth))
    let later = { (seconds: UInt64) in birth.advanced(by: seconds * nanosecondsPerSecond) }
    var current: Keypair { party.keypairs.current }
    #expect(current.canSend(at: later(179)) && !current.canSend(at: later(180)))
    #expect(current.canReceive(at: later(179)) && !current.canReceive(at: later(180)))
    #expect(!current.isStaleForSending(at: later(119)) && current.isStaleForSending(at: later(120)))
    #expect(!current.isStaleForReceiving(at: later(164)))
    #expect(current.isStaleForReceiving(at: later(165)))
    party.keypairs.setSendCounterForTesting(WireGuard.rekeyAfterMessages)
    #expect(!current.isStaleForSending(at: birth))
    #expect(party.keypairs.reserveCounters(1) == 1 << 60)
    #expect(current.isStaleForSending(at: birth))
    party.keypairs.setSendCounterForTesting(WireGuard.rejectAfterMessages - 1)
    #expect(current.canSend(at: birth))
    _ = party.keypairs.reserveCounters(1)
    #expect(!current.canSend(at: birth) && current.canReceive(at: birth))
    party.keypairs.setSendCounterForTesting(0)
    party.keypairs.stopSending()
    #expect(!current.canSend(at: birth) && current.canReceive(at: birth))
  }

  /// A session that is not confirmed yet belongs to the old private key too.
  @Test func noSessionSendsAfterStopSending() throws {
    let party = NoiseParty(
      privateKey: TestVectors.pattern(32, start: 5), entropy: .seeded(3))
    let other = NoiseParty(privateKey: TestVectors.pattern(32, start: 6), entropy: .seeded(4))
    party.meet(other)
    other.meet(party)
    let now = Instant(nanoseconds: 7)
    try finishHandshake(party, other, index: 5, isInitiator: true, at: now)
    _ = try #require(party.keypairs.startSession(from: &party.handshake, at: now))
    try finishHandshake(party, other, index: 6, isInitiator: false, at: now)
    _ = try #require(party.keypairs.startSession(from: &party.handshake, at: now))
    #expect(party.keypairs.current.canSend(at: now) && party.keypairs.next.canSend(at: now))
    party.keypairs.stopSending()
    #expect(!party.keypairs.current.canSend(at: now) && !party.keypairs.next.canSend(at: now))
    #expect(party.keypairs.confirmNext() == 0)
    #expect(party.keypairs.current.localIndex == 6)
    #expect(!party.keypairs.current.canSend(at: now))
    #expect(party.keypairs.current.canReceive(at: now))
  }
}
