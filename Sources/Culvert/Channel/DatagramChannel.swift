/// A UDP socket inside a tunnel. Its user sends and receives datagrams, and the tunnel processes
/// the IP packets that carry them. In this way another tunnel or any other code can send datagrams
/// through a tunnel of the same process, without an interface.
///
/// To send (`DatagramChannel+Send`), UDP and IP headers are written in place, to the `headroom`
/// bytes before the datagram, and the packet is appended to an outbound batch of the tunnel. If it
/// exceeds the tunnel's MTU, it is fragmented. To receive (`DatagramChannel+Receive`), a packet
/// that the tunnel has delivered is checked, and its headers are removed in place. The
/// `Reassembler` reassembles fragments. `DatagramChannel+Nesting` does both for whole batches.
/// Nothing is queued here: the batches are the bounded queues of both directions, and the caller is
/// notified when one is full.
///
/// The channel does no I/O, reads no clock and allocates nothing. Only one call may run at a time.
public struct DatagramChannel: ~Copyable {
  /// Bytes before a payload that `send` overwrites with headers: IPv6 and UDP.
  public static let headroom = IPv6Header.byteCount + UDPHeader.byteCount
  /// The largest payload over IPv4 and IPv6, in bytes (RFC 768, without jumbograms).
  public static let maximumIPv4Payload = 65_535 - IPv4Header.minimumByteCount - UDPHeader.byteCount
  public static let maximumIPv6Payload = 65_535 - UDPHeader.byteCount

  /// The local addresses, at most one per family. They are the tunnel's own addresses ("Address" in
  /// wg-quick(8)).
  public private(set) var ipv4: IPAddress?
  public private(set) var ipv6: IPAddress?
  /// The first local port and the number of ports; both are 0 while the channel is closed.
  public private(set) var firstPort: UInt16 = 0
  public private(set) var portCount = 0
  /// The size of the largest IP packet that the tunnel carries, in bytes.
  public private(set) var mtu = Policy.defaultMTU
  /// Whether IPv4 datagrams are sent with DF. Without DF, routers may fragment them, as they may
  /// those of the kernel's WireGuard.
  public var forbidsFragmentation = false
  /// Counts datagrams by result.
  public let counters: Tally<DatagramVerdict>
  /// Reassembles fragments, and counts them by result.
  public var reassembler: Reassembler

  var paths: PathMTUs
  /// The identification of the last IPv4 packet. It is a counter, so that the 16 bits are reused as
  /// late as possible (RFC 6864 section 4.3).
  var ipv4Identification: UInt16 = 0
  /// The identification of the last fragmented IPv6 packet.
  var ipv6Identification: UInt32 = 0
  /// A secret for flow labels (RFC 6437).
  var flowSeed: UInt64 = 0
  /// The reassembler's slots with datagrams that `receive` has returned.
  private let lent: UnsafeMutablePointer<UInt8>
  private(set) var lentCount = 0

  /// Carves the channel's memory. The reassembler takes most of it, 64 regions of
  /// `limits.reassembledByteCount` bytes each.
  public init(carvingFrom arena: inout Arena, limits: Limits) {
    let owner: StaticString = "channels"
    counters = Tally(carvingFrom: &arena, owner: "counters")
    paths = PathMTUs(carvingFrom: &arena)
    lent = arena.carve(UInt8.self, count: Reassembler.slots, owner: owner).baseAddress!
    reassembler = Reassembler(
      carvingFrom: &arena, maximumPacketByteCount: limits.reassembledByteCount)
  }

  /// Initializes the carved memory. Must be called once, before anything else.
  ///
  /// - Parameter seed: a random number.
  public mutating func start(seed: UInt64) {
    // Identifications and flow labels are public, so it must be impossible to derive the seed of
    // the reassembler's tables from them.
    let hash = KeyedHash(key0: seed, key1: 0)
    ipv4Identification = UInt16(truncatingIfNeeded: hash.hash(1, 0))
    ipv6Identification = UInt32(truncatingIfNeeded: hash.hash(2, 0))
    flowSeed = hash.hash(3, 0)
    paths.start()
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

  /// Opens `count` ports from `firstPort` on, instead of those that are open. `firstPort` must be
  /// at least 1, and `firstPort + count` at most 65,536.
  public mutating func open(firstPort: UInt16, count: Int = 1) {
    precondition(firstPort > 0 && count > 0 && Int(firstPort) + count <= 65_536)
    self.firstPort = firstPort
    portCount = count
  }

  /// Stops sending and receiving. The channel can be opened again.
  public mutating func close() {
    portCount = 0
    firstPort = 0
    reassembler.removeAll()
  }

  public var isOpen: Bool { portCount > 0 }

  /// Sets the tunnel's MTU, in bytes.
  public mutating func setMTU(_ mtu: Int) {
    self.mtu = mtu
    // The MTUs that ICMP has reported may have been those of another path.
    paths.forgetAll()
  }

  /// Whether `port` is one of the channel's ports.
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

  /// Releases the memory of all datagrams that `receive` has returned. Must be called when they
  /// have been used, at the latest after each batch.
  public mutating func release() {
    while lentCount > 0 {
      lentCount &-= 1
      reassembler.release(Int(lent[lentCount]))
    }
  }

  // MARK: Time

  /// When `expireFragments` must be called next.
  public var nextDeadline: Deadline { reassembler.nextDeadline }

  /// Drops datagrams whose fragments have not all arrived in time, and appends ICMP errors for
  /// their senders to `batch`. The caller then plans, seals and emits the batch like any other.
  public mutating func expireFragments(into batch: inout OutboundBatch, at now: Instant) {
    while batch.freeCount > 0, batch.room(for: Policy.ipv6MinimumMTU) != nil {
      guard let expiry = reassembler.expire(at: now) else { return }
      guard case .timeExceeded(let packet) = expiry,
        let room = batch.room(for: packet.count)
      else { continue }
      // The packet is copied, because the reassembler reuses its memory in the next call.
      room.copyMemory(from: UnsafeRawBufferPointer(packet))
      batch.append(byteCount: packet.count)
    }
  }
}

/// The result of processing a datagram in a channel. Fragments have separate verdicts
/// (`FragmentVerdict`).
public enum DatagramVerdict: UInt8, CountedVerdict {
  // Sending.
  case sent
  /// Sent in fragments, because it exceeds the MTU.
  case sentInFragments
  /// The channel has no local address of the destination's family.
  case noAddress
  /// Too large for UDP, for one batch of fragments, or with DF for the MTU.
  case tooLarge

  // Receiving.
  case received
  /// A fragment, kept or dropped by the reassembler.
  case fragment
  /// Not an IP packet, or with inconsistent lengths.
  case malformed
  /// Sent to another address or to a closed port, of another protocol, or an ICMP message that does
  /// not matter here.
  case notOurs
  /// A checksum is wrong, or the UDP checksum is missing over IPv6 (F8).
  case badChecksum
  /// The source address is not that of a single host.
  case badSource
  /// An ICMP error: the destination of one of our datagrams is unreachable.
  case unreachable
  /// An ICMP error: one of our datagrams exceeds the path's MTU.
  case tooLargeForPath

  /// In either direction: the channel, or the local port to send from, is closed.
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
