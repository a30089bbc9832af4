/// What Culvert chose where the protocol leaves a choice; each with where the choice comes from.
public enum Policy {
  /// Width of the replay window in packets (RFC 6479; the kernel uses 8192 with 64 of slack).
  public static let replayWindowPacketCount = 8192
  /// A responder's session is renewed by the initiator alone; the initiator also renews when it
  /// *receives* on a session this old, so that a one-way flow does not run into the wall
  /// (whitepaper 6.2: reject-after-time - keepalive-timeout - rekey-timeout).
  public static let rekeyOnReceiveAfterTime: UInt64 =
    WireGuard.rejectAfterTime - WireGuard.keepaliveTimeout - WireGuard.rekeyTimeout
  /// Rekey-attempt-time over rekey-timeout: handshake initiations until the peer is given up (R17).
  public static let handshakeAttempts: UInt8 = 18
  /// Jitter added to every handshake retry, exclusive upper bound (whitepaper 6.1; R17).
  public static let handshakeJitter: UInt64 = 334 * nanosecondsPerMillisecond
  /// What an end that has answered an initiation adds to the time of its own next try, at random
  /// up to this: of two ends that initiated at once, one then comes first.
  public static let overruledInitiationDelay: UInt64 = 2 * nanosecondsPerSecond
  /// Keys and handshake secrets of a silent peer are wiped after this (whitepaper 6.3).
  public static let zeroKeysAfterTime: UInt64 = 3 * WireGuard.rejectAfterTime

  /// Least distance between two initiations accepted from one peer: 50 a second (kernel; R32).
  public static let initiationInterval: UInt64 = nanosecondsPerSecond / 50
  /// TAI64N stamps are coarsened to this, so that they do not leak a precise clock
  /// (whitepaper 5.4.2 footnote; the kernel masks to a power of two just below 20 ms).
  public static let timestampQuantum: UInt32 = 1 << 24

  /// Load: handshakes are "under load" while the ring is an eighth full, and for this long
  /// afterwards (kernel; R5).
  public static let loadHysteresis: UInt64 = nanosecondsPerSecond
  public static let loadRingFraction = 8
  /// Handshake messages per second for one IPv4 address or IPv6 /64, and the burst (kernel; R5).
  public static let handshakesPerSecondPerSource: UInt64 = 20
  public static let handshakeBurstPerSource: UInt64 = 5

  /// The previous cookie secret is honoured this long after rotation (R4), and a received cookie
  /// is used this much shorter than its lifetime: what it costs to cross a slow path.
  public static let cookieGrace: UInt64 = 5 * nanosecondsPerSecond

  /// Packets staged for one peer while its handshake runs; the oldest goes first.
  public static let minimumMTU = 68
  public static let defaultMTU = 1420
  /// IPv6 needs links of at least this (RFC 8200 section 5).
  public static let ipv6MinimumMTU = 1280

  /// ICMP errors sent into the TUN, a second (RFC 4443 section 2.4(f), RFC 1812 section 4.3.2.8).
  public static let icmpPerSecond: UInt64 = 100
  public static let icmpBurst: UInt64 = 20

  /// How long a datagram may wait for the rest of its fragments, from the first one that came
  /// (RFC 792 leaves it open, Linux has 30 s; RFC 8200 section 4.5 says 60 s; F9).
  public static let reassemblyTimeIPv4: UInt64 = 30 * nanosecondsPerSecond
  public static let reassemblyTimeIPv6: UInt64 = 60 * nanosecondsPerSecond
  /// Slots for reassembly that a source may hold before it is the one to lose its oldest when the
  /// ring is full (F4): a quarter.
  public static let fairShareOfSlots = 16
  /// Room in a slot for the headers before the data of a first fragment: 40 and a fragment header,
  /// and 144 of other IPv6 extensions. IPv4 has at most 60.
  public static let fragmentHeadersByteCount = 192
  /// The data of a full fragment on the smallest IPv4 link, of 68 bytes (RFC 791 section 3.2);
  /// more fragments than the largest datagram has of these are not taken for one (F1).
  public static let smallestFragmentByteCount = 48
  /// ICMP errors about datagrams that never were whole, a second, and the burst.
  public static let timeExceededPerSecond: UInt64 = 10
  public static let timeExceededBurst: UInt64 = 16
}
