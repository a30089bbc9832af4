/// Maps receiver indices to peers and their handshakes or sessions: a hash table with open
/// addressing. Our indices are random (R6), so an index is used as its own hash, and an attacker
/// cannot crowd a bucket.
struct IndexTable: ~Copyable {
  struct Entry: BitwiseCopyable {
    /// What the index refers to. The caller defines the values (`IndexKind`).
    var kind: UInt8
    var peer: PeerID
    /// 0 marks an empty bucket.
    fileprivate(set) var index: UInt32
  }

  private let buckets: UnsafeMutableBufferPointer<Entry>
  private let mask: Int
  private(set) var count = 0

  static let owner: StaticString = "receiver indices"
  /// One for the handshake, and one for each of the three keypairs (previous, current, next).
  static let indicesPerPeer = 4
  /// Every entry is closer to its home bucket than this, which limits the work for a datagram.
  private static let maximumProbeCount = 64

  init(carvingFrom arena: inout Arena, limits: Limits) {
    let bucketCount = powerOfTwo(atLeast: 2 * IndexTable.indicesPerPeer * limits.peers)
    buckets = arena.carve(Entry.self, count: bucketCount, owner: IndexTable.owner)
    mask = bucketCount - 1
  }

  /// Empties the table. Must be called once, before anything else.
  mutating func prepare() {
    let empty = Entry(kind: 0, peer: PeerID(index: 0, generation: 0), index: 0)
    buckets.initialize(repeating: empty)
    count = 0
  }

  /// The largest number of entries, half the number of buckets.
  var capacity: Int { buckets.count / 2 }
  var isFull: Bool { count >= capacity }

  /// Inserts the index `candidate`, which the caller has drawn at random.
  ///
  /// - Returns: false if the index is taken or reserved (0), if its neighbourhood is crowded, or if
  ///   the table is full. Unless `isFull`, the caller draws another index.
  mutating func insert(_ candidate: UInt32, peer: PeerID, kind: UInt8) -> Bool {
    guard candidate != 0, !isFull else { return false }
    var bucket = home(of: candidate)
    for _ in 0..<IndexTable.maximumProbeCount {
      let index = buckets[bucket].index
      if index == candidate { return false }
      if index == 0 {
        buckets[bucket] = Entry(kind: kind, peer: peer, index: candidate)
        count += 1
        return true
      }
      bucket = (bucket &+ 1) & mask
    }
    return false
  }

  /// The entry for an index from the network.
  @inline(__always)
  func find(_ index: UInt32) -> Entry? {
    guard let bucket = bucket(of: index) else { return nil }
    return buckets[bucket]
  }

  /// Changes what an index refers to, from a handshake to the resulting keypair. Returns false if
  /// there is no such index.
  @discardableResult
  func setKind(_ kind: UInt8, of index: UInt32) -> Bool {
    guard let bucket = bucket(of: index) else { return false }
    buckets[bucket].kind = kind
    return true
  }

  /// Removes an index. Returns false if there is no such index.
  @discardableResult
  mutating func remove(_ index: UInt32) -> Bool {
    guard var gap = bucket(of: index) else { return false }
    // Later entries are moved back into the gap, so that no tombstones are needed.
    var bucket = (gap &+ 1) & mask
    while buckets[bucket].index != 0 {
      let distance = (bucket &- home(of: buckets[bucket].index)) & mask
      if distance >= (bucket &- gap) & mask {
        buckets[gap] = buckets[bucket]
        gap = bucket
      }
      bucket = (bucket &+ 1) & mask
    }
    buckets[gap].index = 0
    count -= 1
    return true
  }

  @inline(__always)
  private func home(of index: UInt32) -> Int {
    Int(truncatingIfNeeded: index) & mask
  }

  @inline(__always)
  private func bucket(of index: UInt32) -> Int? {
    guard index != 0 else { return nil }
    var bucket = home(of: index)
    for _ in 0..<IndexTable.maximumProbeCount {
      let found = buckets[bucket].index
      if found == index { return bucket }
      if found == 0 { return nil }
      bucket = (bucket &+ 1) & mask
    }
    return nil
  }
}
