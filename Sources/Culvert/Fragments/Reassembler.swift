/// Puts fragmented IPv4 and IPv6 packets together again (RFC 791 section 3.2, RFC 8200
/// section 4.5): a ring of 64 slots, each with memory of its own for one datagram of any legal
/// size. It knows no transport, and needs nothing of the tunnel.
///
///     add       a packet in; the same packet, or one that is whole now, or nothing out
///     release   gives back the slot of a packet that was whole
///     expire    forgets what has waited too long, with an ICMP error for its sender
///
/// Nothing is allocated, the work for a fragment does not grow with what is held, and its data is
/// copied once, to where it stays. A slot's region:
///
///     | 64 | headers of the first fragment | data, each fragment's at its offset | 1024 |
///
/// The first fragment lies there as it came, its data in its place; so an ICMP error finds what
/// it has to quote, and the whole packet needs a few fields of its header set, no more.
///
/// What contradicts itself discards its datagram: any overlap that is no duplicate (teardrop;
/// RFC 5722), two ends, data beyond the end. The slot then stays taken, poisoned, until the
/// datagram's time is over, so that what is left of it cannot pass for another (F3). A duplicate
/// takes exactly the place of one fragment and has the same bytes; with other bytes, or another
/// say about more fragments, it is an overlap. Its header is not looked at.
///
/// When all slots are taken, a new datagram takes the place of the oldest: of the source that
/// holds the most, if that is more than a fair share, else of all (F4).
public struct Reassembler: ~Copyable {
  /// Datagrams that can be held at once.
  public static let slots = 64
  /// Bytes that may be read and written before a packet in a slot.
  public static let headroom = 64
  /// Bytes that may be read and written behind the largest packet in a slot: what a cipher that
  /// works on a packet in place may need (`TransportCipher.slack`).
  public static let slack = 1024
  /// What every IPv4 host has to be able to put together (RFC 791 section 3.1).
  private static let leastMaximum = 576
  /// An IPv6 header and the most that its length field can say.
  private static let greatestMaximum = 65_575

  static let tablesOwner: StaticString = "reassembly tables"
  private static let regionsOwner: StaticString = "reassembly"
  static let bucketBits: UInt32 = 7
  /// Where the data starts in a region.
  static let payloadByteOffset = headroom + Policy.fragmentHeadersByteCount

  /// What became of a packet.
  public enum Outcome: BitwiseCopyable {
    /// No fragment: the packet itself, without what stood behind its end. Or an IPv6 fragment that
    /// was whole: the packet without its fragment header, in the same memory.
    case whole(UnsafeMutableRawBufferPointer)
    /// A fragment was kept.
    case held
    /// The whole packet, in a slot's memory: valid until `release(slot)`. An IPv4 header has its
    /// length set, its fragment field zero and a right checksum; IPv6 has its fragment header
    /// removed, its length and the number before set.
    case complete(UnsafeMutableRawBufferPointer, slot: Int)
    /// The packet is of no more use, a duplicate among them; what it did to its datagram, the
    /// verdict says.
    case dropped(FragmentVerdict)
  }

  /// How a datagram whose time was over ended.
  public enum Expiry: BitwiseCopyable {
    /// Its first fragment was not there, or an error may not be sent.
    case silent
    /// An ICMP or ICMPv6 packet for its sender: time exceeded, code 1 (RFC 792, RFC 4443
    /// section 3.3). It lies in the memory of the slot, and is valid until the next call.
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

  /// Slots by the hash of their keys.
  let buckets: LinkTable
  /// Slots by age, IPv4's and IPv6's apart, as they have different times.
  let ages: LinkTable
  var shares: SourceShares
  var hash = TableHash(seed: 0)

  /// A bit for each slot; neither of the two are those that hold a datagram that is not whole.
  var free: UInt64 = .max
  var completed: UInt64 = 0
  /// Datagrams so far.
  var number: UInt64 = 0
  var latest = Instant(nanoseconds: 0)
  /// For ICMP errors about datagrams that never became whole, so that their number does not depend
  /// on what comes in (RFC 4443 section 2.4(f)).
  var errorBudget = TokenBucket(
    perSecond: Policy.timeExceededPerSecond, burst: Policy.timeExceededBurst)

  /// - Parameter maximumPacketByteCount: largest whole packet, headers included, 576-65575;
  ///   `Limits.reassembledByteCount`.
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

  /// Once, before anything else.
  /// - Parameter seed: random, so that nobody can aim at one bucket of a table.
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

  // MARK: What is held

  /// Datagrams that wait for the rest of their fragments, or for the end of their time.
  public var incompleteCount: Int {
    Reassembler.slots &- free.nonzeroBitCount &- completed.nonzeroBitCount
  }

  /// Slots that hold completed packets not yet released.
  public var completedCount: Int { completed.nonzeroBitCount }

  /// When `expire` has something to do.
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

  // MARK: Packets in

  /// Takes a packet as it left the tunnel; nothing about it is trusted.
  /// - Parameter sender: number of the peer that it came from; part of what fragments must have in
  ///   common (F8).
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

  // MARK: Places

  /// Where the data of a slot's datagram starts.
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

/// The end of datagrams that never become whole.
extension Reassembler {
  /// Forgets one datagram whose time is over, and says so once; nil when there is none. Its sender
  /// is told only where the first fragment is held (F9), and not too often.
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

  /// The first fragment lies as it came, and what an error puts before it fits in the headroom.
  private mutating func error(about slot: Int, at now: Instant) -> Expiry {
    let datagram = datagrams + slot
    guard
      datagram.pointee.headerByteCount != 0, !datagram.pointee.isPoisoned,
      errorBudget.hasEnough(at: now)
    else { return .silent }
    let region = payload(of: slot) - Reassembler.payloadByteOffset
    guard
      let error = ICMPError.write(
        .reassemblyTimeExceeded, in: region,
        packetByteOffset: Reassembler.payloadByteOffset &- datagram.pointee.headerByteCount,
        packetByteCount: datagram.pointee.firstByteCount)
    else { return .silent }
    errorBudget.pay()
    counters.add(.timeExceededSent)
    return .timeExceeded(
      UnsafeMutableRawBufferPointer(start: region + error.byteOffset, count: error.byteCount))
  }

  /// Forgets what came from one sender: a peer that was removed (F10). Packets that are whole stay
  /// until they are released.
  public mutating func removeAll(from sender: UInt32) {
    forgetAll { $0.key.sender == sender }
  }

  /// The same of all senders for which `isGone` says so.
  public mutating func removeAll(fromSenders isGone: (UInt32) -> Bool) {
    forgetAll { isGone($0.key.sender) }
  }

  /// Forgets everything but the packets that are whole.
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

  /// A clock that has gone back would keep datagrams for as long as it went: their times then run
  /// anew (R24). So a list in order of age is one in order of deadlines, always.
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
