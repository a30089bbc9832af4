/// One group of the self-test under way: its memory, its inputs and its digest. The groups stand in
/// the files of their subject.
struct SelftestRun: ~Copyable {
  var digest = SelftestDigest()
  var random: Entropy
  var arena: Arena

  @_optimize(size)
  init(memory: UnsafeMutableRawBufferPointer, seed: UInt64) {
    random = .seeded(seed)
    arena = Arena(region: memory)
  }

  @_optimize(size)
  mutating func run(_ group: SelftestGroup) {
    switch group {
    case .blake2s: blake2s()
    case .hmac: hmac()
    case .hkdf: hkdf()
    case .siphash: siphash()
    case .x25519: x25519()
    case .aead: aead()
    case .xaead: xaead()
    case .handshake: handshake(hasPresharedKey: false)
    case .handshakePresharedKey: handshake(hasPresharedKey: true)
    case .timers: timers()
    case .replay: replay()
    case .routing: routing()
    case .time: time()
    case .checksum: checksum()
    case .fragments: fragments()
    case .reassembly: reassembly()
    case .text: text()
    case .configuration: configuration()
    }
  }

  /// Zeroed bytes.
  @inline(never)
  @_optimize(size)
  mutating func bytes(_ byteCount: Int) -> UnsafeMutableRawPointer {
    arena.carveBytes(byteCount, owner: "selftest").baseAddress!
  }

  /// Bytes off the seed's stream.
  @inline(never)
  @_optimize(size)
  mutating func randomBytes(_ byteCount: Int) -> UnsafeMutableRawPointer {
    let bytes = bytes(byteCount)
    random.fill(bytes, byteCount: byteCount)
    return bytes
  }

  /// A number below `bound`, a power of two.
  @inline(never)
  @_optimize(size)
  mutating func number(below bound: Int) -> Int {
    Int(truncatingIfNeeded: random.uint64() & UInt64(bound - 1))
  }

  /// The numbers at which an integer of some width ends: each power of two, and its neighbours.
  static let edgeCount = 3 * 64 + 1

  @_optimize(size)
  static func edge(_ index: Int) -> UInt64 {
    let power: UInt64 = 1 &<< UInt64(truncatingIfNeeded: index / 3)
    return index == edgeCount - 1 ? .max : power &- 1 &+ UInt64(truncatingIfNeeded: index % 3)
  }
}
