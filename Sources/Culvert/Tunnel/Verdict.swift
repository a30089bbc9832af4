/// What became of a packet. Every reason to drop one has a name and a counter; none is an error of
/// the program.
public enum Verdict: UInt8, CountedVerdict {
  // Outbound: from the TUN to the network.
  case sent
  /// Waits for a handshake to finish.
  case staged
  /// Dropped while waiting, for a newer packet or for lack of staging slots.
  case droppedFromStaging
  /// Not an IP packet, or with inconsistent lengths.
  case malformedInner
  case noPeerForDestination
  case noEndpoint
  /// Exceeds `Limits.maximumMTU`.
  case tooLarge
  /// The kernel refused to send it.
  case sendFailed
  /// The handshake was given up while the packet was staged.
  case peerUnreachable

  // Inbound: from the network to the TUN.
  case delivered
  case keepalive
  /// A handshake message, queued for `runTimers`.
  case handshakeQueued
  /// The handshake ring was full.
  case handshakeRingFull
  /// Larger than the receive buffer (R1).
  case truncated
  /// Not a message of the protocol: wrong type, reserved bytes, or length (R30).
  case malformedMessage
  case unknownReceiver
  /// The session has exceeded its time or its messages.
  case expiredSession
  case badTag
  /// Received before, or too old for the replay window.
  case replayed
  /// The inner source is not among the sender's allowed IPs (R2).
  case sourceNotAllowed
  /// Not-ECT inside CE, which RFC 6040 says to drop.
  case brokenCongestionMark
  /// The peer was removed between two steps of a batch.
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
