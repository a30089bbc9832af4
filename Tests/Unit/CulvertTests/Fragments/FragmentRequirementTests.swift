import Testing

@testable import Culvert

/// F1-F3, F5-F7, F11-F13: which fragments are valid, and their effect on the datagram.
@Suite struct FragmentRequirementTests {
  private let fixture = ReassemblerFixture()

  // MARK: F1

  /// With the smallest fragments, those of a link with an MTU of 68, the largest packet is still
  /// within the limit.
  @Test(arguments: [2048, 65_535])
  func F1_fragmentsOfTheSmallestLinkAreEnoughForTheLargestPacket(byteCount: Int) {
    let fixture = ReassemblerFixture(maximumByteCount: byteCount)
    let datagram = TestFragment.datagram(byteCount - 20)
    let fragments = datagram.cut(48)
    #expect(fixture.add(fragments) == .complete(datagram.whole.bytes))
  }

  @Test(arguments: [(2048, 43), (65_575, 1366)])
  func F1_fragmentsOfADatagramHaveACap(maximumByteCount: Int, cap: Int) {
    let fixture = ReassemblerFixture(maximumByteCount: maximumByteCount)
    let datagram = TestFragment.datagram(8 * (cap + 2))
    let fragments = datagram.cut(8)
    for fragment in fragments[..<cap] { #expect(fixture.add(fragment) == .held) }
    #expect(fixture.add(fragments[0]) == .dropped(.duplicate))
    #expect(fixture.add(fragments[cap]) == .dropped(.tooManyFragments))
    #expect(fixture.add(fragments[cap + 1]) == .dropped(.poisoned))
    #expect(fixture.incompleteCount == 1)
  }

  // MARK: F2

  /// Ping of death: offset and length that add up to more than 65,535, in both families.
  @Test(arguments: [true, false])
  func F2_endBeyondTheLengthFieldIsRefused(isIPv4: Bool) {
    let extra = isIPv4 ? 20 : 0
    let data = [UInt8](repeating: 1, count: 1000)
    for (offset, byteCount, isTaken) in [
      (65_528, 8, false), (65_528, 1000, false), (65_528, 7 - min(7, extra) + 1, false),
      (65_400, 136, false), (65_400, 135 - extra, true), (64_000, 1000, true),
    ] {
      let fixture = ReassemblerFixture()
      let fragment = TestFragment.datagram(isIPv4: isIPv4, 8).with {
        $0.byteOffset = offset
        $0.payload = Array(data[..<byteCount])
      }
      let isImpossible = extra + offset + byteCount > 65_535
      #expect(isImpossible == !isTaken)
      #expect(fixture.add(fragment) == (isTaken ? .held : .dropped(.impossibleLength)))
      #expect(fixture.incompleteCount == (isTaken ? 1 : 0))
    }
  }

  /// Each fragment alone is valid, but the first has a longer header than the others.
  @Test func F2_headersOfTheFirstFragmentCount() {
    let datagram = TestFragment.datagram(65_515)
    var fragments = datagram.cut(32_000)
    fragments[0].options = [1, 1, 1, 1]
    #expect(fixture.add(fragments) == .dropped(.impossibleLength))
    #expect(fixture.add(fragments[0]) == .dropped(.poisoned))
    var fragments6 = TestFragment.datagram(isIPv4: false, 65_535).cut(32_000)
    fragments6[0].extensions = [(60, [0, 0, 0, 0, 0, 0, 0, 0])]
    #expect(fixture.add(fragments6) == .dropped(.impossibleLength))
  }

  @Test(arguments: [true, false])
  func F2_largerThanTheLimitIsRefused(isIPv4: Bool) {
    let fixture = ReassemblerFixture(maximumByteCount: 2048)
    let header = isIPv4 ? 20 : 40
    let datagram = TestFragment.datagram(isIPv4: isIPv4, 2049 - header)
    var fragments = datagram.cut(1024)
    #expect(fixture.add(fragments[0]) == .held)
    #expect(fixture.add(fragments[1]) == .dropped(.tooLarge))
    // If only the first fragment has options, the excess shows only at the end.
    fragments = datagram.with { $0.identification = 8 }.cut(1024)
    fragments[1].payload.removeLast()
    #expect(
      fixture.add(fragments)
        == .complete(
          datagram.with {
            $0.identification = 8
            $0.payload.removeLast()
          }.whole.bytes))
    fragments[0].options = [1, 1, 1, 1]
    fragments[0].extensions = [(60, [0, 0, 0, 0, 0, 0, 0, 0])]
    #expect(fixture.add(fragments) == .dropped(.tooLarge))
  }

  // MARK: F3

  /// Teardrop and similar attacks: the second fragment is within the first, around it, or across
  /// one of its ends.
  @Test(
    arguments: [
      (48, 16), (40, 16), (40, 32), (64, 8), (24, 16), (32, 24), (24, 48), (24, 80), (32, 64),
    ],
    [true, false])
  func F3_overlapDiscardsTheDatagram(place: (offset: Int, byteCount: Int), isIPv4: Bool) {
    let datagram = TestFragment.datagram(isIPv4: isIPv4, 160)
    let fragments = datagram.cut(32)
    // Covers 32..<96 with two fragments.
    #expect(fixture.add(fragments[1]) == .held)
    #expect(fixture.add(fragments[2]) == .held)
    // The same bytes as in the datagram: still an overlap.
    let end = place.offset + place.byteCount
    let overlap = fragments[1].with {
      $0.byteOffset = place.offset
      $0.payload = Array(datagram.payload[place.offset..<end])
    }
    #expect(fixture.add(overlap) == .dropped(.overlap))
    // No error is sent, and the remaining fragments are ignored.
    for fragment in fragments { #expect(fixture.add(fragment) == .dropped(.poisoned)) }
    #expect(fixture.count(.overlap) == 1 && fixture.count(.poisoned) == 5)
  }

  @Test(arguments: [true, false])
  func F3_keyStaysPoisonedUntilTheTimeIsOver(isIPv4: Bool) {
    let timeout = isIPv4 ? 30.0 : 60
    let datagram = TestFragment.datagram(isIPv4: isIPv4, 96)
    let fragments = datagram.cut(32)
    #expect(fixture.add(fragments[0], at: 10) == .held)
    let changed = fragments[0].with { $0.payload[31] ^= 1 }
    #expect(fixture.add(changed, at: 12) == .dropped(.overlap))
    #expect(fixture.incompleteCount == 1 && fixture.nextDeadline == 10 + timeout)
    // Later fragments do not extend its time.
    #expect(fixture.add(fragments, at: 9.9 + timeout) == .dropped(.poisoned))
    #expect(fixture.expire(at: 9.9 + timeout).isEmpty)
    #expect(fixture.expire(at: 10 + timeout) == [.silent])
    #expect(fixture.add(fragments, at: 10 + timeout) == .complete(datagram.whole.bytes))
  }

  @Test(arguments: [true, false]) func F3_exactDuplicateIsIgnored(isIPv4: Bool) {
    let datagram = TestFragment.datagram(isIPv4: isIPv4, 1000)
    let fragments = datagram.cut(512)
    #expect(fixture.add(fragments[1]) == .held)
    for _ in 0..<2 { #expect(fixture.add(fragments[1]) == .dropped(.duplicate)) }
    // Headers may differ: routers decrement the hop limit.
    #expect(fixture.add(fragments[1].with { $0.timeToLive = 9 }) == .dropped(.duplicate))
    #expect(fixture.add(fragments[0]) == .complete(datagram.whole.bytes))
    #expect(fixture.count(.duplicate) == 3)
  }

  @Test func F3_duplicateOfMarkedFragmentDoesNotMark() {
    let datagram = TestFragment.datagram(64).with { $0.trafficClass = 2 }
    let fragments = datagram.cut(32)
    #expect(fixture.add(fragments[0]) == .held)
    for mark: UInt8 in [3, 0] {
      #expect(fixture.add(fragments[0].with { $0.trafficClass = mark }) == .dropped(.duplicate))
    }
    #expect(fixture.add(fragments[1]) == .complete(datagram.whole.bytes))
  }

  /// The same range with other bytes, wherever they differ, or with another flag for more
  /// fragments.
  @Test(arguments: [0, 1, 7, 8, 31, 32, 40, 41])
  func F3_duplicateWithOtherBytesIsAnOverlap(place: Int) {
    let last = TestFragment.datagram(32 + 42).cut(32)[1...].map { $0 }
    let fragment = TestFragment.datagram(106).cut(64)[1]
    #expect(last.count == 2 && fragment.payload.count == 42)
    #expect(fixture.add(fragment) == .held)
    let changed = fragment.with { $0.payload[place] ^= 0x80 }
    #expect(fixture.add(changed) == .dropped(.overlap))
    #expect(fixture.add(fragment) == .dropped(.poisoned))
  }

  @Test func F3_duplicateThatSaysOtherwiseAboutTheEndIsNone() {
    let middle = TestFragment.datagram(48).cut(16)[1]
    #expect(fixture.add(middle) == .held)
    #expect(fixture.add(middle.with { $0.hasMore = false }) == .dropped(.overlap))
    let last = TestFragment.datagram(identification: 8, 32).cut(16)[1]
    #expect(fixture.add(last) == .held)
    #expect(fixture.add(last.with { $0.hasMore = true }) == .dropped(.beyondEnd))
  }

  // MARK: F5

  /// An incomplete datagram with the same key exists: neither affects the other.
  @Test func F5_atomicFragmentIsHandledAlone() {
    let datagram = TestFragment.datagram(isIPv4: false, 64)
    let fragments = datagram.cut(32)
    #expect(fixture.add(fragments[1]) == .held)
    let atomic = datagram.with { $0.payload = [1, 2, 3, 4, 5, 6, 7, 8, 9] }
    #expect(fixture.add(atomic) == .whole(atomic.whole.bytes))
    #expect(fixture.add(atomic.bytes + [0, 0]) == .whole(atomic.whole.bytes))
    #expect(fixture.incompleteCount == 1 && fixture.count(.atomic) == 2)
    #expect(fixture.add(fragments[0]) == .complete(datagram.whole.bytes))
  }

  @Test func F5_atomicFragmentBehindOtherHeaders() {
    let atomic = TestFragment.datagram(isIPv4: false, 9).with {
      $0.extensions = [(0, [0, 1] + (0..<14)), (60, [0, 0, 1, 4, 9, 9, 9, 9])]
    }
    #expect(fixture.add(atomic) == .whole(atomic.whole.bytes))
    #expect(fixture.incompleteCount == 0)
  }

  // MARK: F6

  @Test func F6_nestedFragmentHeaderIsRefused() {
    let nested = TestFragment.datagram(isIPv4: false, 40).with { $0.number = 44 }
    for fragment in [nested, nested.cut(24)[0]] {
      #expect(fixture.add(fragment) == .dropped(.brokenHeaderChain))
    }
    #expect(fixture.incompleteCount == 0)
  }

  /// Destination options, or a TCP header, that continue in later fragments.
  @Test func F6_firstFragmentHoldsTheWholeHeaderChain() {
    let options = TestFragment.datagram(isIPv4: false, 64).with {
      $0.number = 60
      $0.payload[0] = 17
      $0.payload[1] = 1
    }
    #expect(fixture.add(options.cut(8)[0]) == .dropped(.brokenHeaderChain))
    #expect(fixture.add(options.cut(16)[0]) == .dropped(.brokenHeaderChain))
    #expect(fixture.add(options.cut(24)[0]) == .held)
    let segment = TestFragment.datagram(isIPv4: false, identification: 8, 64).with { $0.number = 6 }
    #expect(fixture.add(segment.cut(16)[0]) == .dropped(.brokenHeaderChain))
    #expect(fixture.add(segment.cut(24)) == .complete(segment.whole.bytes))
    #expect(fixture.count(.brokenHeaderChain) == 3)
  }

  /// A chain may end with "no next header" (RFC 8200 section 4.7), even if more fragments follow.
  @Test func F6_noNextHeaderEndsTheChain() {
    let nothing = TestFragment.datagram(isIPv4: false, 24).with {
      $0.number = 60
      $0.payload[0] = 59
      $0.payload[1] = 0
    }
    #expect(fixture.add(nothing.cut(8)) == .complete(nothing.whole.bytes))
    let atomic = nothing.with { $0.payload = Array($0.payload.prefix(8)) }
    #expect(fixture.add(atomic) == .whole(atomic.whole.bytes))
    let cutOff = atomic.with { $0.payload[0] = 17 }
    #expect(fixture.add(cutOff) == .dropped(.brokenHeaderChain))
  }

  /// The content of the other fragments is unknown.
  @Test func F6_laterFragmentsAreNotRead() {
    let datagram = TestFragment.datagram(isIPv4: false, 64)
    var fragments = datagram.cut(32)
    fragments[1].number = 44
    #expect(fixture.add(fragments) == .complete(datagram.whole.bytes))
  }

  @Test func F6_headersThatASlotHasNoRoomForAreRefused() {
    func first(_ extensionByteCount: Int) -> TestFragment {
      TestFragment.first(isIPv4: false).with {
        $0.extensions = [
          (
            60,
            [0, UInt8(extensionByteCount / 8 - 1)]
              + [UInt8](repeating: 0, count: extensionByteCount - 2)
          )
        ]
      }
    }
    #expect(fixture.add(first(144)) == .held)
    #expect(fixture.add(first(152)) == .dropped(.headersTooLong))
  }

  // MARK: F7

  @Test(arguments: [true, false])
  func F7_allButTheLastCarryAMultipleOfEight(isIPv4: Bool) {
    let first = TestFragment.first(isIPv4: isIPv4)
    for byteCount in 0...16 {
      for (offset, hasMore) in [(0, true), (8, true), (8, false)] {
        let fixture = ReassemblerFixture()
        let fragment = first.with {
          $0.byteOffset = offset
          $0.hasMore = hasMore
          $0.payload = Array($0.payload.prefix(byteCount))
        }
        let isRight = byteCount > 0 && (!hasMore || byteCount % 8 == 0)
        let outcome = fixture.add(fragment)
        if !isIPv4, offset == 0, byteCount == 0 {
          #expect(outcome == .dropped(.brokenHeaderChain))
        } else {
          #expect(outcome == (isRight ? .held : .dropped(.badLength)))
        }
        #expect(fixture.incompleteCount == (isRight ? 1 : 0))
      }
    }
  }

  // MARK: F11

  /// Lengths come from the header, never from the buffer, and refused fragments are not written to
  /// (`ReassemblyWorld` compares).
  @Test(arguments: [true, false])
  func F11_onlyVerifiedLengthsAreUsed(isIPv4: Bool) {
    let datagram = TestFragment.datagram(isIPv4: isIPv4, 64)
    let fragments = datagram.cut(32)
    #expect(fixture.add(fragments[0].bytes + [UInt8](repeating: 9, count: 40)) == .held)
    #expect(fixture.add(fragments[1].bytes + [9]) == .complete(datagram.whole.bytes))
    // A length beyond the end of the packet.
    var bytes = fragments[0].bytes
    bytes[isIPv4 ? 3 : 5] += 8
    #expect(fixture.add(bytes) == .dropped(.malformed))
  }

  @Test func F11_anyChangedByteIsJudgedAsByTheModel() {
    let world = ReassemblyWorld(isThorough: false)
    for isIPv4 in [true, false] {
      let fragments = TestFragment.datagram(isIPv4: isIPv4, 40).with {
        $0.options = [0x94, 4, 0, 0]
        $0.extensions = [(0, [0, 0, 5, 2, 0, 0, 1, 0])]
      }.cut(24)
      for place in 0..<min(64, fragments[0].bytes.count) {
        for bit in 0..<8 {
          var bytes = fragments[0].bytes
          bytes[place] ^= 1 << UInt8(bit)
          if isIPv4, bit % 2 == 0 {
            var header = Array(bytes[..<24])
            TestFragment.writeChecksum(&header)
            bytes.replaceSubrange(..<24, with: header)
          }
          world.add(bytes, at: 0)
          world.add(fragments[1].bytes, at: 0)
          while world.completedCount > 0 { world.release(0) }
          world.removeAll(from: nil)
        }
      }
    }
    #expect(world.failure == nil)
  }

  // MARK: F12

  /// RFC 3168 section 5.3: the packet's mark by the marks of two fragments; 9 means discarded.
  @Test(arguments: [true, false]) func F12_marksOfTheFragmentsMerge(isIPv4: Bool) {
    let table: [[UInt8]] = [
      // Not-ECT, ECT(1), ECT(0), CE; if both are acceptable, the first fragment's mark is used.
      [0, 9, 9, 9],
      [9, 1, 1, 3],
      [9, 2, 2, 3],
      [9, 3, 3, 3],
    ]
    let datagram = TestFragment.datagram(isIPv4: isIPv4, 64)
    for (mark, row) in table.enumerated() {
      for (other, merged) in row.enumerated() {
        for isReversed in [false, true] {
          let fixture = ReassemblerFixture()
          var fragments = datagram.with { $0.trafficClass = 0xb8 | UInt8(mark) }.cut(32)
          fragments[1].trafficClass = 0x40 | UInt8(other)
          let outcome = fixture.add(isReversed ? fragments.reversed() : fragments)
          if merged == 9 {
            #expect(outcome == .dropped(.brokenCongestionMark))
            #expect(fixture.add(fragments[0]) == .dropped(.poisoned))
          } else {
            // The rest of the traffic class is the first fragment's.
            let packet = datagram.with { $0.trafficClass = 0xb8 | merged }.whole.bytes
            #expect(outcome == .complete(packet))
          }
        }
      }
    }
  }

  // MARK: F13

  /// Record route in the first only, a security option in both; in both orders.
  @Test func F13_optionsAreTheFirstFragments() {
    let datagram = TestFragment.datagram(200).with {
      $0.options = [7, 7, 4, 1, 2, 3, 4, 0x82, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }
    var fragments = datagram.cut(80)
    for index in [1, 2] { fragments[index].options = [0x82, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] }
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
      let packet = datagram.whole.bytes
      #expect(fixture.add(order.map { fragments[$0] }) == .complete(packet))
      #expect(PacketModel(packet)?.bytes[0] == 0x4a)
    }
  }

  @Test func F13_longestOptions() {
    let datagram = TestFragment.datagram(200).with { $0.options = [UInt8](repeating: 1, count: 40) }
    #expect(fixture.add(datagram.cut(80).reversed()) == .complete(datagram.whole.bytes))
  }

  @Test func F13_fragmentsThatForbidFragmentingAreTaken() {
    let datagram = TestFragment.datagram(100).with { $0.mayNotBeFragmented = true }
    // The result may be fragmented again: `whole` has no flags.
    #expect(fixture.add(datagram.cut(40)) == .complete(datagram.whole.bytes))
    let packet = datagram.bytes
    #expect(fixture.add(packet) == .whole(packet))
  }

  /// IPv6 headers before the fragment header stay, with the right next header.
  @Test func F13_extensionHeadersAreTheFirstFragments() {
    let datagram = TestFragment.datagram(isIPv4: false, 200).with {
      $0.extensions = [(0, [0, 0, 1, 4, 0, 0, 0, 0]), (43, [0, 1] + (0..<14))]
    }
    var fragments = datagram.cut(80)
    fragments[2].extensions = []
    for order in [[0, 1, 2], [2, 1, 0]] {
      #expect(fixture.add(order.map { fragments[$0] }) == .complete(datagram.whole.bytes))
    }
  }
}
