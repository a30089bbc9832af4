import Testing

@testable import Culvert

/// RFC 1071 the slow way: 16-bit big-endian words, one by one.
func naiveSum(_ bytes: [UInt8]) -> UInt16 {
  var sum: UInt32 = 0
  for index in stride(from: 0, to: bytes.count, by: 2) {
    sum += UInt32(bytes[index]) << 8 | (index + 1 < bytes.count ? UInt32(bytes[index + 1]) : 0)
    sum = (sum & 0xffff) + (sum >> 16)
  }
  return UInt16(sum)
}

private func sum(_ bytes: [UInt8]) -> Checksum {
  var sum = Checksum()
  bytes.withUnsafeBytes { sum.add($0.baseAddress!, byteCount: $0.count) }
  return sum
}

@Suite struct ChecksumTests {
  @Test func knownAnswers() {
    // RFC 1071 section 3.
    let words: [UInt8] = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]
    #expect(sum(words).folded == 0xddf2)
    #expect(sum(words).value == 0x220d)
    // A header seen on the wire, checksum b861 at 10.
    let header: [UInt8] = [
      0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
      0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ]
    #expect(sum(header).isIntact)
    var blank = header
    blank[10] = 0
    blank[11] = 0
    #expect(sum(blank).value == 0xb861)
    #expect(Checksum().value == 0xffff)
  }

  /// RFC 1624 section 4: the case that eqn. 2 of RFC 1141 gets wrong.
  @Test func incrementalKnownAnswer() {
    #expect(Checksum.updated(0xdd2f, from: 0x5555, to: 0x3285) == 0x0000)
  }

  @Test func anyLengthAndAlignmentAgreesWithTheSlowWay() {
    var random = SeededGenerator(seed: 1)
    for byteCount in Array(0...200) + [1420, 1500, 65_535] {
      let start = Int.random(in: 0..<8, using: &random)
      // Sometimes all ones, for carries everywhere.
      let fill = byteCount % 3 == 0
      let bytes =
        fill
        ? [UInt8](repeating: 0xff, count: start + byteCount)
        : random.bytes(start + byteCount)
      var checksum = Checksum()
      bytes.withUnsafeBytes {
        guard let base = $0.baseAddress else { return }
        checksum.add(base + start, byteCount: byteCount)
      }
      #expect(checksum.folded == naiveSum(Array(bytes[start...])), "\(byteCount) bytes")
    }
  }

  @Test func sumInPiecesIsTheSumOfTheWhole() {
    var random = SeededGenerator(seed: 2)
    for _ in 0..<200 {
      let bytes = random.bytes(Int.random(in: 2...300, using: &random))
      let cut = Int.random(in: 0...bytes.count / 2, using: &random) * 2
      var pieces = Checksum()
      bytes.withUnsafeBytes {
        pieces.add($0.baseAddress!, byteCount: cut)
        var second = Checksum(folded: pieces.folded)
        second.add($0.baseAddress! + cut, byteCount: bytes.count - cut)
        pieces = second
      }
      #expect(pieces.folded == naiveSum(bytes))
    }
  }

  @Test func pseudoHeadersAgreeWithTheSlowWay() {
    let source4 = ipv4(10, 1, 2, 3)
    let target4 = ipv4(192, 168, 255, 254)
    var checksum = Checksum()
    checksum.addPseudoHeader(
      source: source4, destination: target4, protocol: 17, byteCount: 0x1234)
    #expect(checksum.folded == naiveSum([10, 1, 2, 3, 192, 168, 255, 254, 0, 17, 0x12, 0x34]))

    let source6 = ipv6(0x2001_0db8_0001_0002, 0x0003_0004_0005_fff6)
    let target6 = ipv6(0xfe80_0000_0000_0000, 0xffff_ffff_ffff_ffff)
    checksum = Checksum()
    checksum.addPseudoHeader(
      source: source6, destination: target6, protocol: 58, byteCount: 0x1_2345)
    var bytes = [UInt8](repeating: 0, count: 40)
    bytes.withUnsafeMutableBytes {
      source6.write(to: $0.baseAddress!)
      target6.write(to: $0.baseAddress! + 16)
      $0.baseAddress!.storeBig(0x1_2345 as UInt32, 32)
      $0.baseAddress!.storeBig(58 as UInt32, 36)
    }
    #expect(checksum.folded == naiveSum(bytes))
  }

  @Test func incrementalUpdateAgreesWithTheWhole() {
    var random = SeededGenerator(seed: 3)
    for _ in 0..<2000 {
      var bytes = random.bytes(20)
      let before = sum(bytes).value
      let offset = Int.random(in: 0..<10, using: &random) * 2
      let old = UInt16(bytes[offset]) << 8 | UInt16(bytes[offset + 1])
      let new = UInt16(truncatingIfNeeded: random.next())
      bytes[offset] = UInt8(new >> 8)
      bytes[offset + 1] = UInt8(new & 0xff)
      let after = Checksum.updated(before, from: old, to: new)
      // Zero has two representations.
      #expect(after % 0xffff == sum(bytes).value % 0xffff)
    }
  }

  /// The only sum of three words that has to be folded twice is 0x1ffff: the first fold gives
  /// 0x10000.
  @Test func incrementalUpdateFoldsTwice() {
    for checksum in [0, 1, 0x1234, 0x8000, 0xfffe] as [UInt16] {
      for new in [1, 2, 0x1234, 0x8000, 0xfffe, 0xffff] as [UInt16] {
        // ~checksum + ~old + new is 0x1ffff.
        let rest = 0x1_ffff - Int(~checksum) - Int(new)
        guard let complement = UInt16(exactly: rest) else { continue }
        let updated = Checksum.updated(checksum, from: ~complement, to: new)
        #expect(updated == 0xfffe, "\(checksum), \(~complement) becomes \(new)")
      }
    }
    // A header whose sum is 0xffff: with one more, its checksum goes from 0 to 0xfffe.
    #expect(sum([0xff, 0xff, 0, 0]).value == 0)
    #expect(sum([0xff, 0xff, 0, 1]).value == 0xfffe)
    #expect(Checksum.updated(0, from: 0, to: 1) == 0xfffe)
  }

  @Test func udpNeverSendsZero() {
    // A sum of 0xffff has the complement 0, which for UDP would mean "no checksum".
    #expect(sum([0xff, 0xff]).value == 0)
    #expect(sum([0xff, 0xff]).udpValue == 0xffff)
  }
}
