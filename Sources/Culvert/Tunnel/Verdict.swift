/// What became of a packet. Every way to drop one has a name and a counter; none of them is an
/// error of the program.
public enum Verdict: UInt8, CountedVerdict {
  // Outbound: from the TUN to the network.
  case sent
  /// Waits for a handshake to finish.
  case staged
  /// Dropped for a newer packet while waiting, or for want of staging slots.
  case droppedFromStaging
  /// Not an IP packet, or lengths that contradict each other.
  case malformedInner
  case noPeerForDestination
  case noEndpoint
  /// Larger than the limits allow.
  case tooLarge
  /// The kernel refused to send it.
  case sendFailed
  /// The handshake was given up after its last try.
  case peerUnreachable

  // Inbound: from the network to the TUN.
  case delivered
  case keepalive
  /// Passed on to the control path.
  case handshakeQueued
  /// The handshake ring was full.
  case handshakeRingFull
  /// Larger than the receive buffer (R1).
  case truncated
  /// No message of the protocol: wrong type, reserved bytes, or length (R30).
  case malformedMessage
  case unknownReceiver
  /// The session is over its time or its messages.
  case expiredSession
  case badTag
  /// Seen before, or too far behind the window.
  case replayed
  /// The inner source is not among the sender's allowed IPs (R2).
  case sourceNotAllowed
  /// Not-ECT inside CE: RFC 6040 says to drop it.
  case brokenCongestionMark
  /// The peer went away between two steps of a batch.
  case peerRemoved
  case writeFailed

  // Handshakes.
  case badMAC
  case cookieDemanded
  case rateLimited
  case handshakeFailed
  case handshakeReplayed
  case lowOrderPoint
  case unknownPeer
  case handshakeAccepted
  case cookieAccepted
  case cookieRefused

  public static var count: UInt8 { cookieRefused.rawValue + 1 }

  public var name: StaticString {
    switch self {
    case .sent: "sent"
    case .staged: "staged"
    case .droppedFromStaging: "dropped-from-staging"
    case .malformedInner: "malformed-inner"
    case .noPeerForDestination: "no-peer-for-destination"
    case .noEndpoint: "no-endpoint"
    case .tooLarge: "too-large"
    case .sendFailed: "send-failed"
    case .peerUnreachable: "peer-unreachable"
    case .delivered: "delivered"
    case .keepalive: "keepalive"
    case .handshakeQueued: "handshake-queued"
    case .handshakeRingFull: "handshake-ring-full"
    case .truncated: "truncated"
    case .malformedMessage: "malformed-message"
    case .unknownReceiver: "unknown-receiver"
    case .expiredSession: "expired-session"
    case .badTag: "bad-tag"
    case .replayed: "replayed"
    case .sourceNotAllowed: "source-not-allowed"
    case .brokenCongestionMark: "broken-congestion-mark"
    case .peerRemoved: "peer-removed"
    case .writeFailed: "write-failed"
    case .badMAC: "bad-mac"
    case .cookieDemanded: "cookie-demanded"
    case .rateLimited: "rate-limited"
    case .handshakeFailed: "handshake-failed"
    case .handshakeReplayed: "handshake-replayed"
    case .lowOrderPoint: "low-order-point"
    case .unknownPeer: "unknown-peer"
    case .handshakeAccepted: "handshake-accepted"
    case .cookieAccepted: "cookie-accepted"
    case .cookieRefused: "cookie-refused"
    }
  }
}
