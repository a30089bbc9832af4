/// A UDP socket's stand-in inside a tunnel: datagrams go in and come out, and on the tunnel's side
/// they are IP packets. So another tunnel, or a program of any kind, sends its datagrams through a
/// tunnel of the same process without an interface in between.
///
/// Outward (`DatagramChannel+Send`) a datagram gets its UDP and IP header where it stands, in the
/// `headroom` bytes before it, and is put into the batch of the tunnel's outbound lane; where it is
/// larger than the tunnel's MTU it goes in fragments. Inward (`DatagramChannel+Receive`) a packet
/// that the tunnel has delivered is checked and stripped of its headers where it stands; fragments
/// are put together by the `Reassembler`. Nothing is queued here: the batches are the bounded
/// queues of both directions, and a full one is told to the caller.
///
/// It does no I/O, knows no clock and allocates nothing. One call at a time.
public struct DatagramChannel: ~Copyable {
  /// Bytes before a payload that `send` writes headers to: IPv6 and UDP.
  public static let headroom = IPv6Header.byteCount + UDPHeader.byteCount
  /// Payload bytes of the largest datagram: IPv4, IPv6 (RFC 768, without jumbograms).
  public static let maximumIPv4Payload = 65_535 - IPv4Header.minimumByteCount - UDPHeader.byteCount
  public static let maximumIPv6Payload = 65_535 - UDPHeader.byteCount

  /// The local addresses, at most one of each family; the tunnel's own ("Address" of wg-quick(8)).
  public private(set) var ipv4: IPAddress?
  public private(set) var ipv6: IPAddress?
  /// The lowest of the local ports, and how many there are; 0 while the channel is closed.
  public private(set) var firstPort: UInt16 = 0
  public private(set) var portCount = 0
  /// Bytes of the largest IP packet that the tunnel takes.
  public private(set) var mtu = Policy.defaultMTU
  /// Whether IPv4 datagrams carry DF. Without it they may be cut on their way, as those of the
  /// kernel's WireGuard.
  public var forbidsFragmentation = false
  /// Why datagrams were dropped, and what became of the rest.
  public let counters: Tally<DatagramVerdict>
  /// Puts fragments together, and counts what becomes of them.
  public var reassembler: Reassembler

  var paths: PathMTUs
  /// Of IPv4 packets; 16 bits that are not soon used again (RFC 6864 section 4.3).
  var ipv4Identification: UInt16 = 0
  /// Of fragmented IPv6 packets.
  var ipv6Identification: UInt32 = 0
  /// What flow labels are made with (RFC 6437).
  var flowSeed: UInt64 = 0
  /// Slots of the reassembler whose datagrams have been handed out.
  private let lent: UnsafeMutablePointer<UInt8>
  private(set) var lentCount = 0

  /// Carves what the channel needs: most of it for the reassembler, whose 64 regions hold
  /// `limits.reassembledByteCount` each.
  public init(carvingFrom arena: inout Arena, limits: Limits) {
    let owner: StaticString = "channels"
    counters = Tally(carvingFrom: &arena, owner: "counters")
    paths = PathMTUs(carvingFrom: &arena)
    lent = arena.carve(UInt8.self, count: Reassembler.slots, owner: owner).baseAddress!
    reassembler = Reassembler(
      carvingFrom: &arena, maximumPacketByteCount: limits.reassembledByteCount)
  }

  /// Once, before anything else.
  ///
  /// - Parameter seed: random.
  public mutating func start(seed: UInt64) {
    // Identifications and flow labels are seen by everybody; the seed of the reassembler's tables
    // may not follow from them.
    let hash = KeyedHash(key0: seed, key1: 0)
    ipv4Identification = UInt16(truncatingIfNeeded: hash.hash(1, 0))
    ipv6Identification = UInt32(truncatingIfNeeded: hash.hash(2, 0))
    flowSeed = hash.hash(3, 0)
    reassembler.start(seed: hash.hash(4, 0))
  }

  // MARK: Settings

  /// Takes the place of the address of the same family.
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

  /// Opens the ports from `firstPort` on, in place of those open now. `firstPort` is at least 1,
  /// and `firstPort + count` at most 65,536.
  public mutating func open(firstPort: UInt16, count: Int = 1) {
    precondition(firstPort > 0 && count > 0 && Int(firstPort) + count <= 65_536)
    self.firstPort = firstPort
    portCount = count
  }

  /// From here on nothing is sent and nothing received; may be opened again.
  public mutating func close() {
    portCount = 0
    firstPort = 0
    reassembler.removeAll()
  }

  public var isOpen: Bool { portCount > 0 }

  /// The tunnel's MTU has changed, in bytes.
  public mutating func setMTU(_ mtu: Int) {
    self.mtu = mtu
    // What was learned may be about a path that this one no longer is.
    paths.forgetAll()
  }

  /// Whether `port` is one of the channel's.
  @inline(__always)
  func isOwn(_ port: UInt16) -> Bool {
    port >= firstPort && Int(port) &- Int(firstPort) < portCount
  }

  // MARK: Memory of datagrams

  /// Remembers that a datagram stands in the reassembler's memory.
  mutating func lend(_ slot: Int) {
    lent[lentCount] = UInt8(truncatingIfNeeded: slot)
    lentCount &+= 1
  }

  /// Gives back the memory of all datagrams that `receive` has returned. To be called when they
  /// have been used, at the latest with each batch.
  public mutating func release() {
    while lentCount > 0 {
      lentCount &-= 1
      reassembler.release(Int(lent[lentCount]))
    }
  }

  // MARK: Time

  /// When `advance` has something to do.
  public var nextDeadline: Deadline { reassembler.nextDeadline }

  /// Forgets datagrams whose fragments have not all come in time, and tells their senders so with
  /// packets in `batch`, which is to be planned, sealed and emitted as any other.
  public mutating func advance(_ batch: inout OutboundBatch, at now: Instant) {
    while batch.freeCount > 0, batch.room(for: Policy.ipv6MinimumMTU) != nil {
      guard let expiry = reassembler.expire(at: now) else { return }
      guard case .timeExceeded(let packet) = expiry,
        let room = batch.room(for: packet.count)
      else { continue }
      // Copied: the reassembler's memory is given away with its next call.
      room.copyMemory(from: UnsafeRawBufferPointer(packet))
      batch.append(byteCount: packet.count)
    }
  }
}

/// What became of a datagram in a channel. Fragments on their way have verdicts of their own
/// (`FragmentVerdict`).
public enum DatagramVerdict: UInt8, CountedVerdict {
  // Outward.
  case sent
  /// Larger than the tunnel's MTU; sent in fragments.
  case sentInFragments
  /// There is no local address of the destination's family.
  case noAddress
  /// Larger than UDP, or one batch in fragments, can carry; or than may go whole with DF.
  case tooLarge

  // Inward.
  case received
  /// A fragment, kept or dropped by the reassembler.
  case fragment
  /// No packet, no UDP, or lengths that contradict each other.
  case malformed
  /// To another address, of another protocol, or to a port that is not open.
  case notOurs
  /// The checksum is wrong, or missing over IPv6 (F8).
  case badChecksum
  /// The source is no single host.
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
