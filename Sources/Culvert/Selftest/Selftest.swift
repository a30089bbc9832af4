/// `culvert selftest`: known answers for everything that a compiler, a CPU or a library could get
/// wrong, checked on the device itself.
///
/// A group hashes the results of the code under test for seeded inputs, and the first eight bytes
/// of the hash are compared with `SelftestGroup.expected`. These come from independent code: from
/// Tests/Selftest, which works them out from the specifications, and for the reassembler from the
/// naive model in the unit tests.
package enum Selftest {
  /// Bytes that `digest` needs: the tables of the largest group.
  package static let memoryByteCount = 640 << 10

  /// Extends the digest over all groups so far, 0 before the first, by that of the next group. The
  /// digest over all groups is the same on every board and in both builds.
  package static func chain(_ total: UInt64, _ digest: UInt64) -> UInt64 {
    var chain = SelftestDigest()
    chain.add(total)
    chain.add(digest)
    return chain.finish()
  }

  /// The digest of one group.
  ///
  /// - Parameter memory: `memoryByteCount` bytes, page-aligned, which are overwritten.
  package static func digest(
    of group: SelftestGroup, memory: UnsafeMutableRawBufferPointer
  ) -> UInt64 {
    memory.initializeMemory(as: UInt8.self, repeating: 0)
    var run = SelftestRun(memory: memory, seed: UInt64(group.rawValue))
    run.run(group)
    return run.digest.finish()
  }
}

/// The groups of the self-test, in the order in which they run.
package enum SelftestGroup: UInt8, Sendable {
  case blake2s
  case hmac
  case hkdf
  case siphash
  case x25519
  case aead
  case xaead
  case handshake
  case handshakePresharedKey
  case timers
  case replay
  case routing
  case time
  case checksum
  case fragments
  case reassembly
  case text
  case configuration

  /// Raw values are 0 up to this. (`CaseIterable` would bring an array, and with it an allocation.)
  package static let count = configuration.rawValue + 1

  package var name: StaticString {
    switch self {
    case .blake2s: "blake2s"
    case .hmac: "hmac"
    case .hkdf: "hkdf"
    case .siphash: "siphash"
    case .x25519: "x25519"
    case .aead: "chacha20-poly1305"
    case .xaead: "xchacha20-poly1305"
    case .handshake: "handshake"
    case .handshakePresharedKey: "handshake-psk"
    case .timers: "timers"
    case .replay: "replay-window"
    case .routing: "allowed-ips"
    case .time: "time"
    case .checksum: "checksum"
    case .fragments: "fragmenter"
    case .reassembly: "reassembler"
    case .text: "text"
    case .configuration: "configuration"
    }
  }

  /// The digest that Tests/Selftest works out; for the reassembler, the unit tests.
  package var expected: UInt64 {
    switch self {
    case .blake2s: 0x89dc_e2ba_80cc_f8b2
    case .hmac: 0xc74b_c8c3_a340_bd09
    case .hkdf: 0x25ce_3515_e63c_85a7
    case .siphash: 0xc724_a9c6_6af4_29de
    case .x25519: 0x3d4d_3c24_f5c1_2e43
    case .aead: 0x83aa_9171_eb3b_f6e0
    case .xaead: 0x3430_4a79_f381_7339
    case .handshake: 0xff1b_9315_5f9b_4314
    case .handshakePresharedKey: 0x2d26_06bd_6c0c_e79b
    case .timers: 0x87b5_bdff_3257_f935
    case .replay: 0x89b0_9952_8291_208f
    case .routing: 0xda83_730c_5d2e_87a2
    case .time: 0xed2c_9a27_ee23_d8ec
    case .checksum: 0xe634_7a0d_7cfe_cd2e
    case .fragments: 0xf638_d33e_028d_5f2a
    case .reassembly: 0xd320_6539_6879_aab1
    case .text: 0xc7df_3a73_94b7_1b64
    case .configuration: 0xfe32_2ab2_4beb_5a67
    }
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

  /// The hash's first eight bytes, as a big-endian number. Ends the digest.
  mutating func finish() -> UInt64 {
    var bytes = Key.zero
    withUnsafeMutableBytes(of: &bytes) { hash.finish(into: $0.baseAddress!) }
    return UInt64(bigEndian: bytes.word0)
  }
}

/// A group of the self-test while it runs: its memory, its inputs and its digest. The groups are in
/// the `SelftestRun+` file of their subject.
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

  /// Random bytes of the seed's stream.
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
