/// Counts the slots that each source of fragments holds, so that a source that floods the ring
/// loses its own datagrams (F4). A source is an IPv4 address or an IPv6 /64, per sender.
struct SourceShares: BitwiseCopyable {
  private struct Source: BitwiseCopyable {
    var word: UInt64
    var tail: UInt64
    var count: Int
  }

  /// The index of the first ring head: of the sources in `slots`, and of the buckets in `buckets`.
  private static let heads = Reassembler.slots
  private static let bucketBits: UInt32 = 6

  private let sources: UnsafeMutablePointer<Source>
  /// The slots of each source, oldest first.
  private let slots: LinkTable
  /// The sources of each bucket.
  private let buckets: LinkTable
  private var free: UInt64 = .max
  /// A bit for each source with more than a fair share; at most three are set.
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

  /// Charges a slot to the source of `key`. Returns the source's number, for `remove`.
  @inline(__always)
  mutating func add(_ slot: Int, _ key: FragmentKey, _ hash: TableHash) -> UInt8 {
    let word = key.sourceWord
    let tail = UInt64(key.sender) << 8 | UInt64(key.family.rawValue)
    let bucket = hash.hash(word, tail) &>> (32 &- SourceShares.bucketBits)
    let head = SourceShares.heads &+ Int(truncatingIfNeeded: bucket)
    var source = buckets.next(head)
    while source != head, sources[source].word != word || sources[source].tail != tail {
      source = buckets.next(source)
    }
    if source == head {
      // There are as many source entries as slots, so one is free.
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
    slots.unlink(slot)
    sources[source].count &-= 1
    if sources[source].count <= Policy.fairShareOfSlots { crowded &= ~(1 &<< UInt64(source)) }
    guard sources[source].count == 0 else { return }
    buckets.unlink(source)
    free |= 1 &<< UInt64(source)
  }

  /// The oldest slot of the source that holds the most slots, if it holds more than a fair share.
  /// In a tie, the older slot. Nil if no source exceeds its share.
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

/// Doubly linked rings of small numbers: some numbers are elements, the others are heads of rings.
/// An element is in one ring at a time. Because lists are rings, no operation needs a branch.
struct LinkTable: BitwiseCopyable {
  private struct Link: BitwiseCopyable {
    var previous: UInt8
    var next: UInt8
  }

  private let links: UnsafeMutablePointer<Link>
  private let count: Int

  /// - Parameter count: elements and heads together, at most 256.
  init(carvingFrom arena: inout Arena, count: Int, owner: StaticString) {
    precondition(count <= 256)
    links = arena.carve(Link.self, count: count, owner: owner).baseAddress!
    self.count = count
  }

  /// Empties all rings. Called once, before anything else.
  func prepare() {
    for number in 0..<count {
      let alone = UInt8(truncatingIfNeeded: number)
      links[number] = Link(previous: alone, next: alone)
    }
  }

  /// The successor of an element or head. After the last element it is the head.
  @inline(__always)
  func next(_ number: Int) -> Int {
    Int(links[number].next)
  }

  /// Adds an element at the end of a ring.
  @inline(__always)
  func append(_ element: Int, to head: Int) {
    let last = links[head].previous
    let number = UInt8(truncatingIfNeeded: element)
    links[element] = Link(previous: last, next: UInt8(truncatingIfNeeded: head))
    links[Int(last)].next = number
    links[head].previous = number
  }

  /// Removes an element from its ring.
  @inline(__always)
  func unlink(_ element: Int) {
    let link = links[element]
    links[Int(link.previous)].next = link.next
    links[Int(link.next)].previous = link.previous
  }
}
