import Glibc
import Testing

@testable import Culvert

/// A hundred thousand random and mutated datagrams and as many configuration lines, from seeds (a
/// million in release builds): nothing traps, nothing leaks, every datagram gets its verdict. The
/// same worlds process a million of each with allocations counted (the allocation suite) and run
/// under libFuzzer (Tests/Fuzz).
@Suite struct DoorTests {
  /// Datagrams and lines of a run. The sanitizers are slow and set a smaller number in the
  /// environment.
  private static let count: Int = {
    if let wish = getenv("DOOR_COUNT") { return atol(wish) }
    #if DEBUG
      return 100_000
    #else
      return 1_000_000
    #endif
  }()

  @Test func datagramsKillNothingAndLeakNothing() {
    #expect(Sodium.start())
    let world = DoorWorld()
    #expect(world.failure == nil)
    var seed: UInt64 = 0
    while world.datagramCount < Self.count, world.failure == nil {
      seed += 1
      world.run(seed: seed)
    }
    #expect(world.failure == nil, "seed \(seed): \(String(describing: world.failure))")
    // A short run does not reach the rare verdicts.
    guard Self.count >= 100_000 else { return }
    #expect(world.joinedCount > 100)
    #expect(world.segmentCount > 1000)
    for verdict in (0...UInt8.max).compactMap(Verdict.init) {
      #expect(world.verdictCount(verdict) > 0, "\(verdict.name) was never given")
    }
  }

  @Test func linesKillNothingAndLeakNothing() {
    #expect(Sodium.start())
    let door = UAPIDoor()
    var seed: UInt64 = 0
    while door.lineCount < Self.count, door.failure == nil {
      seed += 1
      door.run(seed: seed)
    }
    #expect(door.failure == nil, "seed \(seed): \(String(describing: door.failure))")
    #expect(door.replyCount > Self.count / 100)
    #expect(door.failedCount > Self.count / 200)
    #expect(door.failedCount < door.replyCount * 9 / 10)
  }
}
