/// Finds the peer, and which of its handshakes or sessions, that a receiver index names: a hash
/// table with open addressing. Indices are random (R6), so an index is its own hash, and nobody
/// outside can crowd a bucket.
struct IndexTable: ~Copyable {
  struct Entry: BitwiseCopyable {
    /// What the index names; its meaning is the user's (`IndexKind`).
    var kind: UInt8
    var peer: PeerID
    /// 0 marks an empty bucket.
    fileprivate(set) var index: UInt32
  }

  private let buckets: UnsafeMutableBufferPointer<Entry>
  private let mask: Int
  private(set) var count = 0

  static let owner: StaticString = "receiver indices"
  /// A handshake and the previous, current and next keypair.
  static let indicesPerPeer = 4
  /// No entry is further from its home bucket than this, which bounds the work for any datagram.
  private static let maximumProbeCount = 64

  init(carvingFrom arena: inout Arena, limits: Limits) {
    let bucketCount = powerOfTwo(atLeast: 2 * IndexTable.indicesPerPeer * limits.peers)
    buckets = arena.carve(Entry.self, count: bucketCount, owner: IndexTable.owner)
    mask = bucketCount - 1
  }

  /// Empties the table. Called once, before anything else.
  mutating func prepare() {
    let empty = Entry(kind: 0, peer: PeerID(index: 0, generation: 0), index: 0)
    buckets.initialize(repeating: empty)
    count = 0
  }

  /// Half of the buckets.
  var capacity: Int { buckets.count / 2 }
  var isFull: Bool { count >= capacity }

  /// Inserts the index `candidate`, which the caller drew at random.
  ///
  /// - Returns: false if the index is taken, reserved (0) or crowded, or if the table is full;
  ///   unless `isFull`, the caller draws again.
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

  /// What an index from the network names.
  @inline(__always)
  func find(_ index: UInt32) -> Entry? {
    guard let bucket = bucket(of: index) else { return nil }
    return buckets[bucket]
  }

  /// Changes what an index names, from a handshake to the keypair that results. False if there is
  /// no such index.
  @discardableResult
  func setKind(_ kind: UInt8, of index: UInt32) -> Bool {
    guard let bucket = bucket(of: index) else { return false }
    buckets[bucket].kind = kind
    return true
  }

  /// Removes an index; false if there is no such index.
  @discardableResult
  mutating func remove(_ index: UInt32) -> Bool {
    guard var gap = bucket(of: index) else { return false }
    // Later entries move back into the gap, so that no tombstones accumulate.
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
