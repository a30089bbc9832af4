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

/// Decides when news is acted upon: at once, because with a wrong source even the request for the
/// gateway's link address may remain unanswered, and is repeated only after a second. And again a
/// little later, because the kernel reports some changes before it makes them.
struct NewsDelay: BitwiseCopyable {
  private(set) var deadline = Deadline.never
  /// News has arrived since the last check.
  private var isFresh = false
  /// When all checks so far would have been made, one each `pause`.
  private var paidUntil = Instant(nanoseconds: 0)

  /// From a check to the one that follows without further news.
  static let interval = 150 * nanosecondsPerMillisecond
  /// The mean time between checks, each of which looks up the route to every peer.
  static let pause = 300 * nanosecondsPerMillisecond
  /// Checks in a row without a pause: a change of uplinks makes several changes.
  static let burst: UInt64 = 8

  mutating func notice(at now: Instant) {
    isFresh = true
    deadline = min(deadline, next(from: now, at: now))
  }

  /// Call it before the check.
  mutating func finish(at now: Instant) {
    paidUntil = max(paidUntil, now).advanced(by: NewsDelay.pause)
    let later = now.advanced(by: NewsDelay.interval)
    deadline = isFresh ? next(from: later, at: now) : .never
    isFresh = false
  }

  /// At most a pause from `now`, even if the clock went backwards.
  private func next(from first: Instant, at now: Instant) -> Deadline {
    let credit = (NewsDelay.burst - 1) * NewsDelay.pause
    let paid = paidUntil.nanoseconds
    let free = Instant(nanoseconds: paid > credit ? paid - credit : 0)
    return Deadline(min(max(first, free), now.advanced(by: NewsDelay.pause)))
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
  /// `path.source` arrive, as the kernel's WireGuard demands. While there is no route, the address
  /// is left to the next one.
  ///
  /// - Parameters:
  ///   - port: the local port; 0 if the socket is closed.
  ///   - mark: the firewall mark of the datagrams. Rules may depend on both.
  func judgeSource(of path: Path, port: UInt16, mark: UInt32) -> SourceVerdict {
    var target = clinux_datagram(path)
    switch clinux_route_judge_source(descriptor.raw, &target, port, mark) {
    case Int32(CLINUX_SOURCE_REFUSED): return .refused
    case Int32(CLINUX_SOURCE_IMPLIED): return .implied
    default: return .needed
    }
  }
}
