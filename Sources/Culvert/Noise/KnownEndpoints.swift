/// The endpoints of peers, set by the user or learned, so that under load the next handshake of a
/// peer is not lost among those of strangers (R50). A session outlives a cookie, so a peer that
/// renews its session has none.
///
/// It is a set-associative table of hashes: an endpoint is forgotten when four newer ones share its
/// set, and an unknown one is taken for a known one about once in a million times. Neither matters,
/// because this decides only who may wait for a cookie.
struct KnownEndpoints: BitwiseCopyable {
  private struct Entry: BitwiseCopyable {
    /// 0 if the entry is unused.
    var hash: UInt32 = 0
    /// The second of the last permission, modulo 2^32; 0 if there was none.
    var second: UInt32 = 0
  }

  private static let ways = 4

  /// The newest of each set first.
  private let entries: UnsafeMutablePointer<Entry>
  private let count: Int
  /// The index of a set is the hash, shifted right by this number of bits.
  private let shift: UInt32
  private var hash = TableHash(seed: 0)

  /// Carves as many sets as there may be peers.
  init(carvingFrom arena: inout Arena, limits: Limits) {
    let sets = powerOfTwo(atLeast: limits.peers)
    count = sets * KnownEndpoints.ways
    shift = UInt32(32 - sets.trailingZeroBitCount)
    entries = arena.carve(Entry.self, count: count, owner: "known endpoints").baseAddress!
  }

  /// Empties the table. Must be called once, before anything else.
  ///
  /// - Parameter seed: a random number.
  mutating func prepare(seed: UInt64) {
    hash = TableHash(seed: seed)
    entries.update(repeating: Entry(), count: count)
  }

  func contains(_ endpoint: Endpoint) -> Bool { find(hash(of: endpoint)) != nil }

  /// Whether a message from this endpoint may take the slot of another: once in each second, so
  /// that a hostile peer cannot take all of them.
  func allow(_ endpoint: Endpoint, at now: Instant) -> Bool {
    guard let entry = find(hash(of: endpoint)) else { return false }
    let second = UInt32(truncatingIfNeeded: now.nanoseconds / nanosecondsPerSecond &+ 1)
    defer { entry.pointee.second = second }
    return entry.pointee.second != second
  }

  func insert(_ endpoint: Endpoint) {
    let hash = hash(of: endpoint)
    let set = set(of: hash)
    guard set[0].hash != hash else { return }
    // To the front. Those before its old place move back by one, or all if it is new.
    var moved = Entry(hash: hash, second: find(hash)?.pointee.second ?? 0)
    for way in 0..<KnownEndpoints.ways {
      let present = set[way]
      set[way] = moved
      if present.hash == hash { return }
      moved = present
    }
  }

  private func find(_ hash: UInt32) -> UnsafeMutablePointer<Entry>? {
    let set = set(of: hash)
    for way in 0..<KnownEndpoints.ways where set[way].hash == hash { return set + way }
    return nil
  }

  private func set(of hash: UInt32) -> UnsafeMutablePointer<Entry> {
    entries + Int(hash &>> shift) &* KnownEndpoints.ways
  }

  private func hash(of endpoint: Endpoint) -> UInt32 {
    let address = endpoint.address
    let rest = UInt64(endpoint.port) << 8 | UInt64(address.family.rawValue)
    let hash = hash.hash(address.high, address.low, rest, UInt64(endpoint.scope), 0)
    return hash == 0 ? 1 : hash
  }
}
