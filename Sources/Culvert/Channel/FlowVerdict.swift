/// What became of a forwarder's flow, or of a datagram on one. Each is counted.
public enum FlowVerdict: UInt8, CountedVerdict {
  // Flows.
  case opened
  /// Nothing came for its time.
  case expired
  /// Gave its place to a new one in a full table.
  case evicted
  /// Not opened: the table was full of flows within their grace.
  case refused
  /// Closed by an ICMP error about its destination.
  case unreachable

  // Datagrams.
  /// Went from a client into the tunnel.
  case sent
  /// Went from the tunnel to its client.
  case answered
  /// The channel refused it, and has counted why.
  case unsent
  /// Came from the tunnel to a port without a flow: too late, or nobody asked.
  case stray
  /// Came to a flow's port, but not from the flow's destination.
  case wrongSender
  /// The system refused to give it to the client.
  case undelivered

  public static var count: UInt8 { undelivered.rawValue + 1 }

  public var name: StaticString {
    switch self {
    case .opened: "flow-opened"
    case .expired: "flow-expired"
    case .evicted: "flow-evicted"
    case .refused: "flow-refused"
    case .unreachable: "flow-unreachable"
    case .sent: "forward-sent"
    case .answered: "forward-answered"
    case .unsent: "forward-unsent"
    case .stray: "forward-stray"
    case .wrongSender: "forward-wrong-sender"
    case .undelivered: "forward-undelivered"
    }
  }
}
