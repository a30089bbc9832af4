import Foundation
import Testing

@testable import Culvert

@Suite struct SimulatorTests {
  /// `CULVERT_SIMULATION_SEEDS=1000` runs more of them, and `CULVERT_SIMULATION_SEED=7` just one.
  static var seeds: [UInt64] {
    let environment = ProcessInfo.processInfo.environment
    if let one = environment["CULVERT_SIMULATION_SEED"].flatMap(UInt64.init) { return [one] }
    let count = environment["CULVERT_SIMULATION_SEEDS"].flatMap(UInt64.init) ?? 300
    return Array(1...max(1, count))
  }

  /// Only a few hosts and little time, because a debug build is slow; `make simulate` runs more. It
  /// is one test, so that the list of tests stays short.
  @Test func hostsSurviveAnyTrouble() throws {
    try #require(Sodium.start())
    for seed in SimulatorTests.seeds {
      let most = SimulationPlan(seed: seed)
      let options = [
        "\(seed)", "--hosts", "\(min(most.hostCount, 4))", "--seconds", "\(min(most.seconds, 20))",
      ]
      let simulator = Simulator(try #require(SimulationPlan(options)))
      simulator.run()
      let command = "Tests/Fuzz/Simulator/run plan \(options.joined(separator: " "))"
      #expect(simulator.problem == nil, "run it again with: \(command)")
    }
  }
}
