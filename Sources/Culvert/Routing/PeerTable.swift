/// Public key -> peer: a hash with open addressing over a fixed table of peers, which are also
/// linked in the order they were configured, as wg(8) shows them.
struct PeerTable: ~Copyable {
  private let entries: UnsafeMutableBufferPointer<PeerEntry>
  /// Place + 1 of a peer; 0 for an empty bucket. At most half of them are taken.
  private let buckets: UnsafeMutableBufferPointer<UInt32>
  private let bucketMask: Int
  /// Of a hash, so that the bits left are those of a bucket.
  private let bucketShift: UInt32
  private var hash = TableHash(seed: 0)
  /// Places + 1; 0 for none.
  private var first: UInt32 = 0
  private var last: UInt32 = 0
  private var firstFree: UInt32 = 0
  private(set) var count = 0

  static let owner: StaticString = "peers: key table"

  init(carvingFrom arena: inout Arena, limits: Limits) {
    entries = arena.carve(PeerEntry.self, count: limits.peers, owner: PeerTable.owner)
    let bucketCount = powerOfTwo(atLeast: 2 * limits.peers)
    buckets = arena.carve(UInt32.self, count: bucketCount, owner: PeerTable.owner)
    bucketMask = bucketCount - 1
    bucketShift = UInt32(32 - bucketCount.trailingZeroBitCount)
  }

  /// Empties the table; once, before anything else.
  /// - Parameter seed: random.
  mutating func prepare(seed: UInt64) {
    hash = TableHash(seed: seed)
    buckets.update(repeating: 0)
    first = 0
    last = 0
    count = 0
    firstFree = 0
    for place in stride(from: entries.count - 1, through: 0, by: -1) {
      let entry = PeerEntry(
        key0: 0, key1: 0, key2: 0, key3: 0, generation: 0, next: firstFree, previous: 0)
      entries.initializeElement(at: place, to: entry)
      firstFree = UInt32(place + 1)
    }
  }

  var capacity: Int { entries.count }
  var isFull: Bool { firstFree == 0 }

  /// The peer with the public key in the 32 bytes at `key`.
  func find(at key: UnsafeRawPointer) -> PeerID? {
    let taken = buckets[bucket(of: key)]
    return taken == 0 ? nil : id(of: taken)
  }

  /// A new peer, last in order, or the one that has this key already. Nil: the table is full.
  mutating func insert(at key: UnsafeRawPointer) -> PeerID? {
    let bucket = bucket(of: key)
    if buckets[bucket] != 0 { return id(of: buckets[bucket]) }
    guard firstFree != 0 else { return nil }
    let place = firstFree
    let entry = entry(place)
    firstFree = entry.pointee.next
    entry.pointee.key0 = key.loadUnaligned(fromByteOffset: 0, as: UInt64.self)
    entry.pointee.key1 = key.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    entry.pointee.key2 = key.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
    entry.pointee.key3 = key.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
    entry.pointee.generation &+= 1
    entry.pointee.next = 0
    entry.pointee.previous = last
    if last == 0 { first = place } else { self.entry(last).pointee.next = place }
    last = place
    buckets[bucket] = place
    count += 1
    return id(of: place)
  }

  /// Removes a peer; false where it is gone already.
  @discardableResult
  mutating func remove(_ id: PeerID) -> Bool {
    guard contains(id) else { return false }
    let place = id.index + 1
    let entry = entry(place)
    emptyBucket(of: place)
    let (previous, next) = (entry.pointee.previous, entry.pointee.next)
    if previous == 0 { first = next } else { self.entry(previous).pointee.next = next }
    if next == 0 { last = previous } else { self.entry(next).pointee.previous = previous }
    entry.pointee.generation &+= 1
    entry.pointee.previous = 0
    entry.pointee.next = firstFree
    firstFree = place
    count -= 1
    return true
  }

  /// True while the peer that was given this ID is configured.
  func contains(_ id: PeerID) -> Bool {
    guard id.index < UInt32(entries.count) else { return false }
    let entry = entry(id.index &+ 1)
    return entry.pointee.isTaken && entry.pointee.generation == id.generation
  }

  /// The peer that has a place now, if any.
  func peer(atPlace index: UInt32) -> PeerID? {
    guard index < UInt32(entries.count), entry(index &+ 1).pointee.isTaken else {
      return nil
    }
    return id(of: index &+ 1)
  }

  /// 32 bytes, the public key of a peer in the table; valid until the peer is removed.
  func key(of id: PeerID) -> UnsafeRawPointer {
    precondition(contains(id))
    // The key's words are the first four fields.
    return UnsafeRawPointer(entry(id.index + 1))
  }

  /// The peer configured first.
  var firstPeer: PeerID? { first == 0 ? nil : id(of: first) }

  /// The peer configured after `id`; nil also where `id` has been removed.
  func peer(after id: PeerID) -> PeerID? {
    guard contains(id) else { return nil }
    let next = entry(id.index + 1).pointee.next
    return next == 0 ? nil : self.id(of: next)
  }

  @inline(__always)
  private func entry(_ place: UInt32) -> UnsafeMutablePointer<PeerEntry> {
    // Places come from the table itself.
    entries.baseAddress.unsafelyUnwrapped + (Int(truncatingIfNeeded: place) &- 1)
  }

  @inline(__always)
  private func id(of place: UInt32) -> PeerID {
    PeerID(index: place &- 1, generation: entry(place).pointee.generation)
  }

  /// The bucket that holds the key, or the empty one where it belongs.
  private func bucket(of key: UnsafeRawPointer) -> Int {
    let key0 = key.loadUnaligned(fromByteOffset: 0, as: UInt64.self)
    let key1 = key.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    let key2 = key.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
    let key3 = key.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
    var bucket = home(of: key0, key1, key2, key3)
    // Half of the buckets are empty, so this ends.
    while buckets[bucket] != 0 {
      let entry = entry(buckets[bucket]).pointee
      if entry.key0 == key0, entry.key1 == key1, entry.key2 == key2, entry.key3 == key3 {
        return bucket
      }
      bucket = (bucket &+ 1) & bucketMask
    }
    return bucket
  }

  /// Takes a place out of its bucket, and moves later ones back into the gap, so that no
  /// tombstones pile up.
  private func emptyBucket(of place: UInt32) {
    var gap = bucket(of: UnsafeRawPointer(entry(place)))
    var bucket = (gap &+ 1) & bucketMask
    while buckets[bucket] != 0 {
      let entry = entry(buckets[bucket]).pointee
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

/// One place of the peer table: the peer's public key, and its neighbours in configuration order.
struct PeerEntry: BitwiseCopyable {
  var key0: UInt64
  var key1: UInt64
  var key2: UInt64
  var key3: UInt64
  /// Odd while a peer lives here; moves on when one comes and when one goes.
  var generation: UInt32
  /// Place + 1 of the next peer, or of the next free place; 0 for none.
  var next: UInt32
  var previous: UInt32
  /// Fills the stride (`Arena.carve`).
  private let padding: UInt32 = 0

  @inline(__always)
  var isTaken: Bool { generation & 1 != 0 }
}

/// Names a peer's place in every per-peer table. The generation tells a place that was given away
/// anew from the removed peer that a batch under way still names.
public struct PeerID: Hashable, Sendable, BitwiseCopyable {
  public var index: UInt32
  public var generation: UInt32

  @inline(__always)
  public init(index: UInt32, generation: UInt32) {
    self.index = index
    self.generation = generation
  }

  /// The peer in 32 bits: those of the index that count, and of the generation what is left. Two
  /// peers that share it are 65,536 removals apart.
  public var sender: UInt32 { index & 0xffff | generation << 16 }

  /// No peer; never a place of the table.
  public static var none: PeerID { PeerID(index: .max, generation: 0) }
}
