/// Finds peers by public key: a hash table with open addressing over an array of fixed size. The
/// peers are also in a list in the order of their configuration, in which wg(8) shows them.
///
/// A peer's place is its index in the array. A `number` is a place plus 1, so that 0 can mean
/// "none".
struct PeerTable: ~Copyable {
  private let entries: UnsafeMutableBufferPointer<PeerEntry>
  /// The number of the peer in each bucket; 0 for an empty bucket. At most half of them are in use.
  private let buckets: UnsafeMutableBufferPointer<UInt32>
  private let bucketMask: Int
  /// The index of a bucket is the hash, shifted right by this number of bits.
  private let bucketShift: UInt32
  /// Seeded, so that an attacker cannot choose keys that share a bucket.
  private var hash = TableHash(seed: 0)
  /// Numbers of the first and last peer and of the first free place; 0 for none.
  private var first: UInt32 = 0
  private var last: UInt32 = 0
  private var firstFree: UInt32 = 0
  private(set) var count = 0
  /// The order of the peer inserted last. Only tests set it.
  var lastOrder: UInt32 = 0

  static let owner: StaticString = "peers: key table"

  init(carvingFrom arena: inout Arena, limits: Limits) {
    entries = arena.carve(PeerEntry.self, count: limits.peers, owner: PeerTable.owner)
    let bucketCount = powerOfTwo(atLeast: 2 * limits.peers)
    buckets = arena.carve(UInt32.self, count: bucketCount, owner: PeerTable.owner)
    bucketMask = bucketCount - 1
    bucketShift = UInt32(32 - bucketCount.trailingZeroBitCount)
  }

  /// Empties the table. Must be called once, before anything else.
  ///
  /// - Parameter seed: a random number.
  mutating func prepare(seed: UInt64) {
    hash = TableHash(seed: seed)
    buckets.update(repeating: 0)
    first = 0
    last = 0
    count = 0
    firstFree = 0
    lastOrder = 0
    for place in stride(from: entries.count - 1, through: 0, by: -1) {
      let entry = PeerEntry(
        key0: 0, key1: 0, key2: 0, key3: 0, generation: 0, next: firstFree, previous: 0,
        order: 0)
      entries.initializeElement(at: place, to: entry)
      firstFree = UInt32(place + 1)
    }
  }

  var capacity: Int { entries.count }
  var isFull: Bool { firstFree == 0 }

  /// The peer whose public key is the 32 bytes at `key`.
  func find(at key: UnsafeRawPointer) -> PeerID? {
    let number = buckets[bucket(of: key)]
    return number == 0 ? nil : id(of: number)
  }

  /// Inserts a peer at the end of the list, or returns the existing peer with this key.
  ///
  /// - Returns: nil if the table is full.
  mutating func insert(at key: UnsafeRawPointer) -> PeerID? {
    let bucket = bucket(of: key)
    if buckets[bucket] != 0 { return id(of: buckets[bucket]) }
    guard firstFree != 0 else { return nil }
    let number = firstFree
    firstFree = self[number].next
    address(of: number).pointee.setKey(at: key)
    self[number].generation = self[number].generation &+ 1
    self[number].next = 0
    self[number].previous = last
    self[number].order = nextOrder()
    if last == 0 { first = number } else { self[last].next = number }
    last = number
    buckets[bucket] = number
    count += 1
    return id(of: number)
  }

  /// Removes a peer. Returns false if it has already been removed.
  @discardableResult
  mutating func remove(_ id: PeerID) -> Bool {
    guard contains(id) else { return false }
    let number = id.index + 1
    emptyBucket(of: number)
    let (previous, next) = (self[number].previous, self[number].next)
    if previous == 0 { first = next } else { self[previous].next = next }
    if next == 0 { last = previous } else { self[next].previous = previous }
    self[number].generation = self[number].generation &+ 1
    self[number].previous = 0
    self[number].next = firstFree
    firstFree = number
    count -= 1
    return true
  }

  /// Whether the peer with this ID is still configured.
  func contains(_ id: PeerID) -> Bool {
    guard id.index < UInt32(entries.count) else { return false }
    let generation = self[id.index &+ 1].generation
    return generation & 1 != 0 && generation == id.generation
  }

  /// The peer at this place now, if there is one.
  func peer(atPlace index: UInt32) -> PeerID? {
    guard index < UInt32(entries.count), self[index &+ 1].isTaken else {
      return nil
    }
    return id(of: index &+ 1)
  }

  /// The 32 bytes of the public key of a peer in the table; valid until the peer is removed.
  func key(of id: PeerID) -> UnsafeRawPointer {
    precondition(contains(id))
    // The key's words are the first four fields.
    return UnsafeRawPointer(address(of: id.index + 1))
  }

  /// The peer configured first.
  var firstPeer: PeerID? { first == 0 ? nil : id(of: first) }

  /// The peer configured after `id`; nil at the end, or if `id` has been removed.
  func peer(after id: PeerID) -> PeerID? {
    guard contains(id) else { return nil }
    let next = self[id.index + 1].next
    return next == 0 ? nil : self.id(of: next)
  }

  /// A position in the list of peers, which survives the removal of any of them.
  struct Cursor: BitwiseCopyable {
    let peer: PeerID
    fileprivate let order: UInt32
  }

  /// The position of the peer configured first; nil if there is none.
  var firstCursor: Cursor? { first == 0 ? nil : cursor(of: first) }

  /// The position of the peer configured next. If the peer at `cursor` has been removed, this takes
  /// a walk through the list.
  func next(after cursor: Cursor) -> Cursor? {
    var number = first
    if contains(cursor.peer) {
      number = self[cursor.peer.index &+ 1].next
    } else {
      while number != 0, self[number].order <= cursor.order { number = self[number].next }
    }
    return number == 0 ? nil : self.cursor(of: number)
  }

  private func cursor(of number: UInt32) -> Cursor {
    Cursor(peer: id(of: number), order: self[number].order)
  }

  /// The order of a new peer. When the numbers are used up, after 4 billion peers, those of the
  /// peers in the list start again at 1.
  private mutating func nextOrder() -> UInt32 {
    if lastOrder == .max {
      lastOrder = 0
      var number = first
      while number != 0 {
        lastOrder &+= 1
        self[number].order = lastOrder
        number = self[number].next
      }
    }
    lastOrder &+= 1
    return lastOrder
  }

  /// The entry with this number.
  private subscript(number: UInt32) -> PeerEntry {
    @inline(__always) unsafeAddress { UnsafePointer(address(of: number)) }
    @inline(__always) nonmutating unsafeMutableAddress { address(of: number) }
  }

  @inline(__always)
  private func address(of number: UInt32) -> UnsafeMutablePointer<PeerEntry> {
    // Unchecked, because numbers come from the table itself.
    entries.baseAddress.unsafelyUnwrapped + (Int(truncatingIfNeeded: number) &- 1)
  }

  @inline(__always)
  private func id(of number: UInt32) -> PeerID {
    PeerID(index: number &- 1, generation: self[number].generation)
  }

  /// The bucket of the key, or the empty bucket where it would be inserted.
  private func bucket(of key: UnsafeRawPointer) -> Int {
    let key0 = key.loadUnaligned(fromByteOffset: 0, as: UInt64.self)
    let key1 = key.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    let key2 = key.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
    let key3 = key.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
    var bucket = home(of: key0, key1, key2, key3)
    // This terminates, because at least half of the buckets are empty.
    while buckets[bucket] != 0 {
      let entry = self[buckets[bucket]]
      if entry.key0 == key0, entry.key1 == key1, entry.key2 == key2, entry.key3 == key3 {
        return bucket
      }
      bucket = (bucket &+ 1) & bucketMask
    }
    return bucket
  }

  /// Empties the bucket of a peer, and moves later entries back into the gap, so that no tombstones
  /// are needed.
  private func emptyBucket(of number: UInt32) {
    var gap = bucket(of: UnsafeRawPointer(address(of: number)))
    var bucket = (gap &+ 1) & bucketMask
    while buckets[bucket] != 0 {
      let entry = self[buckets[bucket]]
      let home = home(of: entry.key0, entry.key1, entry.key2, entry.key3)
      if (bucket &- home) & bucketMask >= (bucket &- gap) & bucketMask {
        buckets[gap] = buckets[bucket]
        gap = bucket
      }
      bucket = (bucket &+ 1) & bucketMask
    }
    buckets[gap] = 0
  }

  private func home(of key0: UInt64, _ key1: UInt64, _ key2: UInt64, _ key3: UInt64) -> Int {
    let hash = hash.hash(key0, key1, key2, key3, 0)
    return Int(truncatingIfNeeded: hash >> bucketShift)
  }
}

/// An entry of the peer table: a peer's public key, and its neighbours in the list.
struct PeerEntry: BitwiseCopyable {
  var key0: UInt64
  var key1: UInt64
  var key2: UInt64
  var key3: UInt64
  /// Incremented when a peer is inserted and when it is removed, so it is odd while the place is in
  /// use.
  var generation: UInt32
  /// The number of the next peer, or in a free place, of the next free place; 0 for none.
  var next: UInt32
  var previous: UInt32
  /// Greater than that of all peers before it in the list.
  var order: UInt32

  @inline(__always)
  var isTaken: Bool { generation & 1 != 0 }

  /// - Parameter key: 32 bytes.
  mutating func setKey(at key: UnsafeRawPointer) {
    key0 = key.loadUnaligned(fromByteOffset: 0, as: UInt64.self)
    key1 = key.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    key2 = key.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
    key3 = key.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
  }
}

/// Identifies a peer: its index in every per-peer table, and a generation. The generation
/// distinguishes the present peer at that index from a removed peer that a batch in flight may
/// still refer to.
public struct PeerID: Hashable, Sendable, BitwiseCopyable {
  public var index: UInt32
  public var generation: UInt32

  @inline(__always)
  public init(index: UInt32, generation: UInt32) {
    self.index = index
    self.generation = generation
  }

  /// The peer as 32 bits: 16 bits of the index and 16 bits of the generation. The value repeats
  /// only after 32,768 peers have been removed from the same place.
  public var sender: UInt32 { index & 0xffff | generation << 16 }

  /// No peer; never in the table.
  public static var none: PeerID { PeerID(index: .max, generation: 0) }
}
