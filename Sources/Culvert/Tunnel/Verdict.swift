/// The result of processing a packet or message. Every reason to drop one has a name and a counter.
/// None of them is an error of the program.
public enum Verdict: UInt8, CountedVerdict {
  // Outbound: from the TUN to the network.
  case sent
  /// Waiting for a handshake to finish.
  case staged
  /// Dropped to make room for newer packets, of this or another peer, or with its peer.
  case droppedFromStaging
  /// Not an IP packet, or its lengths are inconsistent.
  case malformedInner
  case noPeerForDestination
  case noEndpoint
  /// One of our own datagrams, which the routing table led back into the tunnel (R66).
  case routingLoop
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
  /// A queued handshake message without a cookie made room for one with a cookie, for an answer
  /// that we wait for, or for one from the endpoint of a peer. It is counted besides
  /// `handshakeQueued`.
  case handshakeEvicted
  /// Larger than the receive buffer, or beyond the capacity of the batch (R1).
  case truncated
  /// Not a WireGuard message: the type, the reserved bytes or the length is wrong (R30).
  case malformedMessage
  case unknownReceiver
  /// The session is older than reject-after-time, or was replaced before the packet was delivered.
  case expiredSession
  case badTag
  /// Received before, too old for the replay window, or beyond reject-after-messages.
  case replayed
  /// The inner source address is not in the allowed IPs of the peer (R2).
  case sourceNotAllowed
  /// The peer was removed between `accept` and `deliver`.
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

  /// Whether a queued handshake message with this verdict was processed without a Diffie-Hellman
  /// computation.
  var isWithoutKeyAgreement: Bool {
    switch self {
    case .cookieDemanded, .cookieAccepted, .cookieRefused, .malformedMessage, .unknownReceiver:
      true
    default: false
    }
  }

  public static var count: UInt8 { cookieRefused.rawValue + 1 }

  public var name: StaticString {
    switch self {
    case .sent: "sent"
    case .staged: "staged"
    case .droppedFromStaging: "dropped-from-staging"
    case .malformedInner: "malformed-inner"
    case .noPeerForDestination: "no-peer-for-destination"
    case .noEndpoint: "no-endpoint"
    case .routingLoop: "routing-loop"
    case .tooLarge: "too-large"
    case .sendFailed: "send-failed"
    case .peerUnreachable: "peer-unreachable"
    case .delivered: "delivered"
    case .keepalive: "keepalive"
    case .handshakeQueued: "handshake-queued"
    case .handshakeRingFull: "handshake-ring-full"
    case .handshakeEvicted: "handshake-evicted"
    case .truncated: "truncated"
    case .malformedMessage: "malformed-message"
    case .unknownReceiver: "unknown-receiver"
    case .expiredSession: "expired-session"
    case .badTag: "bad-tag"
    case .replayed: "replayed"
    case .sourceNotAllowed: "source-not-allowed"
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
