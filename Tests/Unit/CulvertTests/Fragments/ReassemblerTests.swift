import Glibc
import Testing

@testable import Culvert

/// Basic cases, their results, and the memory around them. The requirements F1-F13 have files of
/// their own.
@Suite struct ReassemblerTests {
  private let fixture = ReassemblerFixture()

  private func permutations(_ items: [TestFragment]) -> [[TestFragment]] {
    guard items.count > 1 else { return [items] }
    return items.indices.flatMap { index in
      var rest = items
      let item = rest.remove(at: index)
      return permutations(rest).map { [item] + $0 }
    }
  }

  /// The bitmaps end before foreign memory, in which blocks seem to have arrived.
  @Test func R54_coverageStaysWithinItsBytes() {
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 1024, alignment: 16)
    defer { bytes.deallocate() }
    for payload in 1...2000 {
      let own = Coverage.byteCount(for: payload)
      for word in 0..<bytes.count / 8 {
        let isForeign = word * 8 >= own && word % 2 == 0
        bytes.storeBytes(of: isForeign ? UInt64.max : 0, toByteOffset: word * 8, as: UInt64.self)
      }
      let coverage = Coverage(at: bytes.baseAddress!)
      let first = coverage.insert(byteOffset: 0, byteCount: payload)
      let second = coverage.insert(byteOffset: 0, byteCount: payload)
      #expect(first == .new && second == .same, "payload of \(payload) bytes")
    }
  }

  // MARK: Order and eviction

  @Test(arguments: [2, 3, 4], [true, false])
  func fragmentsInAnyOrder(count: Int, isIPv4: Bool) {
    let datagram = TestFragment.datagram(isIPv4: isIPv4, count * 40 - 3)
    let orders = permutations(datagram.cut(40))
    #expect(orders.count == [2: 2, 3: 6, 4: 24][count])
    for order in orders {
      for fragment in order.dropLast() {
        #expect(fixture.add(fragment) == .held)
        #expect(fixture.incompleteCount == 1)
      }
      #expect(fixture.add(order.last!) == .complete(datagram.whole.bytes))
      #expect(fixture.incompleteCount == 0 && fixture.reassembler.completedCount == 0)
    }
    #expect(fixture.count(.reassembled) == UInt64(orders.count))
    #expect(fixture.count(.held) == UInt64(orders.count * (count - 1)))
  }

  /// From one source, and from 65: the first datagram is evicted, all others are completed.
  @Test(arguments: [true, false], [true, false])
  func theSixtyFifthDatagramEvictsTheOldestAndOnlyIt(isOneSource: Bool, isIPv4: Bool) {
    let datagrams = (0..<65).map { index in
      TestFragment.datagram(
        isIPv4: isIPv4, source: isOneSource ? 1 : UInt8(1 + index),
        identification: UInt32(100 + index), 40)
    }
    for datagram in datagrams { #expect(fixture.add(datagram.cut(24)[0]) == .held) }
    #expect(fixture.incompleteCount == 64 && fixture.count(.evicted) == 1)
    for datagram in datagrams.dropFirst() {
      #expect(fixture.add(datagram.cut(24)[1]) == .complete(datagram.whole.bytes))
    }
    #expect(fixture.count(.evicted) == 1 && fixture.incompleteCount == 0)
    #expect(fixture.add(datagrams[0].cut(24)[1]) == .held)
  }

  @Test func incompleteDatagramsAreCounted() {
    for index in 0..<10 as Range<UInt32> {
      #expect(fixture.incompleteCount == Int(index))
      #expect(fixture.add(.first(identification: index)) == .held)
    }
    let last = TestFragment.datagram(identification: 3, 24).cut(16)[1]
    #expect(
      fixture.add(last) == .complete(TestFragment.datagram(identification: 3, 24).whole.bytes))
    #expect(fixture.incompleteCount == 9)
    fixture.reassembler.removeAll()
    #expect(fixture.incompleteCount == 0 && fixture.count(.removed) == 9)
  }

  @Test func headerOfADeliveredPacket() throws {
    let datagram = TestFragment.datagram(3000).with {
      $0.trafficClass = 0xb8
      $0.identification = 0xfffe
      $0.timeToLive = 3
    }
    guard case .complete(let bytes) = fixture.add(datagram.cut(1480)) else {
      Issue.record("not whole")
      return
    }
    let packet = PacketBuffer(bytes)
    let header = try #require(IPv4Header(at: packet.start, byteCount: bytes.count))
    #expect(header.totalByteCount == 3020 && header.fragmentField == 0)
    #expect(header.hasIntactChecksum && PacketModel(bytes)?.bytes == bytes)
    #expect(header.trafficClass == 0xb8 && header.identification == 0xfffe)
    #expect(header.timeToLive == 3 && header.protocolNumber == 17)
    #expect(bytes == datagram.whole.bytes)
  }

  // MARK: Whole packets

  @Test(arguments: [true, false]) func wholePacketIsGivenBackWithoutWhatIsBehindIt(isIPv4: Bool) {
    let packet = TestFragment.datagram(isIPv4: isIPv4, 30).whole.bytes
    #expect(fixture.add(packet + [1, 2, 3]) == .whole(packet))
    #expect(fixture.count(.whole) == 1 && fixture.incompleteCount == 0)
  }

  @Test func wholePacketOfManyHeaders() {
    let packet = TestFragment.datagram(isIPv4: false, 30).with {
      $0.extensions = [(0, [0, 0, 1, 4, 0, 0, 0, 0]), (60, [UInt8](repeating: 0, count: 8))]
      $0.hasFragmentHeader = false
    }
    #expect(fixture.add(packet) == .whole(packet.bytes))
  }

  @Test func whatIsNoPacket() {
    for bytes in [[], [0x45], [UInt8](repeating: 0x55, count: 60)] {
      #expect(fixture.add(bytes) == .dropped(.malformed))
    }
    #expect(
      fixture.reassembler.add(
        UnsafeMutableRawBufferPointer(start: nil, count: 0), from: 1,
        at: ReassemblerFixture.instant(0)
      ).isDropped(as: .malformed))
    for isIPv4 in [true, false] {
      let bytes = TestFragment.first(isIPv4: isIPv4).bytes
      for count in 0..<bytes.count {
        #expect(fixture.add(Array(bytes[..<count])) == .dropped(.malformed))
      }
    }
    #expect(fixture.incompleteCount == 0)
  }

  @Test func wrongHeaderChecksumIsRefused() {
    for place in 0..<20 where place != 0 && place != 2 && place != 3 {
      var bytes = TestFragment.first().bytes
      bytes[place] ^= 0x10
      #expect(fixture.add(bytes) == .dropped(.badChecksum))
    }
    // The checksum covers options too.
    var bytes = TestFragment.first().with { $0.options = [1, 1, 1, 1] }.bytes
    #expect(fixture.add(bytes) == .held)
    bytes[22] ^= 1
    #expect(fixture.add(bytes) == .dropped(.badChecksum))
  }

  // MARK: Slots

  @Test func slotsOfWholePacketsAreNotEvicted() {
    fixture.keepsPackets = true
    let datagrams = (0..<64).map { TestFragment.datagram(identification: $0, 40) }
    for datagram in datagrams {
      #expect(fixture.add(datagram.cut(24)) == .complete(datagram.whole.bytes))
    }
    #expect(Set(fixture.slots) == Set(0..<64))
    #expect(fixture.reassembler.completedCount == 64 && fixture.incompleteCount == 0)
    #expect(fixture.add(.first(identification: 99)) == .dropped(.noSlot))
    fixture.reassembler.removeAll()
    #expect(fixture.expire(at: 1000).isEmpty && fixture.reassembler.completedCount == 64)
    fixture.release()
    #expect(fixture.add(.first(identification: 99)) == .held)
    // The one slot without a complete packet is reused again and again.
    #expect(fixture.add(.first(identification: 100)) == .held)
    #expect(fixture.count(.evicted) == 1 && fixture.count(.noSlot) == 1)
  }

  /// A late duplicate of a packet in use starts a new datagram.
  @Test func keyOfAWholePacketIsFree() {
    fixture.keepsPackets = true
    let datagram = TestFragment.datagram(40)
    for _ in 0..<2 { #expect(fixture.add(datagram.cut(24)) == .complete(datagram.whole.bytes)) }
    #expect(Set(fixture.slots).count == 2)
  }

  @Test func everyFragmentCountsOnce() {
    let world = ReassemblyWorld()
    for seed in 0..<200 as Range<UInt64> { ReassemblyStream.run(seed: seed, in: world) }
    let packets = world.tally.prefix(Int(FragmentVerdict.evicted.rawValue))
    #expect(packets.map(\.count).reduce(0, +) == UInt64(world.packetCount))
    #expect(Set(world.tally.map(\.name)).count == Int(FragmentVerdict.count))
  }

  // MARK: Memory

  @Test func roomAroundAPacketIsEnoughForTheCipher() {
    #expect(Reassembler.headroom >= TransportCipher.headroom)
    #expect(Reassembler.slack >= TransportCipher.slack + WireGuard.tagByteCount)
    #expect(Policy.fragmentHeadersByteCount >= 60)
    #expect(Reassembler.headroom >= ICMPError.headroomByteCount)
  }

  /// The largest packets, and one byte more, within the fences of `ReassemblyWorld`.
  @Test(arguments: [576, 2048, 65_575], [true, false])
  func largestPackets(maximumByteCount: Int, isIPv4: Bool) {
    let world = ReassemblyWorld(maximumByteCount: maximumByteCount)
    let largest = min(maximumByteCount, isIPv4 ? 65_535 : 65_575) - (isIPv4 ? 20 : 40)
    for (number, byteCount) in [largest, largest + 1, largest - 1].enumerated() {
      let datagram = TestFragment.datagram(
        isIPv4: isIPv4, identification: UInt32(number), byteCount)
      for fragment in datagram.cut(min(1024, byteCount / 16 * 8)) {
        world.add(fragment.bytes, at: 0)
      }
      #expect(world.completedCount == (byteCount > largest ? 0 : 1))
      if world.completedCount > 0 { world.release(0) }
    }
    #expect(world.failure == nil)
  }

  /// The carved memory is 64 regions and little else, as in the budget.
  @Test(arguments: [(2048, 300 * 1024), (65_575, 4600 * 1024)])
  func memoryIsASum(maximumByteCount: Int, limit: Int) {
    var arena = Arena.measuring
    _ = Reassembler(carvingFrom: &arena, maximumPacketByteCount: maximumByteCount)
    #expect(arena.byteCount <= limit)
    #expect(arena.byteCount >= 64 * (maximumByteCount + 64 + 1024))
    #expect(arena.budget.count == 2)
  }
}

extension Reassembler.Outcome {
  func isDropped(as verdict: FragmentVerdict) -> Bool {
    if case .dropped(verdict) = self { true } else { false }
  }
}

/// Random streams through core and model. Tests/Fuzz/Models/run runs a million of them in a release
/// build.
@Suite struct ReassemblyStreamTests {
  /// The sanitizers are slow and set a smaller number in the environment.
  private static var streamsPerRun: UInt64 {
    getenv("REASSEMBLY_STREAMS").map { UInt64(atol($0)) / 8 } ?? 1000
  }

  @Test(arguments: 0..<8 as Range<UInt64>) func anyStreamGoesAsInTheModel(run: UInt64) {
    let world = ReassemblyWorld(isThorough: run % 4 == 0)
    let first = run * ReassemblyStreamTests.streamsPerRun
    for seed in first..<(first + ReassemblyStreamTests.streamsPerRun) {
      ReassemblyStream.run(seed: seed, in: world)
      if let failure = world.failure {
        Issue.record("stream \(seed): \(failure)")
        return
      }
    }
  }

  @Test func largeDatagramsGoAsInTheModel() {
    let world = ReassemblyWorld(maximumByteCount: 65_575, isThorough: false)
    for seed in 0..<60 as Range<UInt64> {
      ReassemblyStream.run(seed: seed, in: world, maximumByteCount: 65_575)
      if let failure = world.failure {
        Issue.record("stream \(seed): \(failure)")
        return
      }
    }
  }

  /// A verdict that no stream reaches is untested.
  @Test func streamsReachEveryVerdict() {
    let world = ReassemblyWorld(isThorough: false)
    var missing = Set(world.tally.map(\.name))
    var seed: UInt64 = 1_000_000
    while !missing.isEmpty, seed < 1_006_000 {
      ReassemblyStream.run(seed: seed, in: world)
      missing.subtract(world.tally.filter { $0.count > 0 }.map(\.name))
      seed += 1
    }
    #expect(missing.isEmpty)
  }
}

/// A `Reassembler` with memory, which takes `TestFragment`s. Its results are copies.
final class ReassemblerFixture {
  typealias Outcome = ReassemblyModel.Outcome
  typealias Expiry = ReassemblyModel.Expiry

  private let memory: TestArena
  var reassembler: Reassembler
  /// Slots of complete packets are kept until `release`.
  var keepsPackets = false
  private(set) var slots: [Int] = []

  init(maximumByteCount: Int = 65_575, seed: UInt64 = 1) {
    var measuring = Arena.measuring
    _ = Reassembler(carvingFrom: &measuring, maximumPacketByteCount: maximumByteCount)
    memory = TestArena(byteCount: measuring.byteCount)
    reassembler = Reassembler(
      carvingFrom: &memory.arena, maximumPacketByteCount: maximumByteCount)
    reassembler.start(seed: seed)
  }

  /// - Parameter now: in seconds.
  func add(_ bytes: [UInt8], from sender: UInt32 = 1, at now: Double = 0) -> Outcome {
    let packet = PacketBuffer(bytes)
    let buffer = UnsafeMutableRawBufferPointer(start: packet.start, count: bytes.count)
    switch reassembler.add(buffer, from: sender, at: ReassemblerFixture.instant(now)) {
    case .whole(let found): return .whole(Array(found))
    case .held: return .held
    case .dropped(let verdict): return .dropped(verdict)
    case .complete(let found, let slot):
      let copy = Array(found)
      if keepsPackets { slots.append(slot) } else { reassembler.release(slot) }
      return .complete(copy)
    }
  }

  func add(_ fragment: TestFragment, from sender: UInt32 = 1, at now: Double = 0) -> Outcome {
    add(fragment.bytes, from: sender, at: now)
  }

  /// Adds all of them in order. Returns the last outcome.
  func add(_ fragments: [TestFragment], from sender: UInt32 = 1, at now: Double = 0) -> Outcome {
    fragments.reduce(.held) { _, fragment in add(fragment, from: sender, at: now) }
  }

  func release() {
    reassembler.release(slots.removeFirst())
  }

  /// The expired datagrams, one after the other.
  func expire(at now: Double) -> [Expiry] {
    var expired: [Expiry] = []
    while let expiry = reassembler.expire(at: ReassemblerFixture.instant(now)) {
      switch expiry {
      case .silent: expired.append(.silent)
      case .timeExceeded(let packet): expired.append(.timeExceeded(Array(packet)))
      }
    }
    return expired
  }

  func count(_ verdict: FragmentVerdict) -> UInt64 { reassembler.counters[verdict] }

  var incompleteCount: Int { reassembler.incompleteCount }

  /// In seconds.
  var nextDeadline: Double? {
    reassembler.nextDeadline.instant.map { Double($0.nanoseconds) / 1e9 }
  }

  static func instant(_ seconds: Double) -> Instant {
    Instant(nanoseconds: UInt64(seconds * 1e9))
  }
}

extension TestFragment {
  /// An unfragmented datagram whose payload counts up.
  static func datagram(
    isIPv4: Bool = true, source: UInt8 = 1, identification: UInt32 = 7, _ byteCount: Int
  ) -> TestFragment {
    var datagram = TestFragment()
    datagram.isIPv4 = isIPv4
    datagram.source = source
    datagram.identification = identification
    datagram.payload = (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
    return datagram
  }

  /// One fragment of a datagram that is never completed.
  static func first(
    isIPv4: Bool = true, source: UInt8 = 1, identification: UInt32 = 7
  ) -> TestFragment {
    datagram(isIPv4: isIPv4, source: source, identification: identification, 24).cut(16)[0]
  }

  /// This fragment, changed.
  func with(_ change: (inout TestFragment) -> Void) -> TestFragment {
    var fragment = self
    change(&fragment)
    return fragment
  }
}
