/// Something that happened to a peer's session, for the log.
public struct Event: Sendable, BitwiseCopyable {
  public enum Kind: UInt8, Sendable, BitwiseCopyable {
    case initiationSent
    case initiationReceived
    case responseSent
    case responseReceived
    /// All attempts went unanswered.
    case handshakeGivenUp
    case cookieReceived
    case keysWiped
    /// The kernel refused segments that exceed the path's MTU. Datagrams of that size are now sent
    /// one by one.
    case segmentsRefused
    /// Our own datagrams are routed back into the tunnel, and dropped (R66).
    case routingLoop

    /// Whether the user has to change something, so that the log shows it at the default level.
    public var isError: Bool { self == .routingLoop }

    /// The text for the log, the same as wireguard-go's if possible.
    public var text: StaticString {
      switch self {
      case .initiationSent: "Sending handshake initiation"
      case .initiationReceived: "Received handshake initiation"
      case .responseSent: "Sending handshake response"
      case .responseReceived: "Received handshake response"
      case .handshakeGivenUp: "Handshake did not complete after 18 attempts, giving up"
      case .cookieReceived: "Received cookie response"
      case .keysWiped: "Removing all keys, since we haven't received a new one in 540 seconds"
      case .segmentsRefused: "Sending large datagrams one by one, as they exceed the path's MTU"
      case .routingLoop:
        """
        Dropping our own datagrams, which are routed back into the tunnel: add a route to the \
        endpoint outside the tunnel
        """
      }
    }
  }

  public let kind: Kind
  public let peer: Key
}

/// Unread events, in a ring of fixed size. When the ring is full, a new event overwrites the
/// oldest.
struct EventRing {
  private static let capacity = 64
  private let events: UnsafeMutablePointer<Event>
  private var first = 0
  private(set) var count = 0

  init(carvingFrom arena: inout Arena) {
    events = arena.carve(Event.self, count: EventRing.capacity, owner: "events").baseAddress!
  }

  mutating func append(_ kind: Event.Kind, _ peer: Key) {
    if count == EventRing.capacity { _ = next() }
    events[(first &+ count) % EventRing.capacity] = Event(kind: kind, peer: peer)
    count &+= 1
  }

  mutating func next() -> Event? {
    guard count > 0 else { return nil }
    let event = events[first]
    first = (first &+ 1) % EventRing.capacity
    count &-= 1
    return event
  }
}
