import CulvertLinux

/// A command line that cannot be carried out, in one line that says what to do.
struct OptionFailure {
  enum Reason {
    case noName
    case tooManyNames
    case badName
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
        line.append("which interface? usage: culvert [-f] IFNAME (see culvert --help)")
      case .tooManyNames:
        line.append("one interface at a time, and then comes ")
        quote(&line)
        line.append(" (see culvert --help)")
      case .badName:
        quote(&line)
        line.append(" is no interface name: 1 to 15 visible characters without / and :")
      case .longName:
        quote(&line)
        line.append(
          " is too long for --through: 13 characters leave room for the -1 of the next hop")
      case .tooManyHops:
        line.append("up to 3 tunnels around the innermost, and then comes --through ")
        quote(&line)
      case .unknownOption:
        line.append("unknown option ")
        quote(&line)
        line.append(" (see culvert --help)")
      case .noValue:
        quote(&line)
        line.append(" needs a value (see culvert --help)")
      case .badProfile:
        quote(&line)
        line.append(" is no profile: tiny, standard or gateway")
      case .badOffload:
        quote(&line)
        line.append(" is no list of offloads: checksum,tso,uso,gso,gro,mmsg, or all, or none")
      case .noConfig:
        line.append(
          "which tunnel? culvert forward needs --config FILE (see culvert forward --help)")
      case .noForward:
        line.append(
          "what to forward? culvert forward needs --udp LISTEN:PORT=DESTINATION:PORT, once or more")
      case .badForward(let mistake):
        line.append("--udp ")
        quote(&line)
        line.append(" ")
        line.append(mistake.text)
      case .tooManyForwards:
        line.append("up to 32 mappings, and then comes --udp ")
        quote(&line)
      case .strayForward:
        line.append("--udp goes with culvert forward, which has no interface, and not with ")
        quote(&line)
      case .outOfRange(let option):
        line.append(option.name)
        line.append(" takes a number from ")
        line.append(decimal: option.range.lowerBound)
        line.append(" to ")
        line.append(decimal: option.range.upperBound)
        line.append(", not ")
        quote(&line)
      }
    }
  }

  private func quote(_ line: inout Line) {
    line.append("'")
    if let argument { line.append(cString: argument) }
    line.append("'")
  }
}
