import Culvert

/// The options that take a value, their names and what they accept.
enum ValueOption: CaseIterable {
  case profile
  case mtu
  case maximumPeers
  case maximumAllowedIPs
  case maximumStaged
  case stagingSlots
  case handshakeRing
  case batchPackets
  case socketBuffer
  case stateDirectory
  case workers
  case offload
  case config
  case through
  case udp
  case maximumFlows
  case seconds

  var name: StaticString {
    switch self {
    case .profile: "--profile"
    case .mtu: "--mtu"
    case .maximumPeers: "--max-peers"
    case .maximumAllowedIPs: "--max-allowed-ips"
    case .maximumStaged: "--max-staged"
    case .stagingSlots: "--staging-slots"
    case .handshakeRing: "--handshake-ring"
    case .batchPackets: "--batch-packets"
    case .socketBuffer: "--socket-buffer"
    case .stateDirectory: "--state-dir"
    case .workers: "--workers"
    case .offload: "--offload"
    case .config: "--config"
    case .through: "--through"
    case .udp: "--udp"
    case .maximumFlows: "--max-flows"
    case .seconds: "--seconds"
    }
  }

  /// What a number may be; the bounds of what the tables' index types and a small board can hold.
  var range: ClosedRange<Int> {
    switch self {
    // R33: an MTU beyond the buffers is refused here, with the limit in the message.
    case .mtu: Policy.minimumMTU...Profile.standard.limits.maximumMTU
    case .maximumPeers: 1...65_536
    case .maximumAllowedIPs: 1...1_048_576
    case .maximumStaged: 1...1024
    // One packet of the largest size has to fit.
    case .stagingSlots: 33...65_536
    // An eighth of it is load, and a few peers that come at once are none.
    case .handshakeRing: 64...16_384
    // As many datagrams as come in one call; also more than the handshake answers of one call, or a
    // flood of them would hold up the timers.
    case .batchPackets: 64...1024
    case .socketBuffer: 4096...67_108_864
    case .workers: 1...64
    // Each has two ports at least.
    case .maximumFlows: 1...Forwarder.maximumFlows
    case .seconds: 1...60
    case .profile, .stateDirectory, .offload, .config, .through, .udp: 0...0
    }
  }
}
