import CLinux

/// One ready descriptor. It has the layout of `clinux_event`, which events.c asserts.
package struct EpollEvent: Sendable, BitwiseCopyable {
  /// The token that the descriptor was added with.
  package var token: UInt64 = 0
  package var readiness = Epoll.Interest(rawValue: 0)
  private var reserved: UInt32 = 0

  package init() {}
}

/// Waits for events of many descriptors.
package struct Epoll: ~Copyable {
  private let descriptor: FileDescriptor

  /// Events to wait for, or events that occurred.
  package struct Interest: OptionSet, Sendable, BitwiseCopyable {
    package let rawValue: UInt32

    @inline(__always)
    package init(rawValue: UInt32) {
      self.rawValue = rawValue
    }

    package static var readable: Interest { Interest(rawValue: UInt32(CLINUX_READABLE)) }
    package static var writable: Interest { Interest(rawValue: UInt32(CLINUX_WRITABLE)) }
    /// Only as a result: error or hang-up. A read or write returns the errno.
    package static var failed: Interest { Interest(rawValue: UInt32(CLINUX_FAILED)) }
    /// Only as a request: one event, then none until `modify`.
    package static var once: Interest { Interest(rawValue: UInt32(CLINUX_ONCE)) }
    /// Only as a request: changes of readiness (edge-triggered), not the state.
    package static var edge: Interest { Interest(rawValue: UInt32(CLINUX_EDGE)) }
  }

  package init() throws(SystemError) {
    descriptor = FileDescriptor(taking: try checked(clinux_epoll_open()))
  }

  package func add(
    _ raw: Int32, _ interest: Interest = .readable, token: UInt64
  ) throws(SystemError) {
    try checked(clinux_epoll_add(descriptor.raw, raw, interest.rawValue, token))
  }

  package func modify(_ raw: Int32, _ interest: Interest, token: UInt64) throws(SystemError) {
    try checked(clinux_epoll_modify(descriptor.raw, raw, interest.rawValue, token))
  }

  /// Not needed before a descriptor is closed, unless it was duplicated.
  package func remove(_ raw: Int32) throws(SystemError) {
    try checked(clinux_epoll_remove(descriptor.raw, raw))
  }

  /// Waits until a descriptor is ready, for at most `timeoutMilliseconds` (-1: without limit).
  /// Returns the number of events, up to 32 or the buffer's capacity, or -errno; 0 also after a
  /// signal.
  package func wait(
    into events: UnsafeMutableBufferPointer<EpollEvent>, timeoutMilliseconds: Int32 = -1
  ) -> Int {
    let count = Int32(truncatingIfNeeded: min(events.count, 32))
    return events.withMemoryRebound(to: clinux_event.self) {
      Int(clinux_epoll_wait(descriptor.raw, $0.baseAddress, count, timeoutMilliseconds))
    }
  }
}

/// Tokens of epoll events: the kind of descriptor in the low byte, and its indexes above.
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
  private static let lookup: UInt64 = 11
  static let news: UInt64 = 12
  static let helper: UInt64 = 13

  /// A descriptor of one hop's configuration socket.
  enum UAPI {
    case listener(hop: Int)
    case listenerWatch(hop: Int)
    case connection(hop: Int, index: Int)
  }

  /// Whether the descriptor delivers packets or datagrams.
  static func isLane(_ token: UInt64) -> Bool {
    token == tun || token == ipv4 || token == ipv6 || token & 0xff == client
  }

  /// The local socket of a mapping that is forwarded.
  static func forward(_ mapping: Int) -> UInt64 { client | UInt64(mapping) << 8 }

  /// The mapping; nil for a token of another kind.
  static func forward(_ token: UInt64) -> Int? {
    token & 0xff == client ? Int(truncatingIfNeeded: token >> 8) : nil
  }

  /// The socket of a lookup of a host name.
  static func lookup(_ index: Int) -> UInt64 { lookup | UInt64(index) << 8 }

  /// The index of the lookup; nil for a token of another kind.
  static func lookup(_ token: UInt64) -> Int? {
    token & 0xff == lookup ? Int(truncatingIfNeeded: token >> 8) : nil
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
