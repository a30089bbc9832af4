import Foundation
import Testing

@testable import Culvert

@Suite struct SimulationTests {
  /// `CULVERT_SIMULATION_SEEDS=1000` runs more of them, and `CULVERT_SIMULATION_SEED=7` just one.
  static var seeds: [UInt64] {
    let environment = ProcessInfo.processInfo.environment
    if let one = environment["CULVERT_SIMULATION_SEED"].flatMap(UInt64.init) { return [one] }
    let count = environment["CULVERT_SIMULATION_SEEDS"].flatMap(UInt64.init) ?? 24
    return Array(1...max(1, count))
  }

  @Test(arguments: SimulationTests.seeds)
  func tunnelsSurviveAnyNetwork(seed: UInt64) throws {
    let simulation = try Simulation(seed: seed)
    try simulation.run()
    #expect(simulation.problem == nil, "run again with CULVERT_SIMULATION_SEED=\(seed)")
  }
}
