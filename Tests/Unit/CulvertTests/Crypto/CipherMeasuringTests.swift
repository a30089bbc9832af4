import Testing

@testable import Culvert

/// The choice of a cipher, by a clock that says what the test wants.
@Suite struct CipherMeasuringTests {
  /// The stride chosen, 0 for libsodium's AEAD call, where a timing takes what `times` says for
  /// its round, candidate and size. The order is the one `measured` takes them in.
  static func choice(_ times: (_ round: Int, _ candidate: Int, _ isLong: Bool) -> UInt64) -> Int {
    let scratch = UnsafeMutableRawBufferPointer.allocate(
      byteCount: TransportCipher.scratchByteCount + 1, alignment: 16)
    defer { scratch.deallocate() }
    scratch[scratch.count - 1] = 0xee
    var now: UInt64 = 1 << 40
    var readings = 0
    let cipher = TransportCipher.measured(
      scratch: UnsafeMutableRawBufferPointer(rebasing: scratch.dropLast())
    ) {
      // Two readings a timing, two timings a candidate, four candidates a round.
      if readings % 2 == 1 { now &+= times(readings / 16, readings / 4 % 4, readings / 2 % 2 == 0) }
      readings += 1
      return now
    }
    #expect(readings >= 5 * 16)
    #expect(scratch[scratch.count - 1] == 0xee)
    return cipher.stride
  }

  @Test(arguments: [0, 64, 256, 512].enumerated().map { ($0.offset, $0.element) })
  func takesTheCheapest(cheapest: Int, stride: Int) {
    #expect(
      CipherMeasuringTests.choice { _, candidate, _ in candidate == cheapest ? 9 : 10 } == stride)
    // Cheap for one size, and not too dear for the other.
    #expect(
      CipherMeasuringTests.choice { _, candidate, isLong in
        candidate == cheapest ? (isLong ? 50 : 30) : (isLong ? 60 : 29)
      } == stride)
    #expect(
      CipherMeasuringTests.choice { _, candidate, isLong in
        candidate == cheapest ? (isLong ? 61 : 20) : (isLong ? 60 : 29)
      } == stride)
  }

  @Test func oneQuietRoundIsEnough() {
    #expect(
      CipherMeasuringTests.choice { round, candidate, _ in
        candidate == 2 ? (round == 3 ? 9 : 1000) : 10
      } == 256)
    #expect(
      CipherMeasuringTests.choice { round, candidate, _ in
        candidate == 1 ? (round == 0 ? 9 : 1000) : 10
      } == 64)
  }

  @Test func aClockThatStandsOrGoesBackChoosesTheAEADCall() {
    #expect(CipherMeasuringTests.choice { _, _, _ in 0 } == 0)
    #expect(CipherMeasuringTests.choice { _, _, _ in UInt64.max } == 0)
  }

  /// A candidate that the clock went back on is no bargain.
  @Test func timesThatWrapAreTheDearest() {
    #expect(
      CipherMeasuringTests.choice { _, candidate, isLong in
        candidate == 2 && isLong ? .max - 4 : 10
      } == 0)
  }
}
