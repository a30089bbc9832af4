/// What an epoll event is about: in the low byte which kind of descriptor, above it which one.
enum Token {
  static let tun: UInt64 = 1
  static let ipv4: UInt64 = 2
  static let ipv6: UInt64 = 3
  static let timer: UInt64 = 4
  static let signals: UInt64 = 5
  static let netlink: UInt64 = 6
  private static let listener: UInt64 = 7
  private static let listenerWatch: UInt64 = 8
  private static let connection: UInt64 = 9
  private static let client: UInt64 = 10

  /// A descriptor of the configuration socket of one hop.
  enum UAPI {
    case listener(hop: Int)
    case listenerWatch(hop: Int)
    case connection(hop: Int, index: Int)
  }

  /// True for the descriptors that packets and datagrams come from.
  static func isLane(_ token: UInt64) -> Bool {
    token == tun || token == ipv4 || token == ipv6 || token & 0xff == client
  }

  /// The local socket of a mapping that is forwarded.
  static func forward(_ mapping: Int) -> UInt64 { client | UInt64(mapping) << 8 }

  /// The mapping; nil for a token of another kind.
  static func forward(_ token: UInt64) -> Int? {
    token & 0xff == client ? Int(truncatingIfNeeded: token >> 8) : nil
  }

  static func uapi(_ descriptor: UAPI) -> UInt64 {
    switch descriptor {
    case .listener(let hop): listener | UInt64(hop) << 8
    case .listenerWatch(let hop): listenerWatch | UInt64(hop) << 8
    case .connection(let hop, let index): connection | UInt64(hop) << 8 | UInt64(index) << 16
    }
  }

  /// Nil for a token of another kind.
  static func uapi(_ token: UInt64) -> UAPI? {
    let hop = Int(truncatingIfNeeded: token >> 8 & 0xff)
    switch token & 0xff {
    case listener: return .listener(hop: hop)
    case listenerWatch: return .listenerWatch(hop: hop)
    case connection:
      return .connection(hop: hop, index: Int(truncatingIfNeeded: token >> 16))
    default: return nil
    }
  }
}
