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

  /// However the input is cut, and wherever it lies, the digest is the same.
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
      // Only the digest's length is left, in the last word.
      #expect(bytes.dropLast(8).allSatisfy { $0 == 0 })
    }
  }
}
