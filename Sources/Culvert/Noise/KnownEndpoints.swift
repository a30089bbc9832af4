/// The endpoints from which peers have completed handshakes, so that under load the next handshake
/// of a peer is not lost among those of strangers (R50). A session outlives a cookie, so a peer
/// that renews its session has none.
///
/// It is a set-associative table of hashes: an endpoint is forgotten when four newer ones share its
/// set, and an unknown one is taken for a known one about once in a million times. Neither matters,
/// because this decides only who may wait for a cookie.
struct KnownEndpoints: BitwiseCopyable {
  private static let ways = 4

  /// The hashes, the newest of each set first; 0 for none.
  private let hashes: UnsafeMutablePointer<UInt32>
  private let count: Int
  /// The index of a set is the hash, shifted right by this number of bits.
  private let shift: UInt32
  private var hash = TableHash(seed: 0)

  /// Carves as many sets as there may be peers.
  init(carvingFrom arena: inout Arena, limits: Limits) {
    let sets = powerOfTwo(atLeast: limits.peers)
    count = sets * KnownEndpoints.ways
    shift = UInt32(32 - sets.trailingZeroBitCount)
    hashes = arena.carve(UInt32.self, count: count, owner: "known endpoints").baseAddress!
  }

  /// Empties the table. Must be called once, before anything else.
  ///
  /// - Parameter seed: a random number.
  mutating func prepare(seed: UInt64) {
    hash = TableHash(seed: seed)
    hashes.update(repeating: 0, count: count)
  }

  func contains(_ endpoint: Endpoint) -> Bool {
    let hash = hash(of: endpoint)
    let set = set(of: hash)
    return set[0] == hash || set[1] == hash || set[2] == hash || set[3] == hash
  }

  func insert(_ endpoint: Endpoint) {
    let hash = hash(of: endpoint)
    let set = set(of: hash)
    guard set[0] != hash else { return }
    // To the front. Those before its old place move back by one, or all if it is new.
    var moved = hash
    for way in 0..<KnownEndpoints.ways {
      let present = set[way]
      set[way] = moved
      if present == hash { return }
      moved = present
    }
  }

  private func set(of hash: UInt32) -> UnsafeMutablePointer<UInt32> {
    hashes + Int(hash &>> shift) &* KnownEndpoints.ways
  }

  private func hash(of endpoint: Endpoint) -> UInt32 {
    let address = endpoint.address
    let rest = UInt64(endpoint.port) << 8 | UInt64(address.family.rawValue)
    let hash = hash.hash(address.high, address.low, rest, UInt64(endpoint.scope), 0)
    return hash == 0 ? 1 : hash
  }
}
