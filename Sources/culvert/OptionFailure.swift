import CulvertLinux

/// Why a command line is invalid, reported in one line that explains what to do.
struct OptionFailure {
  enum Reason {
    case noName
    case tooManyNames
    case badName
    case foreignCommand(CommandWord)
    case misspelt(CommandWord)
    case longName
    case tooManyHops
    case noConfig
    case noForward
    case badForward(ForwardMapping.Mistake)
    case tooManyForwards
    case strayForward
    case unknownOption
    case noValue
    case badProfile
    case badOffload
    case outOfRange(ValueOption)
  }

  private let reason: Reason
  private let argument: UnsafePointer<CChar>?

  init(_ reason: Reason, _ argument: UnsafePointer<CChar>?) {
    self.reason = reason
    self.argument = argument
  }

  init(_ option: ValueOption, _ argument: UnsafePointer<CChar>) {
    self.init(.outOfRange(option), argument)
  }

  /// The exit status.
  func report() -> Int32 {
    Exit.fail(Exit.usage) { line in
      switch reason {
      case .noName:
        line.append("missing interface name; usage: culvert [-f] IFNAME (see culvert --help)")
      case .tooManyNames:
        line.append("unexpected argument ")
        quote(&line)
        line.append(": only one interface name is allowed (see culvert --help)")
      case .badName:
        quote(&line)
        line.append(
          " is not a valid interface name: use 1 to 15 visible characters, without / and :")
      case .foreignCommand(let command):
        quote(&line)
        switch command.owner {
        case .wg:
          line.append(" is a command of wg(8): use wg ")
          line.append(command.text)
        case .wgQuick:
          line.append(" is a command of wg-quick(8): use wg-quick ")
          line.append(command.text)
        case .culvert, .nobody: line.append(" is not a command of culvert (see culvert --help)")
        }
        appendExplicitName(&line)
      case .misspelt(let command):
        quote(&line)
        line.append(" is not a command: did you mean ")
        line.append(command.text)
        line.append("?")
        appendExplicitName(&line)
      case .longName:
        quote(&line)
        line.append(
          " is too long for --through: use up to 13 characters, as outer tunnels append -1 to -3")
      case .tooManyHops:
        line.append("too many outer tunnels: --through ")
        quote(&line)
        line.append(" exceeds the limit of 3")
      case .unknownOption:
        line.append("unknown option ")
        quote(&line)
        line.append(" (see culvert --help)")
      case .noValue:
        quote(&line)
        line.append(" needs a value (see culvert --help)")
      case .badProfile:
        quote(&line)
        line.append(" is not a valid profile: use tiny, standard or gateway")
      case .badOffload:
        quote(&line)
        line.append(
          " is not a valid list of offloads: use checksum,tso,uso,gso,gro,mmsg, or all, or none")
      case .noConfig:
        line.append(
          "missing --config FILE: culvert forward needs a tunnel (see culvert forward --help)")
      case .noForward:
        line.append(
          "missing --udp LISTEN:PORT=DESTINATION:PORT: culvert forward needs at least one")
      case .badForward(let mistake):
        line.append("--udp ")
        quote(&line)
        line.append(" ")
        line.append(mistake.text)
      case .tooManyForwards:
        line.append("too many forwarded ports: --udp ")
        quote(&line)
        line.append(" exceeds the limit of 32")
      case .strayForward:
        line.append("--udp is only valid with culvert forward, not with interface ")
        quote(&line)
      case .outOfRange(let option):
        line.append(option.name)
        line.append(" must be a number from ")
        line.append(decimal: option.range.lowerBound)
        line.append(" to ")
        line.append(decimal: option.range.upperBound)
        line.append(", not ")
        quote(&line)
      }
    }
  }

  /// How to create an interface that is named like a command.
  private func appendExplicitName(_ line: inout Line) {
    line.append("; for an interface of this name: culvert -- ")
    if let argument { line.append(cString: argument) }
  }

  private func quote(_ line: inout Line) {
    line.append("'")
    if let argument { line.append(cString: argument) }
    line.append("'")
  }
}
