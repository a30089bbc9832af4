import Testing

@testable import Culvert

/// The selftest itself: it passes here, it notices errors, and its expectation for the reassembler
/// is the naive model's result. An independent implementation computes the other expectations.
@Suite struct SelftestTests {
  private let memory = UnsafeMutableRawBufferPointer.allocate(
    byteCount: Selftest.memoryByteCount, alignment: Arena.pageByteCount)

  /// A clock that advances with each reading; one test uses it.
  nonisolated(unsafe) private static var time: UInt64 = 0

  init() {
    _ = Sodium.start()
  }

  @Test func everyGroupGivesWhatIsExpected() {
    defer { memory.deallocate() }
    var names: Set<String> = []
    for raw in 0..<SelftestGroup.count {
      let group = SelftestGroup(rawValue: raw)!
      #expect(Selftest.digest(of: group, memory: memory) == group.expected, "\(group.name)")
      names.insert("\(group.name)")
    }
    #expect(names.count == Int(SelftestGroup.count))
  }

  /// Neither the memory's previous content nor the order of the groups matters.
  @Test func aGroupDependsOnNothingButItself() {
    defer { memory.deallocate() }
    memory.initializeMemory(as: UInt8.self, repeating: 0xa5)
    for raw in (0..<SelftestGroup.count).reversed() {
      let group = SelftestGroup(rawValue: raw)!
      #expect(Selftest.digest(of: group, memory: memory) == group.expected, "\(group.name)")
    }
  }

  /// Any changed bit in the hashed data, or in the digests of the groups, changes the result.
  @Test func aBitThatFlipsChangesTheDigest() {
    defer { memory.deallocate() }
    let answer = [UInt8](0..<96)
    let right = digest(of: answer)
    for bit in 0..<(8 * answer.count) {
      var damaged = answer
      damaged[bit / 8] ^= 1 << (bit % 8)
      #expect(digest(of: damaged) != right)
    }
    // A number is hashed as eight bytes, so that no two sequences of numbers collide.
    var one = SelftestDigest()
    var other = SelftestDigest()
    one.add(1)
    one.add(0x100)
    other.add(0x1_0001)
    let (first, second) = (one.finish(), other.finish())
    #expect(first != second)
    let total = Selftest.chain(Selftest.chain(0, 1), 2)
    #expect(total != Selftest.chain(Selftest.chain(0, 2), 1))
    for bit in 0..<64 { #expect(Selftest.chain(Selftest.chain(0, 1), 2 ^ 1 << bit) != total) }
  }

  private func digest(of bytes: [UInt8]) -> UInt64 {
    var digest = SelftestDigest()
    bytes.withUnsafeBytes { digest.add($0.baseAddress!, byteCount: $0.count) }
    return digest.finish()
  }

  /// The same code with one wrong answer: each primitive's group runs from another seed, as if it
  /// had read one bit of its input wrongly.
  @Test func anotherInputIsAnotherDigest() {
    defer { memory.deallocate() }
    for group in [
      SelftestGroup.blake2s, .hmac, .hkdf, .siphash, .aead, .xaead, .replay, .routing, .timers,
      .time, .checksum, .fragments, .text,
    ] {
      memory.initializeMemory(as: UInt8.self, repeating: 0)
      var run = SelftestRun(memory: memory, seed: UInt64(group.rawValue) ^ 0x100)
      run.run(group)
      let digest = run.digest.finish()
      #expect(digest != group.expected, "\(group.name)")
    }
  }

  /// The stream of the reassembler's group through the model of Tests/Unit/CulvertTests/Fragments.
  @Test func theReassemblersDigestIsTheModels() {
    defer { memory.deallocate() }
    var model = ReassemblyModel(maximumByteCount: SelftestFragments.maximumPacketByteCount)
    var stream = SelftestFragments(seed: 1)
    var digest = SelftestDigest()
    func add(_ bytes: [UInt8]) {
      bytes.withUnsafeBytes { digest.add($0.baseAddress!, byteCount: $0.count) }
    }
    for _ in 0..<SelftestFragments.count {
      let byteCount = stream.next(into: memory.baseAddress!)
      let packet = [UInt8](UnsafeRawBufferPointer(start: memory.baseAddress!, count: byteCount))
      let now = stream.now.nanoseconds
      switch model.add(packet, from: stream.sender, at: now) {
      case .whole(let whole): add(whole)
      case .held: digest.add(256)
      case .complete(let whole):
        add(whole)
        model.release()
      case .dropped(let verdict): digest.add(UInt64(verdict.rawValue))
      }
      switch model.expire(at: now) {
      case nil: break
      case .silent: digest.add(257)
      case .timeExceeded(let error): add(error)
      }
    }
    let found = digest.finish()
    #expect(found == SelftestGroup.reassembly.expected)
    // A verdict that the stream never reaches is untested.
    let verdicts: [FragmentVerdict] = [
      .held, .reassembled, .duplicate, .badLength, .poisoned, .overlap, .differentEnd, .beyondEnd,
      .brokenCongestionMark, .evicted, .expired, .timeExceededSent, .tooLarge,
    ]
    for verdict in verdicts {
      #expect(model.counts[verdict, default: 0] > 0, "\(verdict)")
    }
  }

  @Test func theBenchmarkMeasuresWork() {
    defer { memory.deallocate() }
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Bench.memoryByteCount, alignment: Arena.pageByteCount)
    defer { memory.deallocate() }
    let now: Bench.Clock = {
      SelftestTests.time += 1000
      return SelftestTests.time
    }
    let packets = Bench.packets(memory: memory, duration: 100_000, now: now)
    for measurement in [packets.seal, packets.open, packets.outbound, packets.inbound] {
      #expect(measurement.count > 0 && measurement.nanoseconds > 0)
    }
    #expect(packets.outbound.nanoseconds > packets.seal.nanoseconds)
    #expect(packets.inbound.nanoseconds > packets.open.nanoseconds)
    #expect(Bench.x25519(memory: memory, duration: 3000, now: now).count > 0)
    // If a handshake failed, there would be no figure.
    #expect(Bench.handshakes(memory: memory, duration: 20_000, now: now).count > 3)
    for fragments in [2, 7] {
      for isReversed in [false, true] {
        let measurement = Bench.reassembly(
          fragments: fragments, isReversed: isReversed, memory: memory, duration: 3000, now: now)
        #expect(measurement.count >= 64 && measurement.count % 64 == 0)
      }
    }
  }

  // MARK: The rig

  /// Packets and handshakes of each hop through all hops around it; large packets in fragments.
  @Test(arguments: 1...TunnelEnd.maximumHops) func loopbacksCarryThroughAnyNumberOfHops(hops: Int) {
    let memory = TestArena(byteCount: 32 << 20)
    var loopback = Loopback(
      carvingFrom: &memory.arena, hops: hops, limits: .nested,
      at: Instant(nanoseconds: 1_000 * nanosecondsPerSecond))
    loopback.start(isSeeded: true)
    loopback.setCipher(.composed(stride: 256), of: Loopback.responder)
    // The first packets wait for the sessions of all hops.
    for (count, byteCount, delivered) in [(3, 100, 3), (10, 1400, 13)] {
      loopback.fill(count, byteCount: byteCount)
      loopback.plan(Loopback.initiator)
      loopback.exchange(from: Loopback.initiator)
      let arrived = loopback.count(.delivered, of: Loopback.responder)
      #expect(arrived == UInt64(delivered))
    }
    loopback.fill(2, byteCount: 60)
    loopback.plan(Loopback.responder)
    loopback.exchange(from: Loopback.responder)
    let answered = loopback.count(.delivered, of: Loopback.initiator)
    #expect(answered == 2)
    withExtendedLifetime(memory) {}
  }
}
