import Foundation
import Testing

@testable import Culvert

/// Nested tunnels over a bad network, to servers one behind the other.
@Suite struct NestingSimulationTests {
  /// See `SimulationTests` for the variables; without them fewer, as each is several tunnels.
  static var seeds: [UInt64] {
    let names = ProcessInfo.processInfo.environment.keys
    let areGiven = names.contains { $0.hasPrefix("CULVERT_SIMULATION_SEED") }
    return areGiven ? SimulationTests.seeds : Array(1...12)
  }

  @Test(arguments: NestingSimulationTests.seeds)
  func nestedTunnelsSurviveAnyNetwork(seed: UInt64) throws {
    let route = try NestedRoute(seed: seed)
    route.run()
    #expect(route.problem == nil, "run again with CULVERT_SIMULATION_SEED=\(seed)")
  }
}
