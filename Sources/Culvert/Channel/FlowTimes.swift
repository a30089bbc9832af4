/// How long a flow lives, in nanoseconds.
public struct FlowTimes: Sendable, BitwiseCopyable {
  /// After its last datagram, a flow that nobody has ever answered (Linux's
  /// nf_conntrack_udp_timeout: 30 s).
  public var unanswered: UInt64 = 30 * nanosecondsPerSecond
  /// After its last datagram in either direction, a flow that has been answered (RFC 4787 REQ-5:
  /// two minutes at least; REQ-6: what goes out keeps it open).
  public var answered: UInt64 = 180 * nanosecondsPerSecond
  /// After its last datagram no new flow takes the place of this one, except where its one question
  /// has been answered: more than resolvers wait for an answer before they ask again.
  public var grace: UInt64 = 10 * nanosecondsPerSecond

  public init() {}
}
