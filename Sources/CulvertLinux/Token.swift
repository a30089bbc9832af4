/// What an epoll event is about.
enum Token {
  static let tun: UInt64 = 1
  static let ipv4: UInt64 = 2
  static let ipv6: UInt64 = 3
  static let timer: UInt64 = 4
  static let signals: UInt64 = 5
  static let netlink: UInt64 = 6
  static let listener: UInt64 = 7
  static let listenerWatch: UInt64 = 8
  /// True for the descriptors that packets and datagrams come from.
  static func isLane(_ token: UInt64) -> Bool { token == tun || token == ipv4 || token == ipv6 }

  private static let firstConnection: UInt64 = 16

  static func connection(_ index: Int) -> UInt64 { firstConnection + UInt64(index) }

  /// The index of the connection that a token stands for; nil for any other.
  static func connectionIndex(_ token: UInt64) -> Int? {
    token >= firstConnection ? Int(truncatingIfNeeded: token - firstConnection) : nil
  }
}
