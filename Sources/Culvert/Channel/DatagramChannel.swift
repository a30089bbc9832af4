/// A UDP socket inside a tunnel: its user sends and receives datagrams, and the tunnel sees IP
/// packets. So another tunnel, or any program, sends its datagrams through a tunnel of the same
/// process without an interface in between.
///
/// Outward (`DatagramChannel+Send`), a datagram gets its UDP and IP headers in place, in the
/// `headroom` bytes before it, and is appended to a batch of the tunnel's outbound lane. If it
/// exceeds the tunnel's MTU it is sent in fragments. Inward (`DatagramChannel+Receive`), a packet
/// that the tunnel has delivered is checked, and its headers are removed in place; the
/// `Reassembler` reassembles fragments. `DatagramChannel+Nesting` does both for whole batches.
/// Nothing is queued here: the batches are the bounded queues of both directions, and the caller
/// learns when one is full.
///
/// The channel does no I/O, reads no clock and allocates nothing. One call at a time.
public struct DatagramChannel: ~Copyable {
  /// Bytes before a payload into which `send` writes headers: IPv6 and UDP.
  public static let headroom = IPv6Header.byteCount + UDPHeader.byteCount
  /// Payload bytes of the largest datagram over IPv4 and IPv6 (RFC 768, without jumbograms).
  public static let maximumIPv4Payload = 65_535 - IPv4Header.minimumByteCount - UDPHeader.byteCount
  public static let maximumIPv6Payload = 65_535 - UDPHeader.byteCount

  /// The local addresses, at most one of each family; the tunnel's own ("Address" of wg-quick(8)).
  public private(set) var ipv4: IPAddress?
  public private(set) var ipv6: IPAddress?
  /// The lowest of the local ports, and how many there are; 0 while the channel is closed.
  public private(set) var firstPort: UInt16 = 0
  public private(set) var portCount = 0
  /// Bytes of the largest IP packet that the tunnel carries.
  public private(set) var mtu = Policy.defaultMTU
  /// Whether IPv4 datagrams carry DF. Without it routers may fragment them, like those of the
  /// kernel's WireGuard.
  public var forbidsFragmentation = false
  /// What became of datagrams.
  public let counters: Tally<DatagramVerdict>
  /// Reassembles fragments, and counts what becomes of them.
  public var reassembler: Reassembler

  var paths: PathMTUs
  /// The identification of the last IPv4 packet; 16 bits that are not soon reused (RFC 6864 section
  /// 4.3).
  var ipv4Identification: UInt16 = 0
  /// The identification of the last fragmented IPv6 packet.
  var ipv6Identification: UInt32 = 0
  /// Secret, for flow labels (RFC 6437).
  var flowSeed: UInt64 = 0
  /// Slots of the reassembler whose datagrams `receive` has returned.
  private let lent: UnsafeMutablePointer<UInt8>
  private(set) var lentCount = 0

  /// Carves what the channel needs, most of it for the reassembler: 64 regions of
  /// `limits.reassembledByteCount` bytes each.
  public init(carvingFrom arena: inout Arena, limits: Limits) {
    let owner: StaticString = "channels"
    counters = Tally(carvingFrom: &arena, owner: "counters")
    paths = PathMTUs(carvingFrom: &arena)
    lent = arena.carve(UInt8.self, count: Reassembler.slots, owner: owner).baseAddress!
    reassembler = Reassembler(
      carvingFrom: &arena, maximumPacketByteCount: limits.reassembledByteCount)
  }

  /// Initializes the carved memory. Called once, before anything else.
  ///
  /// - Parameter seed: random.
  public mutating func start(seed: UInt64) {
    // Everybody sees identifications and flow labels, so the seed of the reassembler's tables must
    // not follow from them.
    let hash = KeyedHash(key0: seed, key1: 0)
    ipv4Identification = UInt16(truncatingIfNeeded: hash.hash(1, 0))
    ipv6Identification = UInt32(truncatingIfNeeded: hash.hash(2, 0))
    flowSeed = hash.hash(3, 0)
    reassembler.start(seed: hash.hash(4, 0))
  }

  // MARK: Settings

  /// Replaces the local address of the same family.
  public mutating func setAddress(_ address: IPAddress) {
    switch address.family {
    case .ipv4: ipv4 = address
    case .ipv6: ipv6 = address
    }
  }

  /// The local address of a family.
  @inline(__always)
  public func address(_ family: IPAddress.Family) -> IPAddress? {
    family == .ipv4 ? ipv4 : ipv6
  }

  /// Opens `count` ports from `firstPort` on, which replace those open now. `firstPort` is at least
  /// 1, and `firstPort + count` at most 65,536.
  public mutating func open(firstPort: UInt16, count: Int = 1) {
    precondition(firstPort > 0 && count > 0 && Int(firstPort) + count <= 65_536)
    self.firstPort = firstPort
    portCount = count
  }

  /// Stops sending and receiving. The channel may be opened again.
  public mutating func close() {
    portCount = 0
    firstPort = 0
    reassembler.removeAll()
  }

  public var isOpen: Bool { portCount > 0 }

  /// Sets the tunnel's MTU, in bytes.
  public mutating func setMTU(_ mtu: Int) {
    self.mtu = mtu
    // What ICMP said may have been about another path.
    paths.forgetAll()
  }

  /// Whether `port` is one of the channel's.
  @inline(__always)
  func isOwn(_ port: UInt16) -> Bool {
    port >= firstPort && Int(port) &- Int(firstPort) < portCount
  }

  // MARK: Memory of reassembled datagrams

  /// Records that a returned datagram is in a slot of the reassembler.
  mutating func lend(_ slot: Int) {
    lent[lentCount] = UInt8(truncatingIfNeeded: slot)
    lentCount &+= 1
  }

  /// Releases the memory of all datagrams that `receive` has returned. Called when they have been
  /// used, at the latest after each batch.
  public mutating func release() {
    while lentCount > 0 {
      lentCount &-= 1
      reassembler.release(Int(lent[lentCount]))
    }
  }

  // MARK: Time

  /// When `expireFragments` has something to do.
  public var nextDeadline: Deadline { reassembler.nextDeadline }

  /// Drops datagrams whose fragments have not all arrived in time, and appends ICMP errors for
  /// their senders to `batch`, which is then planned, sealed and emitted like any other.
  public mutating func expireFragments(into batch: inout OutboundBatch, at now: Instant) {
    while batch.freeCount > 0, batch.room(for: Policy.ipv6MinimumMTU) != nil {
      guard let expiry = reassembler.expire(at: now) else { return }
      guard case .timeExceeded(let packet) = expiry,
        let room = batch.room(for: packet.count)
      else { continue }
      // A copy, because the reassembler reuses its memory with the next call.
      room.copyMemory(from: UnsafeRawBufferPointer(packet))
      batch.append(byteCount: packet.count)
    }
  }
}

/// What became of a datagram in a channel. Fragments have verdicts of their own
/// (`FragmentVerdict`).
public enum DatagramVerdict: UInt8, CountedVerdict {
  // Outward.
  case sent
  /// Larger than the tunnel's MTU; sent in fragments.
  case sentInFragments
  /// The channel has no local address of the destination's family.
  case noAddress
  /// Too large for UDP, or for the fragments of one batch, or with DF for the path's MTU.
  case tooLarge

  // Inward.
  case received
  /// A fragment, kept or dropped by the reassembler.
  case fragment
  /// Not an IP packet, not UDP, or with inconsistent lengths.
  case malformed
  /// To another address, of another protocol, or to a closed port.
  case notOurs
  /// The checksum is wrong, or missing over IPv6 (F8).
  case badChecksum
  /// The source is not a single host.
  case badSource
  /// An ICMP error about a datagram of ours: its destination is unreachable.
  case unreachable
  /// An ICMP error about a datagram of ours: it exceeds the path's MTU.
  case tooLargeForPath
  case closed

  public static var count: UInt8 { closed.rawValue + 1 }

  public var name: StaticString {
    switch self {
    case .sent: "datagram-sent"
    case .sentInFragments: "datagram-sent-in-fragments"
    case .noAddress: "datagram-no-address"
    case .tooLarge: "datagram-too-large"
    case .received: "datagram-received"
    case .fragment: "datagram-fragment"
    case .malformed: "datagram-malformed"
    case .notOurs: "datagram-not-ours"
    case .badChecksum: "datagram-bad-checksum"
    case .badSource: "datagram-bad-source"
    case .unreachable: "datagram-unreachable"
    case .tooLargeForPath: "datagram-too-large-for-path"
    case .closed: "datagram-closed"
    }
  }
}
