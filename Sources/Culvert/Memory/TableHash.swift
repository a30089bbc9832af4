/// A hash for tables whose keys an attacker can choose. Without the seed, nobody can find keys that
/// collide in a bucket more often than by chance.
///
/// Each word of a key costs one 64-bit multiplication, which is cheap on small CPUs too
/// ("pair-multiply-shift" in Thorup, "High speed hashing for integers and strings"). The protection
/// lasts only as long as nobody sees the results; for values that others see, use `KeyedHash`.
struct TableHash: BitwiseCopyable {
  private let secret0: UInt64
  private let secret1: UInt64
  private let secret2: UInt64
  private let secret3: UInt64
  private let secret4: UInt64
  private let secret5: UInt64
  private let secret6: UInt64
  private let secret7: UInt64
  private let secret8: UInt64
  private let secret9: UInt64

  /// - Parameter seed: random.
  init(seed: UInt64) {
    var secrets = SplitMix64(seed: seed)
    secret0 = secrets.next()
    secret1 = secrets.next()
    secret2 = secrets.next()
    secret3 = secrets.next()
    secret4 = secrets.next()
    secret5 = secrets.next()
    secret6 = secrets.next()
    secret7 = secrets.next()
    secret8 = secrets.next()
    secret9 = secrets.next()
  }

  /// The hash of a key of two words. A table of 2^n buckets uses the upper n bits.
  @inline(__always)
  func hash(_ a: UInt64, _ b: UInt64) -> UInt32 {
    TableHash.fold(sum(a, b))
  }

  /// The hash of a key of five words.
  @inline(__always)
  func hash(_ a: UInt64, _ b: UInt64, _ c: UInt64, _ d: UInt64, _ e: UInt64) -> UInt32 {
    TableHash.fold(
      sum(a, b) &+ TableHash.product(c, secret4, secret5)
        &+ TableHash.product(d, secret6, secret7) &+ TableHash.product(e, secret8, secret9))
  }

  @inline(__always)
  private func sum(_ a: UInt64, _ b: UInt64) -> UInt64 {
    TableHash.product(a, secret0, secret1) &+ TableHash.product(b, secret2, secret3)
  }

  @inline(__always)
  private static func product(_ word: UInt64, _ even: UInt64, _ odd: UInt64) -> UInt64 {
    (even &+ (word & 0xffff_ffff)) &* (odd &+ (word &>> 32))
  }

  /// Only the upper half of a sum is evenly distributed.
  @inline(__always)
  private static func fold(_ sum: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: sum &>> 32) }
}

/// SplitMix64 (Steele, Lea, Flood 2014): a stream of numbers that depends only on its seed. Anyone
/// who sees one number can compute the others, so it is never used for keys.
struct SplitMix64: BitwiseCopyable, Sendable {
  private var state: UInt64

  init(seed: UInt64) {
    state = seed
  }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    return SplitMix64.mix(state)
  }

  /// The stream's finaliser: maps words one to one, and every bit of the result depends on every
  /// bit of the word.
  @inline(__always)
  static func mix(_ word: UInt64) -> UInt64 {
    var word = (word ^ word &>> 30) &* 0xbf58_476d_1ce4_e5b9
    word = (word ^ word &>> 27) &* 0x94d0_49bb_1331_11eb
    return word ^ word &>> 31
  }
}

/// The smallest power of two that is at least `count` and at least 2: the size of a hash table.
func powerOfTwo(atLeast count: Int) -> Int {
  var power = 2
  while power < count { power *= 2 }
  return power
}
