import Foundation
import Testing

@testable import Culvert

@Suite struct BLAKE2sTests {
  static func digest(_ input: [UInt8], byteCount: Int = 32, key: [UInt8] = []) -> [UInt8] {
    var output = [UInt8](repeating: 0xee, count: byteCount)
    if key.isEmpty {
      var hash = BLAKE2s(byteCount: byteCount)
      input.withUnsafeBytes { hash.update($0) }
      hash.finish(into: &output)
    } else {
      var hash = BLAKE2s(byteCount: byteCount, key: key, keyByteCount: key.count)
      input.withUnsafeBytes { hash.update($0) }
      hash.finish(into: &output)
    }
    return output
  }

  @Test func rfc7693AppendixB() {
    #expect(
      BLAKE2sTests.digest(Array("abc".utf8))
        == TestVectors.bytes("508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"))
    #expect(
      BLAKE2sTests.digest([])
        == TestVectors.bytes("69217a3079908094e11121d042354a7c1f55b6482ca1a51e1b250dfd1ed0eef9"))
  }

  /// RFC 7693 appendix E: a hash over digests of all interesting lengths, plain and keyed.
  @Test func rfc7693AppendixE() {
    func sequence(_ count: Int, seed: UInt32) -> [UInt8] {
      var a = 0xdead_4bad &* seed
      var b: UInt32 = 1
      return (0..<count).map { _ in
        (a, b) = (b, a &+ b)
        return UInt8(b >> 24)
      }
    }
    var all: [UInt8] = []
    for byteCount in [16, 20, 28, 32] {
      for count in [0, 3, 64, 65, 255, 1024] {
        let input = sequence(count, seed: UInt32(count))
        all += BLAKE2sTests.digest(input, byteCount: byteCount)
        let key = sequence(byteCount, seed: UInt32(byteCount))
        all += BLAKE2sTests.digest(input, byteCount: byteCount, key: key)
      }
    }
    #expect(
      BLAKE2sTests.digest(all)
        == TestVectors.bytes("6a411f08ce25adcdfb02aba641451cec53c598b24f4fc787fbdc88797f4c1dfe"))
  }

  @Test(.enabled(if: TestVectors.exists("blake2s-kat.txt"), "no ../shared/vectors"))
  func knownAnswersOfBLAKE2() {
    let text = String(decoding: TestVectors.file("blake2s-kat.txt")!, as: UTF8.self)
    var input: [UInt8] = []
    var key: [UInt8] = []
    var count = 0
    for line in text.split(separator: "\n") {
      let field = line.split(separator: ":", omittingEmptySubsequences: false)
      let value = TestVectors.bytes(String(field[1]))
      switch field[0] {
      case "in": input = value
      case "key": key = value
      default:
        count += 1
        #expect(BLAKE2sTests.digest(input, key: key) == value, "case \(count)")
      }
    }
    #expect(count >= 256)
  }

  /// The digest does not depend on how the input is split, or on its alignment.
  @Test func piecesAndAlignmentDoNotMatter() {
    var random = Entropy.seeded(7)
    for count in [0, 1, 63, 64, 65, 127, 128, 129, 500] {
      let input = TestVectors.pattern(count + 1, start: 3)
      let whole = BLAKE2sTests.digest(Array(input[1...]))
      for _ in 0..<20 {
        var hash = BLAKE2s()
        input.withUnsafeBytes { bytes in
          var at = 1
          while at <= count {
            let piece = Int(random.below(UInt64(min(130, count - at + 1)))) + 1
            hash.update(bytes.baseAddress! + at, byteCount: piece)
            at += piece
          }
        }
        var output = [UInt8](repeating: 0, count: 32)
        hash.finish(into: &output)
        #expect(output == whole)
      }
    }
  }

  @Test func hashOfTwoPartsMayLandOnItsInput() {
    let a = TestVectors.pattern(32, start: 9)
    let b = TestVectors.pattern(48, start: 1)
    var output = a
    output.withUnsafeMutableBytes { output in
      b.withUnsafeBytes { b in
        BLAKE2s.hash(into: output.baseAddress!, UnsafeRawBufferPointer(output), b)
      }
    }
    #expect(output == BLAKE2sTests.digest(a + b))
  }

  /// Expected values from Python's hashlib.blake2s.
  @Test func macIsKeyedAndSixteenBytes() {
    var mac = [UInt8](repeating: 0, count: 16)
    BLAKE2s.mac(
      into: &mac, key: TestVectors.pattern(32, start: 6), keyByteCount: 32,
      message: TestVectors.pattern(116, start: 5), byteCount: 116)
    #expect(mac == TestVectors.bytes("ed5f835cf61986bda5a92a48742c6e16"))
    BLAKE2s.mac(
      into: &mac, key: TestVectors.pattern(16, start: 6), keyByteCount: 16,
      message: TestVectors.pattern(132, start: 5), byteCount: 132)
    #expect(mac == TestVectors.bytes("e1e5c6de6c3dc4a56a43a7096a999ca5"))
  }

  @Test func R9_finishWipesTheHash() {
    let key = [UInt8](repeating: 0x5a, count: 32)
    var hash = BLAKE2s(key: key, keyByteCount: 32)
    var digest = [UInt8](repeating: 0, count: 32)
    hash.finish(into: &digest)
    withUnsafeBytes(of: &hash) { bytes in
      // Only the digest's length is left, in the last word of the state.
      #expect(bytes.dropLast(8).allSatisfy { $0 == 0 })
    }
  }
}

/// Expected values from Python's hmac over hashlib.blake2s.
@Suite struct HKDFTests {
  @Test(arguments: [
    (0, 0, "eaf4bb25938f4d20e72656bbbc7a9bf63c0c18537333c35bdb67db1402661acd"),
    (20, 8, "6b00e1c7981b280ca817ca0c5e0f009e5a9a400e034b6dbbb008a269610cf436"),
    (32, 50, "71d538aeca022a69772645a6aaf17a3d5795dbdcfc96b884b94db87c7880134b"),
    (64, 64, "8fb9df80b52dc3cdcd4113014d73bba9e9792ed9e52e1b71146688de0785a602"),
    (32, 131, "40782044b05f1382a93d3b462b8aaa30dfbf598532d0e6bcee04efd11b797519"),
  ])
  func hmac(keyByteCount: Int, byteCount: Int, expected: String) {
    let key = TestVectors.pattern(keyByteCount, start: 1)
    let input = TestVectors.pattern(byteCount, start: 2)
    var mac = [UInt8](repeating: 0, count: 32)
    let half = byteCount / 2
    input.withUnsafeBytes { input in
      HMAC.authenticate(
        into: &mac, key: key, keyByteCount: keyByteCount,
        UnsafeRawBufferPointer(rebasing: input[..<half]),
        UnsafeRawBufferPointer(rebasing: input[half...]))
    }
    #expect(mac == TestVectors.bytes(expected))
  }

  struct Answer: Sendable {
    let byteCount: Int
    let first, second, third: String
  }

  static let answers = [
    Answer(
      byteCount: 0,
      first: "496aeaedeeeefe03e531b662dc0e24abea1e823ec82139d3be872d9ae91bf23e",
      second: "a7838d2a32fa536866ef113833f0c8c5a8577cc474374474f67b9e338f13b19b",
      third: "790e04448fb9bf21ec0e4f88b17130be59d8fa2c739ff4a83ff34c1fee3e275b"),
    Answer(
      byteCount: 1,
      first: "23f41b3c8f9d0a5da33472e3fc6f6764127c419a22558714c802513c76d6e534",
      second: "d7f86004eb65a7e9a4b9c60b8f719ae18e0a3c1e56eb80f9283777306b34080a",
      third: "265d010f9c259653414f371dc3de80ddc5103eba02e42e9524157fd961297ee0"),
    Answer(
      byteCount: 32,
      first: "b7407d177c1eed69fc3cff68929511c6aff08e4e7fcadc35a6949c00c8048eed",
      second: "3c11686c8d4bfaea1f0a73949a37f9e50969c5bc4c9fc47899dbbe2742d67708",
      third: "ea854093efc322fa8aa65af49aa33ef43e22ebe07ea1f4cf0d4291fc56da6e7a"),
    Answer(
      byteCount: 100,
      first: "a9b41271e917e31306280e0bab9863a162d19726974c8173ed50700bbd0505d3",
      second: "e52e2b7df13ad4f92c704eab7ce368196ef053a1d35195c6cbdea2c3f3f074a4",
      third: "abaf8963f6640040714f1e8f83cdde7b1d79ebfdb4a1bc8398783c537468f1a0"),
  ]

  @Test(arguments: answers)
  func kdf1To3(answer: Answer) {
    let input = TestVectors.pattern(answer.byteCount, start: 4)
    let expected = [answer.first, answer.second, answer.third].map(TestVectors.bytes)
    for outputs in 1...3 {
      // The first output overwrites the chaining key, as in every step of the handshake.
      var first = TestVectors.pattern(32, start: 3)
      var second = [UInt8](repeating: 0, count: 32)
      var third = second
      first.withUnsafeMutableBytes { first in
        second.withUnsafeMutableBytes { second in
          third.withUnsafeMutableBytes { third in
            HKDF.derive(
              chainingKey: first.baseAddress!, input: input, byteCount: input.count,
              into: first.baseAddress!, second: outputs > 1 ? second.baseAddress! : nil,
              third: outputs > 2 ? third.baseAddress! : nil)
          }
        }
      }
      #expect(first == expected[0])
      #expect((second == expected[1]) == (outputs > 1))
      #expect((third == expected[2]) == (outputs > 2))
    }
  }
}
