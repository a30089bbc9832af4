import Testing

@testable import Culvert

@Suite struct EntropyTests {
  /// The reference values of SplitMix64 for the seed 1234567.
  @Test func seededStreamIsSplitMix64() {
    var random = Entropy.seeded(1_234_567)
    #expect(random.uint64() == 6_457_827_717_110_365_317)
    #expect(random.uint64() == 3_203_168_211_198_807_973)
    #expect(random.uint64() == 9_817_491_932_198_370_423)
  }

  @Test func fillWritesExactlyWhatWasAskedFor() {
    for count in [0, 1, 7, 8, 9, 32] {
      for source in [Entropy.seeded(3), Entropy.sodium] {
        var random = source
        var bytes = [UInt8](repeating: 0, count: 40)
        random.fill(&bytes, byteCount: count)
        #expect(bytes[count...].allSatisfy { $0 == 0 })
        if count == 32 { #expect(!bytes[24..<32].allSatisfy { $0 == 0 }) }
      }
    }
  }

  @Test func aSourceIsAskedForEveryWord() {
    var random = Entropy.system { bytes, count in
      bytes.initializeMemory(as: UInt8.self, repeating: 0xab, count: count)
    }
    #expect(random.uint64() == 0xabab_abab_abab_abab)
    #expect(random.uint32() == 0xabab_abab)
    #expect(Set((0..<100).map { _ in Entropy.sodiumWord }).count == 100)
  }

  @Test func belowIsInRangeAndReachesAll() {
    var random = Entropy.seeded(11)
    #expect(random.below(0) == 0)
    #expect(random.below(1) == 0)
    for bound: UInt64 in [2, 3, 5, 16, 17, 334] {
      var seen = Set<UInt64>()
      for _ in 0..<(40 * Int(bound)) { seen.insert(random.below(bound)) }
      #expect(seen.max()! < bound)
      #expect(seen.count == Int(bound))
    }
    for _ in 0..<100 { #expect(random.below(.max) < .max) }
  }

  @Test func belowFavoursNoNumber() {
    var random = Entropy.seeded(12)
    var counts = [Int](repeating: 0, count: 17)
    for _ in 0..<17_000 { counts[Int(random.below(17))] += 1 }
    // 1000 each, give or take five standard deviations.
    #expect(counts.allSatisfy { $0 > 845 && $0 < 1155 }, "\(counts)")
  }

  @Test func aBrokenSourceDoesNotHang() {
    var stuck = Entropy.system { bytes, count in
      bytes.initializeMemory(as: UInt8.self, repeating: 0xff, count: count)
    }
    #expect(stuck.below(5) == 0)
  }
}

extension Entropy {
  fileprivate static var sodiumWord: UInt64 {
    var random = Entropy.sodium
    return random.uint64()
  }
}
