/// Values that the protocol leaves to the implementation, each with its source.
public enum Policy {
  /// Width of the replay window in packets (RFC 6479; the kernel uses 8192 with 64 of slack).
  static let replayWindowPacketCount = 8192
  /// Only the initiator renews a session. It also does so when it *receives* on a session this old,
  /// so that a one-way flow does not reach the end of the session (whitepaper 6.2:
  /// reject-after-time - keepalive-timeout - rekey-timeout).
  static let rekeyOnReceiveAfterTime: UInt64 =
    WireGuard.rejectAfterTime - WireGuard.keepaliveTimeout - WireGuard.rekeyTimeout
  /// Peers of the outermost of nested tunnels whose datagrams are recognised in a loop (R66).
  static let outermostPeers = 8
  /// Handshake initiations before giving up: rekey-attempt-time over rekey-timeout (R17).
  static let handshakeAttempts: UInt8 = 18
  /// Upper bound of the random jitter of each handshake retry (whitepaper 6.1; R17).
  static let handshakeJitter: UInt64 = 334 * nanosecondsPerMillisecond
  /// After answering an initiation, an end delays its own next one by a random time below this. If
  /// both ends initiated at the same time, one of them then goes first.
  static let overruledInitiationDelay: UInt64 = 2 * nanosecondsPerSecond
  /// Keys and handshake secrets of a silent peer are wiped after this time (whitepaper 6.3).
  static let zeroKeysAfterTime: UInt64 = 3 * WireGuard.rejectAfterTime

  /// Minimum time between two accepted initiations of one peer: 50 per second (kernel; R32).
  static let initiationInterval: UInt64 = nanosecondsPerSecond / 50
  /// TAI64N stamps are rounded down to multiples of this, so that they do not leak a precise clock
  /// (whitepaper 5.4.2 footnote; the kernel masks to a power of two just below 20 ms).
  static let timestampQuantum: UInt32 = 1 << 24

  /// The handshake ring is under load while it is at least an eighth full, and for this long
  /// afterwards (kernel; R5).
  static let loadHysteresis: UInt64 = nanosecondsPerSecond
  static let loadRingFraction = 8
  /// Received handshake messages that may cost Diffie-Hellman computations, and initiations of our
  /// own, in one turn (R47). Each takes up to four computations, together about 0.2 ms on a PC and
  /// 2 ms on the smallest boards, and packets wait meanwhile.
  static let handshakesPerTurn = 4
  /// Received handshake messages in one turn, most of them answered with cookie replies (R50).
  static let messagesPerTurn = 64
  /// Time between two turns in which a tunnel under load sends cookie replies. A reply costs about
  /// 5 us, and each turn waits for the batches in flight, so that a flood could slow down traffic.
  static let cookieInterval: UInt64 = 4 * nanosecondsPerMillisecond
  /// Cookie replies in one turn for which the route is looked up (R40). Each costs as much again.
  static let cookieReplyChecksPerTurn = 4
  /// Peers whose timers are processed in one turn. Most only enter the queue of initiations.
  static let peersPerTurn = 256
  /// Handshake messages per second for one IPv4 address or IPv6 /64, and the burst (kernel; R5).
  static let handshakesPerSecondPerSource: UInt64 = 20
  static let handshakeBurstPerSource: UInt64 = 5

  /// The previous cookie secret is accepted for this long after rotation (R4). A received cookie
  /// expires this much before the end of its lifetime, to allow for a slow path.
  static let cookieGrace: UInt64 = 5 * nanosecondsPerSecond

  /// The minimum MTU of an interface, and of any IPv4 link (RFC 791 section 3.2).
  package static let minimumMTU = 68
  /// As in wireguard-go: Ethernet's 1500 minus 80 for IPv6, UDP and WireGuard.
  public static let defaultMTU = 1420
  /// The minimum MTU of an IPv6 link (RFC 8200 section 5).
  package static let ipv6MinimumMTU = 1280

  /// ICMP errors per second into the TUN (RFC 4443 section 2.4(f), RFC 1812 section 4.3.2.8).
  static let icmpPerSecond: UInt64 = 100
  static let icmpBurst: UInt64 = 20

  /// How long a datagram waits for the rest of its fragments, from the arrival of the first (RFC
  /// 792 leaves it open, Linux uses 30 s; RFC 8200 section 4.5 says 60 s; F9).
  static let reassemblyTimeIPv4: UInt64 = 30 * nanosecondsPerSecond
  static let reassemblyTimeIPv6: UInt64 = 60 * nanosecondsPerSecond
  /// Reassembly slots that a source may hold: a quarter of all. When the ring is full, a source
  /// with more than that loses its oldest datagram (F4).
  static let fairShareOfSlots = 16
  /// Room in a slot for the headers of a first fragment: an IPv6 header, a fragment header and 144
  /// bytes of other extension headers. IPv4 needs at most 60.
  static let fragmentHeadersByteCount = 192
  /// The data of a full fragment on the smallest IPv4 link, whose MTU is 68 (RFC 791 section 3.2).
  /// A datagram may not have more fragments than the largest datagram needs at this size (F1).
  static let smallestFragmentByteCount = 48
  /// ICMP errors per second about datagrams that were not completed in time, and the burst.
  static let timeExceededPerSecond: UInt64 = 10
  static let timeExceededBurst: UInt64 = 16
}
