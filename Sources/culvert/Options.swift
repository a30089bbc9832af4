import Culvert
import CulvertLinux

/// What the command line asks for.
struct Options {
  enum Command {
    case run(InterfaceName)
    case help
    case version
    case budget
    case generateKey
    case generatePresharedKey
    case publicKey
  }

  enum Result {
    case command(Command)
    case failure(OptionFailure)
  }

  private var isForeground = Environment.isSet("WG_PROCESS_FOREGROUND", to: "1")
  private(set) var profile = Profile.standard
  /// Nil for the default.
  private var mtu: Int?
  /// NUL-terminated; nil for the default.
  private var stateDirectory: UnsafePointer<CChar>?
  private var socketBufferByteCount: Int?
  private var offloads = Offloads.all
  /// Configuration files, NUL-terminated: the tunnel's own, and those of the tunnels around it.
  private var config: UnsafePointer<CChar>?
  private var through = ThroughList()
  /// Nil for as many as there are CPUs.
  private var workers: Int?
  // Overrides of the profile's limits; nil keeps them.
  private var maximumPeers: Int?
  private var maximumAllowedIPs: Int?
  private var maximumStaged: Int?
  private var stagingSlots: Int?
  private var handshakeRing: Int?
  private var batchPackets: Int?

  /// The profile's limits with the overrides.
  var limits: Limits {
    var limits = profile.limits
    if let maximumPeers { limits.peers = maximumPeers }
    if let maximumAllowedIPs { limits.allowedIPs = maximumAllowedIPs }
    if let maximumStaged { limits.stagedPacketsPerPeer = maximumStaged }
    if let stagingSlots { limits.stagingSlots = stagingSlots }
    if let handshakeRing { limits.handshakeRing = handshakeRing }
    if let batchPackets { limits.batchPackets = batchPackets }
    limits.workers = workers ?? Processors.count
    return limits
  }

  /// Bytes that each socket may have waiting to be received.
  var socketBuffer: Int {
    socketBufferByteCount ?? UDPSockets.defaultBufferByteCount(for: profile)
  }

  /// Tunnels, one inside the other.
  var hopCount: Int { through.count + 1 }

  /// What `culvert IFNAME` runs with.
  func service(_ name: InterfaceName) -> ServiceOptions {
    var service = ServiceOptions(name, limits: limits)
    service.isForeground = isForeground
    if let mtu {
      service.mtu = mtu
      service.isMTUGiven = true
    }
    service.socketBufferByteCount = socketBuffer
    service.stateDirectory = stateDirectory
    service.offloads = offloads
    service.config = config
    service.through = through
    return service
  }

  mutating func parse(_ arguments: Arguments) -> Result {
    var arguments = arguments
    var word: UnsafePointer<CChar>?
    while let argument = arguments.next() {
      if argument[0] != 0x2d {
        if word != nil { return .failure(OptionFailure(.tooManyNames, argument)) }
        word = argument
        continue
      }
      if Argument.isText(argument, "-h") || Argument.isText(argument, "--help") {
        return .command(.help)
      }
      if Argument.isText(argument, "--version") || Argument.isText(argument, "-v") {
        return .command(.version)
      }
      if Argument.isText(argument, "-f") || Argument.isText(argument, "--foreground") {
        isForeground = true
        continue
      }
      if Argument.isText(argument, "--no-offload") {
        offloads = .none
        continue
      }
      if let failure = parseOption(argument, &arguments) { return .failure(failure) }
    }
    guard let word else { return .failure(OptionFailure(.noName, nil)) }
    return command(word)
  }

  private func command(_ word: UnsafePointer<CChar>) -> Result {
    if Argument.isText(word, "help") { return .command(.help) }
    if Argument.isText(word, "version") { return .command(.version) }
    if Argument.isText(word, "budget") { return .command(.budget) }
    if Argument.isText(word, "genkey") { return .command(.generateKey) }
    if Argument.isText(word, "genpsk") { return .command(.generatePresharedKey) }
    if Argument.isText(word, "pubkey") { return .command(.publicKey) }
    guard let name = InterfaceName(cString: word) else {
      return .failure(OptionFailure(.badName, word))
    }
    if !through.isEmpty, !name.hasRoomForHops {
      return .failure(OptionFailure(.longName, word))
    }
    return .command(.run(name))
  }

  /// An option with a value, as `--name value` or `--name=value`. Nil on success.
  private mutating func parseOption(
    _ argument: UnsafePointer<CChar>, _ arguments: inout Arguments
  ) -> OptionFailure? {
    for option in ValueOption.allCases {
      let value: UnsafePointer<CChar>
      if Argument.isText(argument, option.name) {
        guard let next = arguments.next() else { return OptionFailure(.noValue, argument) }
        value = next
      } else if let joined = Argument.value(argument, of: option.name) {
        value = joined
      } else {
        continue
      }
      return set(option, value)
    }
    return OptionFailure(.unknownOption, argument)
  }

  private mutating func set(
    _ option: ValueOption, _ value: UnsafePointer<CChar>
  ) -> OptionFailure? {
    switch option {
    case .profile:
      for raw in 0..<Profile.count {
        guard let candidate = Profile(rawValue: raw) else { continue }
        guard Argument.isText(value, candidate.name) else { continue }
        profile = candidate
        return nil
      }
      return OptionFailure(.badProfile, value)
    case .stateDirectory:
      stateDirectory = value
      return nil
    case .offload:
      guard let list = OffloadList.parse(value) else { return OptionFailure(.badOffload, value) }
      offloads = list
      return nil
    case .config:
      config = value
      return nil
    case .through:
      return through.append(value) ? nil : OptionFailure(.tooManyHops, value)
    case .mtu, .maximumPeers, .maximumAllowedIPs, .maximumStaged, .stagingSlots, .handshakeRing,
      .batchPackets, .socketBuffer, .workers:
      guard let number = Argument.number(value), option.range.contains(number) else {
        return OptionFailure(option, value)
      }
      set(option, number)
      return nil
    }
  }

  private mutating func set(_ option: ValueOption, _ number: Int) {
    switch option {
    case .mtu: mtu = number
    case .maximumPeers: maximumPeers = number
    case .maximumAllowedIPs: maximumAllowedIPs = number
    case .maximumStaged: maximumStaged = number
    case .stagingSlots: stagingSlots = number
    case .handshakeRing: handshakeRing = number
    case .batchPackets: batchPackets = number
    case .socketBuffer: socketBufferByteCount = number
    case .workers: workers = number
    case .profile, .stateDirectory, .offload, .config, .through: break
    }
  }
}
