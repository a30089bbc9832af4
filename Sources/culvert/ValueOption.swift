import Culvert

/// The options that take a value: names and accepted ranges.
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

  /// The accepted range of a number, limited by the index types of the tables and by what a small
  /// board can allocate.
  var range: ClosedRange<Int> {
    switch self {
    // R33: an MTU larger than the buffers is refused here, with the limit in the message.
    case .mtu: Policy.minimumMTU...Profile.standard.limits.maximumMTU
    case .maximumPeers: 1...65_536
    case .maximumAllowedIPs: 1...1_048_576
    case .maximumStaged: 1...1024
    // A packet of the largest size must fit.
    case .stagingSlots: 33...65_536
    // Cookies are required from one eighth on. A few peers that connect at once must not cause
    // that.
    case .handshakeRing: 64...16_384
    // At least the number of datagrams that one system call receives, and more than the handshake
    // replies of one round: otherwise a flood of handshakes would delay the timers.
    case .batchPackets: 64...1024
    case .socketBuffer: 4096...67_108_864
    case .workers: 1...64
    // Each flow needs at least two ports.
    case .maximumFlows: 1...Forwarder.maximumFlows
    case .seconds: 1...60
    case .profile, .stateDirectory, .offload, .config, .through, .udp: 0...0
    }
  }
}
