import Culvert
import CulvertLinux

/// The parsed command line.
struct Options {
  enum Command {
    case run(InterfaceName)
    case forward
    case help
    case forwardHelp
    case version
    case budget
    case selftest
    case bench
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
  private var areOffloadsGiven = false
  /// Configuration files, NUL-terminated: of the innermost tunnel, and of the outer ones.
  private var config: UnsafePointer<CChar>?
  private var through = OuterConfigs()
  private var forwards = ForwardList()
  /// Nil for one per CPU.
  private var workers: Int?
  // Overrides of the profile's limits; nil keeps them.
  private var maximumPeers: Int?
  private var maximumAllowedIPs: Int?
  private var maximumStaged: Int?
  private var stagingSlots: Int?
  private var handshakeRing: Int?
  private var batchPackets: Int?
  private var maximumFlows: Int?
  /// Duration of each measurement of `culvert bench`.
  private(set) var seconds = 1

  /// The limits of the profile, with the overrides applied.
  var limits: Limits {
    var limits = profile.limits
    if let maximumPeers { limits.peers = maximumPeers }
    if let maximumAllowedIPs { limits.allowedIPs = maximumAllowedIPs }
    if let maximumStaged { limits.stagedPacketsPerPeer = maximumStaged }
    if let stagingSlots { limits.stagingSlots = stagingSlots }
    if let handshakeRing { limits.handshakeRing = handshakeRing }
    if let batchPackets { limits.batchPackets = batchPackets }
    if let maximumFlows { limits.flows = maximumFlows }
    limits.workers = workers ?? Processors.count
    return limits
  }

  /// Receive buffer of each socket, in bytes.
  var socketBuffer: Int {
    socketBufferByteCount ?? UDPSockets.defaultBufferByteCount(for: profile)
  }

  /// The number of nested tunnels.
  var hopCount: Int { through.count + 1 }
  var isForwarding: Bool { !forwards.isEmpty }
  var forwardCount: Int { forwards.count }

  /// The settings for `culvert IFNAME`.
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
    service.areOffloadsGiven = areOffloadsGiven
    service.config = config
    service.outerConfigs = through
    return service
  }

  /// The settings for `culvert forward`.
  var forwardService: ServiceOptions {
    var service = service(ForwardName.make(of: config, hasHops: !through.isEmpty))
    service.isForeground = true
    service.forwards = forwards
    return service
  }

  mutating func parse(_ arguments: Arguments) -> Result {
    var arguments = arguments
    var word: UnsafePointer<CChar>?
    // After "--", the rest is no option and no command.
    var isName = false
    while let argument = arguments.next() {
      if isName || UInt8(bitPattern: argument[0]) != UInt8(ascii: "-") {
        if let word {
          let failure = isName ? nil : notACommand(word)
          return .failure(failure ?? OptionFailure(.tooManyNames, argument))
        }
        word = argument
        continue
      }
      if Argument.isText(argument, "--") {
        if let word { return .failure(OptionFailure(.tooManyNames, word)) }
        isName = true
        continue
      }
      if Argument.isText(argument, "-h") || Argument.isText(argument, "--help") {
        return .command(isForward(word) ? .forwardHelp : .help)
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
    return isName ? run(word) : command(word)
  }

  private func isForward(_ word: UnsafePointer<CChar>?) -> Bool {
    guard let word else { return false }
    return Argument.isText(word, "forward")
  }

  /// The command `culvert forward`, or a failure if an option is missing.
  private var forwardCommand: Result {
    if config == nil { return .failure(OptionFailure(.noConfig, nil)) }
    if forwards.isEmpty { return .failure(OptionFailure(.noForward, nil)) }
    return .command(.forward)
  }

  private func command(_ word: UnsafePointer<CChar>) -> Result {
    if isForward(word) { return forwardCommand }
    if Argument.isText(word, "help") { return .command(.help) }
    if Argument.isText(word, "version") { return .command(.version) }
    if Argument.isText(word, "budget") { return .command(.budget) }
    if Argument.isText(word, "selftest") { return .command(.selftest) }
    if Argument.isText(word, "bench") { return .command(.bench) }
    if Argument.isText(word, "genkey") { return .command(.generateKey) }
    if Argument.isText(word, "genpsk") { return .command(.generatePresharedKey) }
    if Argument.isText(word, "pubkey") { return .command(.publicKey) }
    if let failure = notACommand(word) { return .failure(failure) }
    return run(word)
  }

  /// Why a word that is a command elsewhere, or nearly one of ours, is not taken for the name of an
  /// interface. Nil if it can be a name, and for our own commands.
  private func notACommand(_ word: UnsafePointer<CChar>) -> OptionFailure? {
    guard let (command, isExact) = CommandWord.find(word) else { return nil }
    if isExact, case .culvert = command.owner { return nil }
    return OptionFailure(isExact ? .foreignCommand(command) : .misspelt(command), word)
  }

  /// The interface with this name.
  private func run(_ word: UnsafePointer<CChar>) -> Result {
    guard let name = InterfaceName(cString: word) else {
      return .failure(OptionFailure(.badName, word))
    }
    if isForwarding { return .failure(OptionFailure(.strayForward, word)) }
    if !through.isEmpty, !name.hasRoomForHops {
      return .failure(OptionFailure(.longName, word))
    }
    return .command(.run(name))
  }

  /// Parses an option with a value, `--name value` or `--name=value`. Nil on success.
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
      areOffloadsGiven = true
      return nil
    case .config:
      config = value
      return nil
    case .through:
      return through.append(value) ? nil : OptionFailure(.tooManyHops, value)
    case .udp: return addForward(value)
    case .mtu, .maximumPeers, .maximumAllowedIPs, .maximumStaged, .stagingSlots, .handshakeRing,
      .batchPackets, .socketBuffer, .workers, .maximumFlows, .seconds:
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
    case .maximumFlows: maximumFlows = number
    case .seconds: seconds = number
    case .profile, .stateDirectory, .offload, .config, .through, .udp: break
    }
  }

  private mutating func addForward(_ value: UnsafePointer<CChar>) -> OptionFailure? {
    do throws(ForwardMapping.Mistake) {
      let mapping = try ForwardMapping.parse(Argument.bytes(value))
      return forwards.append(mapping) ? nil : OptionFailure(.tooManyForwards, value)
    } catch {
      return OptionFailure(.badForward(error), value)
    }
  }
}

/// An iterator over the command line.
struct Arguments {
  private let values: UnsafePointer<UnsafePointer<CChar>?>
  private let count: Int
  private var position = 1

  init(count: Int, values: UnsafePointer<UnsafePointer<CChar>?>) {
    self.count = count
    self.values = values
  }

  /// The next argument, NUL-terminated and valid until the process ends.
  mutating func next() -> UnsafePointer<CChar>? {
    guard position < count, let value = values[position] else { return nil }
    position += 1
    return value
  }
}

/// Comparing and parsing arguments.
enum Argument {
  static func isText(_ argument: UnsafePointer<CChar>, _ text: StaticString) -> Bool {
    commonByteCount(argument, text) == text.utf8CodeUnitCount
      && argument[text.utf8CodeUnitCount] == 0
  }

  /// The bytes without the NUL.
  static func bytes(_ argument: UnsafePointer<CChar>) -> UnsafeRawBufferPointer {
    var count = 0
    while argument[count] != 0 { count += 1 }
    return UnsafeRawBufferPointer(start: argument, count: count)
  }

  /// The part after `--name=`; nil if the argument is another option.
  static func value(
    _ argument: UnsafePointer<CChar>, of name: StaticString
  ) -> UnsafePointer<CChar>? {
    let length = name.utf8CodeUnitCount
    guard commonByteCount(argument, name) == length,
      UInt8(bitPattern: argument[length]) == UInt8(ascii: "=")
    else { return nil }
    return argument + (length + 1)
  }

  /// A decimal number of up to nine digits; nil for anything else.
  static func number(_ argument: UnsafePointer<CChar>) -> Int? {
    var result = 0
    var digits = 0
    while argument[digits] != 0 {
      let byte = UInt8(bitPattern: argument[digits])
      guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9"), digits < 9 else { return nil }
      result = result * 10 + Int(byte - UInt8(ascii: "0"))
      digits += 1
    }
    return digits > 0 ? result : nil
  }

  /// The length of the common prefix.
  static func commonByteCount(_ argument: UnsafePointer<CChar>, _ text: StaticString) -> Int {
    var length = 0
    while length < text.utf8CodeUnitCount,
      argument[length] != 0, UInt8(bitPattern: argument[length]) == text.utf8Start[length]
    {
      length += 1
    }
    return length
  }
}

/// The name of a tunnel without an interface, for the log and the state directory. It is the name
/// of the configuration file, so that the tunnel shares its handshake timestamp with an interface
/// that is configured from the same file.
enum ForwardName {
  /// - Parameter hasHops: whether the name must leave room for the suffix of outer tunnels.
  static func make(of path: UnsafePointer<CChar>?, hasHops: Bool) -> InterfaceName {
    guard let path, let name = InterfaceName(stem(of: Argument.bytes(path))),
      !hasHops || name.hasRoomForHops
    else { return InterfaceName("forward")! }
    return name
  }

  /// The last component, without ".conf".
  private static func stem(of path: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    var start = path.count
    while start > 0, path[start - 1] != UInt8(ascii: "/") { start -= 1 }
    let suffix: StaticString = ".conf"
    var end = path.count
    let cut = end - suffix.utf8CodeUnitCount
    if cut > start, isSuffix(suffix, of: path) { end = cut }
    return UnsafeRawBufferPointer(rebasing: path[start..<end])
  }

  private static func isSuffix(_ suffix: StaticString, of path: UnsafeRawBufferPointer) -> Bool {
    let start = path.count - suffix.utf8CodeUnitCount
    for index in 0..<suffix.utf8CodeUnitCount
    where path[start + index] != suffix.utf8Start[index] { return false }
    return true
  }
}

/// The value of `--offload`: a comma-separated list of names.
enum OffloadList {
  /// Nil if a name is unknown or the list is empty.
  static func parse(_ list: UnsafePointer<CChar>) -> Offloads? {
    if Argument.isText(list, "none") { return Offloads.none }
    if Argument.isText(list, "all") { return .all }
    var result = Offloads.none
    var start = list
    while true {
      guard let (offload, byteCount) = first(start) else { return nil }
      result.insert(offload)
      if start[byteCount] == 0 { return result }
      start += byteCount + 1
    }
  }

  /// The first offload of a list, and the length of its name.
  private static func first(
    _ list: UnsafePointer<CChar>
  ) -> (offload: Offloads, byteCount: Int)? {
    var index = 0
    while let (name, offload) = Offloads.named(index) {
      let byteCount = name.utf8CodeUnitCount
      if Argument.commonByteCount(list, name) == byteCount,
        list[byteCount] == 0 || UInt8(bitPattern: list[byteCount]) == UInt8(ascii: ",")
      {
        return (offload, byteCount)
      }
      index += 1
    }
    return nil
  }
}
