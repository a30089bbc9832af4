/// How many slots each source of fragments holds, so that one who floods the ring pays for it
/// itself (F4). A source is an IPv4 address or an IPv6 /64 behind one sender.
struct SourceShares: BitwiseCopyable {
  private struct Source: BitwiseCopyable {
    var word: UInt64
    var tail: UInt64
    var count: Int
  }

  /// Where the sources' heads start in `slots`, and the buckets' heads in `buckets`.
  private static let heads = Reassembler.slots
  private static let bucketBits: UInt64 = 6

  private let sources: UnsafeMutablePointer<Source>
  /// The slots of each source, oldest first.
  private let slots: LinkTable
  /// The sources of each bucket.
  private let buckets: LinkTable
  private var free: UInt64 = .max
  /// Sources with more than a fair share, a bit for each; three at most.
  private var crowded: UInt64 = 0

  init(carvingFrom arena: inout Arena) {
    let owner = Reassembler.tablesOwner
    sources = arena.carve(Source.self, count: Reassembler.slots, owner: owner).baseAddress!
    slots = LinkTable(carvingFrom: &arena, count: 2 * Reassembler.slots, owner: owner)
    buckets = LinkTable(
      carvingFrom: &arena, count: Reassembler.slots + 1 << Int(SourceShares.bucketBits),
      owner: owner)
  }

  mutating func prepare() {
    slots.prepare()
    buckets.prepare()
    free = .max
    crowded = 0
  }

  /// Charges a slot to the source of `key`. Returns the source's number, which `remove` wants.
  @inline(__always)
  mutating func add(_ slot: Int, _ key: FragmentKey, _ hash: FragmentHash) -> UInt8 {
    let word = key.sourceWord
    let tail = UInt64(key.sender) << 8 | UInt64(key.family.rawValue)
    let head =
      SourceShares.heads &+ hash.bucket(of: word, tail, bits: SourceShares.bucketBits)
    var source = buckets.next(head)
    while source != head, sources[source].word != word || sources[source].tail != tail {
      source = buckets.next(source)
    }
    if source == head {
      // There are as many sources as slots, so one is free.
      source = free.trailingZeroBitCount
      free &= free &- 1
      sources[source] = Source(word: word, tail: tail, count: 0)
      buckets.append(source, to: head)
    }
    sources[source].count &+= 1
    if sources[source].count > Policy.fairShareOfSlots { crowded |= 1 &<< UInt64(source) }
    slots.append(slot, to: SourceShares.heads &+ source)
    return UInt8(truncatingIfNeeded: source)
  }

  @inline(__always)
  mutating func remove(_ slot: Int, of source: UInt8) {
    let source = Int(source)
    slots.remove(slot)
    sources[source].count &-= 1
    if sources[source].count <= Policy.fairShareOfSlots { crowded &= ~(1 &<< UInt64(source)) }
    guard sources[source].count == 0 else { return }
    buckets.remove(source)
    free |= 1 &<< UInt64(source)
  }

  /// The oldest slot of the source that holds the most, where it holds more than a fair share; of
  /// two that hold as many, the older one. Nil where every source keeps to its share.
  func oldestOfTheMost(_ datagrams: UnsafeMutablePointer<FragmentedDatagram>) -> Int? {
    var rest = crowded
    var most = 0
    var found: Int?
    while rest != 0 {
      let source = rest.trailingZeroBitCount
      rest &= rest &- 1
      let count = sources[source].count
      let oldest = slots.next(SourceShares.heads &+ source)
      if let other = found {
        guard
          count > most || count == most && datagrams[oldest].number < datagrams[other].number
        else { continue }
      }
      most = count
      found = oldest
    }
    return found
  }
}
