import Glibc
import Testing

@testable import Culvert

/// Random streams through core and model. A million of them, in a release build: Tests/Models/run.
@Suite struct ReassemblyStreamTests {
  /// Sanitizers are slow and ask for fewer by the environment.
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

  /// Streams that never reach a verdict would prove nothing about it.
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
