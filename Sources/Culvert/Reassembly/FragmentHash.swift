/// A hash for tables that strangers can fill: without the seed nobody can choose keys that meet
/// in one bucket more often than chance has it.
///
/// Each word of input costs one multiplication ("pair-multiply-shift" in Thorup, "High speed
/// hashing for integers and strings"). It is of 64 bits, so it suits small CPUs too.
struct FragmentHash: BitwiseCopyable {
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

  @inline(never)
  init(seed: UInt64) {
    var state = seed
    secret0 = FragmentHash.next(&state)
    secret1 = FragmentHash.next(&state)
    secret2 = FragmentHash.next(&state)
    secret3 = FragmentHash.next(&state)
    secret4 = FragmentHash.next(&state)
    secret5 = FragmentHash.next(&state)
    secret6 = FragmentHash.next(&state)
    secret7 = FragmentHash.next(&state)
    secret8 = FragmentHash.next(&state)
    secret9 = FragmentHash.next(&state)
  }

  /// A bucket, 0 up to `1 << bits`, of 1-32 bits.
  @inline(__always)
  func bucket(of key: FragmentKey, bits: UInt64) -> Int {
    var sum =
      FragmentHash.product(key.word0, secret0, secret1)
      &+ FragmentHash.product(key.tail, secret2, secret3)
    if key.family == .ipv6 {
      sum &+= FragmentHash.product(key.word1, secret4, secret5)
      sum &+= FragmentHash.product(key.word2, secret6, secret7)
      sum &+= FragmentHash.product(key.word3, secret8, secret9)
    }
    return Int(truncatingIfNeeded: sum &>> (64 &- bits))
  }

  /// The same for two words.
  @inline(__always)
  func bucket(of first: UInt64, _ second: UInt64, bits: UInt64) -> Int {
    let sum =
      FragmentHash.product(first, secret4, secret5)
      &+ FragmentHash.product(second, secret6, secret7)
    return Int(truncatingIfNeeded: sum &>> (64 &- bits))
  }

  @inline(__always)
  private static func product(_ word: UInt64, _ even: UInt64, _ odd: UInt64) -> UInt64 {
    (even &+ (word & 0xffff_ffff)) &* (odd &+ (word &>> 32))
  }

  /// SplitMix64 (Steele, Lea, Flood 2014).
  private static func next(_ state: inout UInt64) -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var word = state
    word = (word ^ (word &>> 30)) &* 0xbf58_476d_1ce4_e5b9
    word = (word ^ (word &>> 27)) &* 0x94d0_49bb_1331_11eb
    return word ^ (word &>> 31)
  }
}
