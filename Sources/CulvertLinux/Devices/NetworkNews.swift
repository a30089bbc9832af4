import CLinux
import Culvert

/// Reports, from route netlink, that datagrams may now leave another way: links, addresses, routes
/// and rules of the namespace that the sockets are in.
struct NetworkNews: ~Copyable {
  private var descriptor: FileDescriptor

  /// Datagrams read before the rest is taken for news unread: a router with a full table of
  /// changing routes must not keep the process busy.
  private static let readsPerCall = 32

  init() throws(SystemError) {
    descriptor = FileDescriptor(taking: try checked(clinux_news_open()))
  }

  /// For epoll.
  var raw: Int32 { descriptor.raw }

  /// Whether there is news. Reads all that waits, or enough of it.
  ///
  /// - Parameter skippedIndex: our own interface, whose changes are no news; 0 for none.
  func read(skippedIndex: UInt32) -> Bool {
    for _ in 0..<NetworkNews.readsPerCall {
      let result = clinux_news_next(descriptor.raw, skippedIndex)
      if result == 1 { return true }
      if result < 0 { return false }
    }
    return true
  }

  /// Forgets all that waits, in constant time, because a new socket replaces the old one.
  mutating func restart() throws(SystemError) {
    descriptor = FileDescriptor(taking: try checked(clinux_news_open()))
  }
}

/// Decides when news is acted upon: once for all that arrives within a short time, and at most twice
/// a second, however many routes change.
struct NewsDelay: BitwiseCopyable {
  private(set) var deadline = Deadline.never
  private var last: Instant?

  /// A routing daemon makes several changes for one; a gap of traffic must stay short.
  static let interval = 150 * nanosecondsPerMillisecond
  /// Time between two checks, each of which looks up the route to every peer.
  static let pause = 500 * nanosecondsPerMillisecond

  mutating func notice(at now: Instant) {
    guard deadline == .never else { return }
    deadline = .after(NewsDelay.interval, from: now)
    // Not if the clock went backwards.
    guard let last, last <= now else { return }
    deadline = max(deadline, .after(NewsDelay.pause, from: last))
  }

  mutating func finish(at now: Instant) {
    deadline = .never
    last = now
  }
}

/// Asks the routing table whether a path's local address is still right.
struct RouteCheck: ~Copyable {
  /// Stays open, because opening costs several times as much as a question.
  private let descriptor: FileDescriptor

  init() throws(SystemError) {
    descriptor = FileDescriptor(taking: try checked(clinux_route_open()))
  }

  /// Whether datagrams along `path` leave by the interface on which the peer's datagrams to
  /// `path.source` arrive, as the kernel's WireGuard demands; also true if there is no route.
  ///
  /// - Parameters:
  ///   - port: the local port; 0 if the socket is closed.
  ///   - mark: the firewall mark of the datagrams. Rules may depend on both.
  func leavesByInterface(of path: Path, port: UInt16, mark: UInt32) -> Bool {
    var target = clinux_datagram(path)
    return clinux_route_leaves_by(descriptor.raw, &target, port, mark) != 0
  }
}
