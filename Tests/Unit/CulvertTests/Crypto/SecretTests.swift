import Foundation
import Testing

@testable import Culvert

@Suite struct SecretTests {
  @Test func sodiumStarts() {
    #expect(Sodium.start())
    // Starting again is not an error.
    #expect(Sodium.start())
  }

  @Test func R9_wipeZeroes() {
    var bytes = TestVectors.pattern(40, start: 1)
    Secret.wipe(&bytes, byteCount: 32)
    #expect(bytes.prefix(32).allSatisfy { $0 == 0 })
    #expect(Array(bytes[32...]) == Array(TestVectors.pattern(40, start: 1)[32...]))
  }

  @Test func equalAndIsZeroSeeEveryByte() {
    let a = TestVectors.pattern(33, start: 1)
    #expect(Secret.equal(a, a, byteCount: 33))
    for index in 0..<33 {
      var b = a
      b[index] ^= 0x80
      #expect(!Secret.equal(a, b, byteCount: 33))
      #expect(Secret.equal(a, b, byteCount: index))
      var zeros = [UInt8](repeating: 0, count: 33)
      #expect(Secret.isZero(zeros, byteCount: 33))
      zeros[index] = 1
      #expect(!Secret.isZero(zeros, byteCount: 33))
    }
  }

  /// Times cannot be measured reliably here, so this test reads the sources: bytes are compared
  /// only by libsodium's constant-time calls, and so is every MAC.
  @Test func R35_comparisonsAreConstantTime() throws {
    let sources = repositoryRoot.appendingPathComponent("Sources")
    let shim = try String(
      contentsOf: sources.appendingPathComponent("CSodium/shim.h"), encoding: .utf8)
    #expect(shim.contains("return sodium_memcmp("))
    #expect(shim.contains("return sodium_is_zero("))
    var names: [String] = []
    for folder in ["Crypto", "Noise"] {
      let path = sources.appendingPathComponent("Culvert/" + folder)
      for name in try FileManager.default.contentsOfDirectory(atPath: path.path) {
        guard name.hasSuffix(".swift") else { continue }
        names.append(name)
        let text = try String(contentsOf: path.appendingPathComponent(name), encoding: .utf8)
        for forbidden in ["memcmp", "elementsEqual", "lexicographicallyPrecedes"] {
          #expect(!text.contains(forbidden), "\(name) compares with \(forbidden)")
        }
        // Two MACs are compared; both go through `Secret.equal`.
        if name == "Cookies.swift" {
          #expect(text.components(separatedBy: "Secret.equal(").count == 3)
        }
      }
    }
    #expect(names.contains("Secret.swift"))
  }
}

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

/// The reference vectors of SipHash-2-4 (Aumasson, Bernstein 2012, appendix A).
@Suite struct KeyedHashTests {
  static let hash = KeyedHash(key0: 0x0706_0504_0302_0100, key1: 0x0f0e_0d0c_0b0a_0908)

  @Test func referenceVectors() {
    let input = TestVectors.pattern(16, start: 0, step: 1)
    #expect(KeyedHashTests.hash.hash(input, byteCount: 0) == 0x726f_db47_dd0e_0e31)
    #expect(KeyedHashTests.hash.hash(input, byteCount: 15) == 0xa129_ca61_49be_45e5)
    #expect(
      KeyedHashTests.hash.hash(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908)
        == 0x3f2a_cc7f_57c2_9bdb)
  }

  @Test func anotherKeyIsAnotherFunction() {
    var random = Entropy.seeded(1)
    let (first, second) = (KeyedHash(key: &random), KeyedHash(key: &random))
    #expect(first.hash(1, 2) != second.hash(1, 2))
    #expect(first.hash(1, 2) != first.hash(2, 1))
  }
}
