/// Reassembles IPv4 and IPv6 packets from fragments (RFC 791 section 3.2, RFC 8200 section 4.5) in
/// a ring of 64 slots, each with its own memory for one datagram of up to `maximumPacketByteCount`.
/// It does not depend on the transport protocol or on the tunnel.
///
///     add       takes a packet; returns it, or the packet that it completed, or nothing
///     release   frees the slot of a completed packet
///     expire    drops a datagram that has waited too long, with an ICMP error for its sender
///
/// Nothing is allocated, the work for a fragment does not depend on how many are held, and its data
/// is copied once, to its final place. A slot's region:
///
///     | 64 | headers of the first fragment | data, each fragment's at its offset | 1024 |
///
/// The first fragment is stored there as it was received. An ICMP error can therefore quote it, and
/// completing the packet only means setting a few header fields.
///
/// A contradiction discards the datagram: any overlap that is not a duplicate (teardrop; RFC 5722),
/// two different ends, or data beyond the end. The slot then stays in use, poisoned, until the
/// datagram's time is over, so that its other fragments cannot pass for a new datagram (F3). A
/// duplicate has exactly the range and the bytes of one earlier fragment. With other bytes, or
/// another more-fragments flag, it is an overlap. Its header is not compared.
///
/// When all slots are in use, a new datagram replaces the oldest datagram of the source that holds
/// the most slots, if that is more than a fair share, or else the oldest of all (F4).
public struct Reassembler: ~Copyable {
  /// Datagrams held at a time.
  public static let slots = 64
  /// Bytes that may be read and written before a packet in a slot.
  public static let headroom = 64
  /// Bytes that may be read and written after the largest packet in a slot, for the cipher of an
  /// inner tunnel that opens the packet where it is; at least `TransportCipher.slack`.
  public static let slack = 1024
  /// The size that every IPv4 host must be able to reassemble (RFC 791 section 3.1).
  private static let leastMaximum = 576
  /// An IPv6 header and the maximum of its length field.
  private static let greatestMaximum = 65_575

  static let tablesOwner: StaticString = "reassembly tables"
  private static let regionsOwner: StaticString = "reassembly"
  static let bucketBits: UInt32 = 7
  /// The start of the data in a region.
  static let payloadByteOffset = headroom + Policy.fragmentHeadersByteCount

  /// What became of a packet.
  public enum Outcome: BitwiseCopyable {
    /// Not a fragment: the packet itself, without bytes after its end. Or an IPv6 packet that was
    /// its own only fragment: in the same memory, without its fragment header.
    case whole(UnsafeMutableRawBufferPointer)
    /// A fragment was kept.
    case held
    /// The whole packet, in a slot's memory, valid until `release(slot)`. Its headers are those of
    /// an unfragmented packet: in IPv4 length, fragment field and checksum are set; in IPv6 the
    /// fragment header is removed, and the length and the next-header field before it are set.
    case complete(UnsafeMutableRawBufferPointer, slot: Int)
    /// The packet was not used, for example because it is a duplicate. The verdict shows whether
    /// its datagram was discarded too.
    case dropped(FragmentVerdict)
  }

  /// The end of a datagram that waited too long.
  public enum Expiry: BitwiseCopyable {
    /// Its first fragment was missing, or no error may be sent.
    case silent
    /// An ICMP or ICMPv6 packet for its sender: time exceeded, code 1 (RFC 792, RFC 4443
    /// section 3.3). It is in the slot's memory and valid until the next call.
    case timeExceeded(UnsafeMutableRawBufferPointer)
  }

  /// How often each verdict was given.
  public let counters: Tally<FragmentVerdict>

  let datagrams: UnsafeMutablePointer<FragmentedDatagram>
  private let coverages: UnsafeMutableRawPointer
  private let coverageByteCount: Int
  private let regions: UnsafeMutableRawPointer
  private let regionByteCount: Int
  let maximumPacketByteCount: Int
  let maximumFragmentCount: Int

  /// The slots by the hash of their keys.
  let buckets: LinkTable
  /// The slots by age, separately for IPv4 and IPv6, whose times differ.
  let ages: LinkTable
  var shares: SourceShares
  var hash = TableHash(seed: 0)

  /// A bit for each slot. A slot with an incomplete datagram is in neither set.
  var free: UInt64 = .max
  var completed: UInt64 = 0
  /// The number of the last datagram.
  var number: UInt64 = 0
  var latest = Instant(nanoseconds: 0)
  /// Limits the ICMP errors about incomplete datagrams, whatever is received (RFC 4443 section
  /// 2.4(f)).
  var errorBudget = TokenBucket(
    perSecond: Policy.timeExceededPerSecond, burst: Policy.timeExceededBurst)

  /// - Parameter maximumPacketByteCount: bytes of the largest whole packet, headers included,
  ///   576-65575 (`Limits.reassembledByteCount`).
  public init(carvingFrom arena: inout Arena, maximumPacketByteCount: Int) {
    precondition(
      maximumPacketByteCount >= Reassembler.leastMaximum
        && maximumPacketByteCount <= Reassembler.greatestMaximum)
    let owner = Reassembler.tablesOwner
    self.maximumPacketByteCount = maximumPacketByteCount
    let payloadByteCount = maximumPacketByteCount - IPv4Header.minimumByteCount
    maximumFragmentCount = payloadByteCount / Policy.smallestFragmentByteCount + 1
    counters = Tally(carvingFrom: &arena, owner: owner)
    datagrams =
      arena.carve(FragmentedDatagram.self, count: Reassembler.slots, owner: owner).baseAddress!
    coverageByteCount = Coverage.byteCount(for: payloadByteCount)
    coverages =
      arena.carveBytes(Reassembler.slots * coverageByteCount, owner: owner).baseAddress!
    buckets = LinkTable(
      carvingFrom: &arena, count: Reassembler.slots + 1 << Int(Reassembler.bucketBits),
      owner: owner)
    ages = LinkTable(carvingFrom: &arena, count: Reassembler.slots + 2, owner: owner)
    shares = SourceShares(carvingFrom: &arena)
    regionByteCount = roundUp(
      Reassembler.payloadByteOffset + payloadByteCount + Reassembler.slack, to: Arena.alignment)
    regions =
      arena.carveBytes(Reassembler.slots * regionByteCount, owner: Reassembler.regionsOwner)
      .baseAddress!
  }

  /// Initializes the tables. Called once, before anything else.
  /// - Parameter seed: random.
  public mutating func start(seed: UInt64) {
    hash = TableHash(seed: seed)
    buckets.prepare()
    ages.prepare()
    shares.prepare()
    free = .max
    completed = 0
    latest = Instant(nanoseconds: 0)
    errorBudget = TokenBucket(
      perSecond: Policy.timeExceededPerSecond, burst: Policy.timeExceededBurst)
  }

  // MARK: State

  /// Datagrams that wait for more fragments, and poisoned ones that have not expired.
  public var incompleteCount: Int {
    Reassembler.slots &- free.nonzeroBitCount &- completed.nonzeroBitCount
  }

  /// Completed packets that have not been released.
  public var completedCount: Int { completed.nonzeroBitCount }

  /// When `expire` is due.
  public var nextDeadline: Deadline {
    min(deadline(of: oldest(.ipv4)), deadline(of: oldest(.ipv6)))
  }

  /// The oldest slot of a family; `slots` or more for none.
  @inline(__always)
  func oldest(_ family: IPAddress.Family) -> Int {
    ages.next(Reassembler.ages(of: family))
  }

  @inline(__always)
  private func deadline(of slot: Int) -> Deadline {
    slot < Reassembler.slots ? datagrams[slot].deadline : .never
  }

  // MARK: Adding packets

  /// Adds a packet. All of its fields are checked.
  /// - Parameter sender: the number of the peer that sent it. Fragments of different senders never
  ///   belong to the same datagram (F8).
  public mutating func add(
    _ packet: UnsafeMutableRawBufferPointer, from sender: UInt32, at now: Instant
  ) -> Outcome {
    guard let bytes = packet.baseAddress, packet.count > 0 else { return drop(.malformed) }
    let byteCount: Int
    let reading: FragmentReading
    if bytes.byte(0) >> 4 == 4 {
      guard let header = IPv4Header(at: bytes, byteCount: packet.count) else {
        return drop(.malformed)
      }
      byteCount = header.totalByteCount
      reading = .of(header, from: sender, maximumByteCount: maximumPacketByteCount)
    } else {
      guard let header = IPv6Header(at: bytes, byteCount: packet.count) else {
        return drop(.malformed)
      }
      byteCount = header.totalByteCount
      reading = .of(header, from: sender, maximumByteCount: maximumPacketByteCount)
    }
    switch reading {
    case .fragment(let fragment): return hold(fragment, at: now)
    case .refused(let verdict): return drop(verdict)
    case .whole:
      counters.add(.whole)
      return .whole(UnsafeMutableRawBufferPointer(start: bytes, count: byteCount))
    case .atomic(let extensions):
      counters.add(.atomic)
      let wholeByteCount = byteCount &- IPv6Extensions.fragmentHeaderByteCount
      let header = IPv6Header(writtenAt: bytes).removeFragmentHeader(
        at: extensions.fragmentHeaderByteOffset,
        numberByteOffset: extensions.fragmentNumberByteOffset, totalByteCount: wholeByteCount)
      return .whole(UnsafeMutableRawBufferPointer(start: header.bytes, count: wholeByteCount))
    }
  }

  @inline(__always)
  func drop(_ verdict: FragmentVerdict) -> Outcome {
    counters.add(verdict)
    return .dropped(verdict)
  }

  // MARK: Memory of slots

  /// The start of the data of a slot's datagram.
  @inline(__always)
  func payload(of slot: Int) -> UnsafeMutableRawPointer {
    regions + (slot &* regionByteCount &+ Reassembler.payloadByteOffset)
  }

  @inline(__always)
  func coverage(of slot: Int) -> Coverage {
    Coverage(at: coverages + slot &* coverageByteCount)
  }

  /// The list of a family's slots, oldest first.
  @inline(__always)
  static func ages(of family: IPAddress.Family) -> Int {
    family == .ipv4 ? slots : slots &+ 1
  }
}

/// The end of incomplete datagrams.
extension Reassembler {
  /// Drops one datagram whose time is over; nil if there is none. Its sender gets an ICMP error
  /// only if the first fragment has arrived (F9), and the rate of these errors is limited.
  public mutating func expire(at now: Instant) -> Expiry? {
    observe(now)
    let (ipv4, ipv6) = (oldest(.ipv4), oldest(.ipv6))
    let slot: Int
    if ipv4 < Reassembler.slots, datagrams[ipv4].isOver(at: now) {
      slot = ipv4
    } else if ipv6 < Reassembler.slots, datagrams[ipv6].isOver(at: now) {
      slot = ipv6
    } else {
      return nil
    }
    forget(slot, .expired)
    return error(about: slot, at: now)
  }

  /// The first fragment is still as it was received, so the error can quote it. The error's headers
  /// fit into the headroom.
  private mutating func error(about slot: Int, at now: Instant) -> Expiry {
    guard
      datagrams[slot].headerByteCount != 0, !datagrams[slot].isPoisoned,
      errorBudget.hasEnough(at: now)
    else { return .silent }
    let region = payload(of: slot) - Reassembler.payloadByteOffset
    guard
      let error = ICMPError.write(
        .reassemblyTimeExceeded, in: region,
        packetByteOffset: Reassembler.payloadByteOffset &- datagrams[slot].headerByteCount,
        packetByteCount: datagrams[slot].firstByteCount)
    else { return .silent }
    errorBudget.pay()
    counters.add(.timeExceededSent)
    return .timeExceeded(
      UnsafeMutableRawBufferPointer(start: region + error.byteOffset, count: error.byteCount))
  }

  /// Drops all datagrams of one sender, a peer that was removed (F10). Completed packets stay until
  /// they are released.
  public mutating func removeAll(from sender: UInt32) {
    forgetAll { $0.key.sender == sender }
  }

  /// Drops all datagrams of senders that are gone.
  public mutating func removeAll(fromSenders isGone: (UInt32) -> Bool) {
    forgetAll { isGone($0.key.sender) }
  }

  /// Drops everything except completed packets.
  public mutating func removeAll() {
    forgetAll { _ in true }
  }

  private mutating func forgetAll(where isMeant: (borrowing FragmentedDatagram) -> Bool) {
    var taken = ~(free | completed)
    while taken != 0 {
      let slot = taken.trailingZeroBitCount
      taken &= taken &- 1
      if isMeant(datagrams[slot]) { forget(slot, .removed) }
    }
  }

  /// If the clock goes backwards, datagrams wait from the new time on, so that none waits longer
  /// (R24). A list in order of age is thus always in order of deadlines.
  @inline(__always)
  mutating func observe(_ now: Instant) {
    if now < latest { goBack(to: now) }
    latest = now
  }

  private func goBack(to now: Instant) {
    var taken = ~(free | completed)
    while taken != 0 {
      let slot = taken.trailingZeroBitCount
      taken &= taken &- 1
      datagrams[slot].since = min(datagrams[slot].since, now)
    }
  }
}
