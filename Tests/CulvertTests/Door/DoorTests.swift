import Testing

@testable import Culvert

/// Random and mutated datagrams and configuration lines by the hundred thousand, from seeds:
/// nothing dies, nothing leaks, every datagram gets its verdict. The same worlds run a million of
/// each with allocations counted (Tests/Allocation/door) and under libFuzzer (Tests/Fuzz).
@Suite struct DoorTests {
  #if DEBUG
    private static let datagrams = 100_000
    private static let lines = 100_000
  #else
    private static let datagrams = 1_000_000
    private static let lines = 1_000_000
  #endif

  @Test func datagramsKillNothingAndLeakNothing() {
    #expect(Sodium.start())
    let world = DoorWorld()
    #expect(world.failure == nil)
    var seed: UInt64 = 0
    while world.datagramCount < Self.datagrams, world.failure == nil {
      seed += 1
      world.run(seed: seed)
    }
    #expect(world.failure == nil, "seed \(seed): \(String(describing: world.failure))")
    for verdict in (0...UInt8.max).compactMap(Verdict.init) {
      #expect(world.verdictCount(verdict) > 0, "\(verdict.name) was never given")
    }
  }

  @Test func linesKillNothingAndLeakNothing() {
    #expect(Sodium.start())
    let door = UAPIDoor()
    var seed: UInt64 = 0
    while door.lineCount < Self.lines, door.failure == nil {
      seed += 1
      door.run(seed: seed)
    }
    #expect(door.failure == nil, "seed \(seed): \(String(describing: door.failure))")
    #expect(door.replyCount > Self.lines / 100)
    #expect(door.failedCount > Self.lines / 200)
    #expect(door.failedCount < door.replyCount * 9 / 10)
  }
}
