import Testing

@testable import Culvert

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
