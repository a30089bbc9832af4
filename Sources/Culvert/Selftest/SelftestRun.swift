/// A running group of the self-test: its memory, its inputs and its digest. The groups themselves
/// are in the `SelftestRun+` files, by subject.
struct SelftestRun: ~Copyable {
  var digest = SelftestDigest()
  var random: Entropy
  var arena: Arena

  init(memory: UnsafeMutableRawBufferPointer, seed: UInt64) {
    random = .seeded(seed)
    arena = Arena(region: memory)
  }

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
  mutating func bytes(_ byteCount: Int) -> UnsafeMutableRawPointer {
    arena.carveBytes(byteCount, owner: "selftest").baseAddress!
  }

  /// Random bytes from the seeded stream.
  mutating func randomBytes(_ byteCount: Int) -> UnsafeMutableRawPointer {
    let bytes = bytes(byteCount)
    random.fill(bytes, byteCount: byteCount)
    return bytes
  }

  /// A number below `bound`, a power of two.
  mutating func number(below bound: Int) -> Int {
    Int(truncatingIfNeeded: random.uint64() & UInt64(bound - 1))
  }

  /// The numbers around which integers overflow: each power of two and its neighbours.
  static let edgeCount = 3 * 64 + 1

  static func edge(_ index: Int) -> UInt64 {
    let power: UInt64 = 1 &<< UInt64(truncatingIfNeeded: index / 3)
    return index == edgeCount - 1 ? .max : power &- 1 &+ UInt64(truncatingIfNeeded: index % 3)
  }
}

/// The hash over the results of a group.
struct SelftestDigest: ~Copyable {
  private var hash = BLAKE2s()

  mutating func add(_ bytes: UnsafeRawPointer, byteCount: Int) {
    hash.update(bytes, byteCount: byteCount)
  }

  /// Eight bytes, little-endian.
  mutating func add(_ number: UInt64) {
    withUnsafeBytes(of: number.littleEndian) { hash.update($0) }
  }

  mutating func add(_ isTrue: Bool) {
    add(isTrue ? 1 : 0)
  }

  /// Ends the digest and returns the hash's first eight bytes as a big-endian number.
  mutating func finish() -> UInt64 {
    var bytes = Key.zero
    withUnsafeMutableBytes(of: &bytes) { hash.finish(into: $0.baseAddress!) }
    return UInt64(bigEndian: bytes.word0)
  }
}
