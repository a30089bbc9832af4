import Testing

@testable import Culvert

/// F4, F8-F10: which datagram a fragment belongs to, how long it keeps its slot, and when it is
/// evicted.
@Suite struct DatagramRequirementTests {
  private let fixture = ReassemblerFixture()

  // MARK: F4

  /// One source sends first and last fragments of datagrams that it never completes, ten for each
  /// fragment of another source. The other source loses nothing.
  @Test(arguments: [true, false]) func F4_floodOfOneSourceStarvesNoOther(isIPv4: Bool) {
    var identification: UInt32 = 0
    for round in 0..<200 as Range<UInt32> {
      let datagram = TestFragment.datagram(
        isIPv4: isIPv4, source: 2, identification: round, 40)
      for fragment in datagram.cut(8) {
        for _ in 0..<10 {
          identification += 1
          var flood = TestFragment.datagram(isIPv4: isIPv4, identification: identification, 24)
          if identification % 2 == 0 { flood.trafficClass = 0xb8 }
          for part in [flood.cut(8)[0], flood.cut(8)[2]] { #expect(fixture.add(part) == .held) }
        }
        let outcome = fixture.add(fragment)
        #expect(outcome == (fragment.hasMore ? .held : .complete(datagram.whole.bytes)))
      }
    }
    #expect(fixture.count(.reassembled) == 200)
    #expect(fixture.count(.evicted) == 10_000 - UInt64(fixture.incompleteCount))
  }

  /// Two fragments of one datagram, in either order, arrive with 63 of other datagrams between
  /// them: whatever sources the flood claims, a datagram that completes within a ring's length is
  /// not lost.
  @Test func F4_floodOfManySourcesLeavesARingsLength() {
    let datagram = TestFragment.datagram(source: 1, 40)
    let fragments = datagram.cut(24)
    for distance in [1, 62, 63, 64, 65] {
      #expect(fixture.add(fragments[0]) == .held)
      for index in 0..<distance {
        let other = TestFragment.first(
          source: UInt8(2 + index % 200), identification: UInt32(1000 + index))
        #expect(fixture.add(other) == .held)
      }
      let isHeld = distance < 64
      #expect(fixture.add(fragments[1]) == (isHeld ? .complete(datagram.whole.bytes) : .held))
      fixture.reassembler.removeAll()
    }
  }

  /// A ring full of dead datagrams is empty after one timeout.
  @Test func F4_floodIsOverAfterOneTimeout() {
    for index in 0..<64 {
      let flood = TestFragment.first(
        source: UInt8(1 + index), identification: UInt32(index))
      #expect(fixture.add(flood, at: 5) == .held)
    }
    #expect(fixture.expire(at: 34.9).isEmpty)
    #expect(fixture.expire(at: 35).count == 64 && fixture.incompleteCount == 0)
  }

  /// The source with the most loses one; if none has more than its share, the oldest datagram of
  /// all is evicted.
  @Test func F4_greediestSourceLosesItsOldest() {
    func fill(_ shares: [(source: UInt8, count: Int)]) {
      fixture.reassembler.removeAll()
      for share in shares {
        for index in 0..<share.count {
          let datagram = TestFragment.first(
            source: share.source, identification: UInt32(share.source) * 1000 + UInt32(index))
          #expect(fixture.add(datagram) == .held)
        }
      }
      #expect(fixture.add(.first(source: 200)) == .held)
      #expect(fixture.incompleteCount == 64)
    }
    /// Whether the source's oldest datagram was evicted. Adding it again would evict another.
    func hasLostItsOldest(_ source: UInt8) -> Bool {
      let rest = TestFragment.datagram(
        source: source, identification: UInt32(source) * 1000, 24
      ).cut(16)[1]
      if case .complete = fixture.add(rest) { return false }
      return true
    }
    fill([(1, 10), (2, 30), (3, 24)])
    #expect(!hasLostItsOldest(1) && !hasLostItsOldest(3) && hasLostItsOldest(2))
    // Two sources hold the same number: the older datagram is evicted.
    fill([(3, 10), (2, 27), (1, 27)])
    #expect(!hasLostItsOldest(3) && !hasLostItsOldest(1) && hasLostItsOldest(2))
    // No source has more than a quarter.
    fill([(4, 16), (3, 16), (2, 16), (1, 16)])
    #expect(!hasLostItsOldest(3) && !hasLostItsOldest(2) && hasLostItsOldest(4))
    // 17 slots are more than a quarter.
    fill([(4, 16), (3, 15), (2, 17), (1, 16)])
    #expect(!hasLostItsOldest(4) && !hasLostItsOldest(3) && hasLostItsOldest(2))
  }

  /// An attacker can choose the second half of an IPv6 address freely.
  @Test func F4_aNetworkOfIPv6IsOneSource() {
    let legitimate = TestFragment.datagram(isIPv4: false, source: 2, 40).cut(24)
    #expect(fixture.add(legitimate[0]) == .held)
    for index in 0..<100 {
      var flood = TestFragment.first(isIPv4: false, source: 1, identification: 9).bytes
      flood[23] = UInt8(index)
      #expect(fixture.add(flood) == .held)
    }
    #expect(fixture.add(legitimate[1]) != .held)
  }

  /// Sources are told apart whatever their hashes are, even if they share a bucket.
  @Test func F4_sourcesAreToldApartUnderEverySeed() {
    for seed in 0..<400 as Range<UInt64> {
      let fixture = ReassemblerFixture(maximumByteCount: 576, seed: seed)
      // Of three sources the second holds most, but not the oldest; a sender counts too.
      let shares: [(source: UInt8, sender: UInt32, count: UInt32)] = [
        (1, 1, 12), (2, 1, 28), (1, 2, 24),
      ]
      for share in shares {
        for index in 0..<share.count {
          let first = TestFragment.first(
            source: share.source, identification: share.sender * 1000 + index)
          #expect(fixture.add(first, from: share.sender) == .held)
        }
      }
      #expect(fixture.add(.first(source: 9)) == .held)
      let rest = shares.map { share in
        TestFragment.datagram(source: share.source, identification: share.sender * 1000, 24)
          .cut(16)[1]
      }
      let isLost = zip(rest, shares).map { fixture.add($0, from: $1.sender) == .held }
      #expect(isLost == [false, true, false])
    }
  }

  /// The same address from two senders counts as two sources.
  @Test func F4_sendersAreToldApart() {
    let legitimate = TestFragment.datagram(identification: 5000, 40).cut(24)
    #expect(fixture.add(legitimate[0], from: 2) == .held)
    for index in 0..<100 as Range<UInt32> {
      #expect(fixture.add(.first(identification: index), from: 1) == .held)
    }
    #expect(fixture.add(legitimate[1], from: 2) != .held)
  }

  // MARK: F8

  /// Each of these differences makes a fragment part of another datagram.
  @Test func F8_keyHoldsAddressesIdentificationProtocolAndSender() {
    let others: [(inout TestFragment) -> Void] = [
      { $0.source = 2 }, { $0.destination = 2 }, { $0.identification = 0x0107 },
      { $0.isIPv4 = false },
    ]
    for isIPv4 in [true, false] {
      let first = TestFragment.first(isIPv4: isIPv4)
      let last = TestFragment.datagram(isIPv4: isIPv4, 24).cut(16)[1]
      for change in others.prefix(isIPv4 ? 4 : 3) {
        #expect(fixture.add(first) == .held)
        #expect(fixture.add(last.with(change)) == .held)
        #expect(fixture.incompleteCount == 2)
        fixture.reassembler.removeAll()
      }
      #expect(fixture.add(first, from: 1) == .held)
      #expect(fixture.add(last, from: 2) == .held)
      #expect(fixture.incompleteCount == 2)
      fixture.reassembler.removeAll()
    }
  }

  /// IPv4 datagrams of two protocols. In IPv6 only the first fragment names the protocol (RFC 8200
  /// section 4.5), and all 32 bits of the identification count.
  @Test func F8_protocolIsPartOfTheKeyOfIPv4() {
    #expect(fixture.add(.first()) == .held)
    let last = TestFragment.datagram(24).cut(16)[1]
    #expect(fixture.add(last.with { $0.number = 6 }) == .held)
    #expect(fixture.incompleteCount == 2)
    let datagram = TestFragment.datagram(isIPv4: false, 24)
    let fragments = datagram.cut(16)
    #expect(fixture.add(fragments[0]) == .held)
    #expect(fixture.add(fragments[1].with { $0.identification |= 1 << 31 }) == .held)
    let outcome = fixture.add(fragments[1].with { $0.number = 6 })
    #expect(outcome == .complete(datagram.whole.bytes))
  }

  @Test(arguments: [8, 16, 24, 32, 40, 48, 56, 64] as [Int])
  func F8_everyBitOfTheAddressesCounts(byteCount: Int) {
    for isIPv4 in [true, false] {
      let addresses = isIPv4 ? 12..<20 : 8..<40
      let bytes = TestFragment.first(isIPv4: isIPv4).bytes
      for place in addresses where place % 8 == byteCount / 8 - 1 {
        let fixture = ReassemblerFixture(seed: UInt64(place))
        #expect(fixture.add(bytes) == .held)
        for bit in 0..<8 {
          var other = bytes
          other[place] ^= 1 << UInt8(bit)
          if isIPv4 {
            var header = Array(other[..<20])
            TestFragment.writeChecksum(&header)
            other.replaceSubrange(..<20, with: header)
          }
          #expect(fixture.add(other) == .held)
          #expect(fixture.incompleteCount == bit + 2)
        }
      }
    }
  }

  /// Compares the keys without their hash, which alone would distinguish most of them.
  @Test func F8_keysDifferInEveryBitThatCounts() throws {
    for isIPv4 in [true, false] {
      let packet = PacketBuffer(TestFragment.first(isIPv4: isIPv4).bytes)
      let key = try makeKey(packet, sender: 1)
      #expect(try makeKey(packet, sender: 1) == key)
      #expect(!(try makeKey(packet, sender: 0x8000_0001) == key))
      // For IPv4: identification, protocol and addresses; for IPv6: addresses and identification.
      for place in isIPv4 ? [4, 5, 9] + Array(12..<20) : Array(8..<40) + Array(44..<48) {
        for bit in 0..<8 as Range<UInt8> {
          packet[place] ^= 1 << bit
          #expect(!(try makeKey(packet, sender: 1) == key))
          packet[place] ^= 1 << bit
        }
      }
    }
    // IPv6 addresses that look like IPv4's.
    let packet4 = PacketBuffer(TestFragment.first().bytes)
    let packet6 = PacketBuffer(TestFragment.first(isIPv4: false).bytes)
    for place in 8..<40 { packet6[place] = place < 16 ? packet4[place + 4] : 0 }
    packet6[45] = 17
    let key4 = try makeKey(packet4, sender: 1)
    let key6 = try makeKey(packet6, sender: 1)
    #expect(key4.word0 == key6.word0 && key4.tail == key6.tail)
    #expect(!(key4 == key6) && !(key6 == key4))
  }

  private func makeKey(_ packet: PacketBuffer, sender: UInt32) throws -> FragmentKey {
    if let header = IPv4Header(at: packet.start, byteCount: packet.byteCount) {
      return FragmentKey(header, sender: sender)
    }
    let header = try #require(IPv6Header(at: packet.start, byteCount: packet.byteCount))
    let identification = packet.start.loadBig(44, as: UInt32.self)
    return FragmentKey(header, identification: identification, sender: sender)
  }

  // MARK: F9

  @Test func F9_ipv4Has30SecondsAndIPv6Has60FromTheFirstFragmentThatCame() {
    let last4 = TestFragment.datagram(24).cut(8)
    let last6 = TestFragment.datagram(isIPv4: false, 24).cut(8)
    #expect(fixture.nextDeadline == nil)
    #expect(fixture.add(last6[2], at: 1) == .held)
    #expect(fixture.nextDeadline == 61)
    #expect(fixture.add(last4[2], at: 2) == .held)
    #expect(fixture.nextDeadline == 32)
    // Another fragment does not extend the time.
    #expect(fixture.add(last4[1], at: 31) == .held)
    #expect(fixture.add(last6[1], at: 31) == .held)
    #expect(fixture.nextDeadline == 32)
    #expect(fixture.expire(at: 31.999).isEmpty)
    #expect(fixture.expire(at: 32) == [.silent])
    #expect(fixture.nextDeadline == 61)
    #expect(fixture.expire(at: 60.999).isEmpty)
    #expect(fixture.expire(at: 61) == [.silent])
    #expect(fixture.nextDeadline == nil && fixture.count(.expired) == 2)
  }

  /// The timeout applies even if `expire` has not been called yet.
  @Test(arguments: [true, false])
  func F9_fragmentThatComesTooLateStartsAnotherDatagram(isIPv4: Bool) {
    let fragments = TestFragment.datagram(isIPv4: isIPv4, 40).cut(24)
    let timeout = isIPv4 ? 30.0 : 60
    #expect(fixture.add(fragments[0], at: 1) == .held)
    #expect(fixture.add(fragments[1], at: 1 + timeout) == .held)
    #expect(fixture.count(.expired) == 1 && fixture.incompleteCount == 1)
    #expect(fixture.nextDeadline == 1 + 2 * timeout)
  }

  @Test(arguments: [true, false], [60, 700, 1400])
  func F9_timeExceededQuotesTheFirstFragment(isIPv4: Bool, byteCount: Int) throws {
    let datagram = TestFragment.datagram(isIPv4: isIPv4, 4000)
    let fragments = datagram.cut(byteCount / 8 * 8)
    #expect(fixture.add(fragments[1]) == .held)
    #expect(fixture.add(fragments[0]) == .held)
    let expired = fixture.expire(at: 60)
    guard case .timeExceeded(let bytes) = try #require(expired.first) else {
      Issue.record("no error")
      return
    }
    let packet = PacketBuffer(bytes)
    let first = PacketBuffer(fragments[0].bytes)
    let quoted = Array(fragments[0].bytes.prefix(isIPv4 ? 548 : 1232))
    if isIPv4 {
      let header = try #require(IPv4Header(at: packet.start, byteCount: bytes.count))
      let cause = try #require(IPv4Header(at: first.start, byteCount: first.byteCount))
      #expect(header.source == cause.destination && header.destination == cause.source)
      #expect(header.protocolNumber == IPProtocol.icmp && header.hasIntactChecksum)
      #expect(Array(bytes[20..<22]) == [11, 1])
      #expect(Array(bytes[28...]) == quoted)
      #expect(PacketModel.sum(Array(bytes[20...])) == 0xffff)
    } else {
      let header = try #require(IPv6Header(at: packet.start, byteCount: bytes.count))
      let cause = try #require(IPv6Header(at: first.start, byteCount: first.byteCount))
      #expect(header.source == cause.destination && header.destination == cause.source)
      #expect(header.nextHeader == IPProtocol.icmpv6)
      #expect(Array(bytes[40..<42]) == [3, 1])
      #expect(Array(bytes[48...]) == quoted)
    }
    #expect(expired.count == 1 && fixture.count(.timeExceededSent) == 1)
  }

  /// No error without the first fragment, about an ICMP error, or about a discarded datagram.
  @Test(arguments: [true, false]) func F9_timeExceededOnlyWhereTheFirstFragmentIsHeld(isIPv4: Bool)
  {
    let fragments = TestFragment.datagram(isIPv4: isIPv4, 24).cut(8)
    #expect(fixture.add(fragments[1]) == .held)
    #expect(fixture.expire(at: 60) == [.silent])
    let error = fragments[0].with {
      $0.number = isIPv4 ? 1 : 58
      $0.payload[0] = 3
    }
    #expect(fixture.add(error, at: 60) == .held)
    #expect(fixture.expire(at: 120) == [.silent])
    #expect(fixture.add(fragments[0], at: 120) == .held)
    #expect(fixture.add(fragments[0].with { $0.payload[0] ^= 1 }, at: 120) == .dropped(.overlap))
    #expect(fixture.expire(at: 180) == [.silent])
    #expect(fixture.count(.timeExceededSent) == 0)
  }

  @Test func F9_timeExceededIsRateLimited() {
    func flood(at now: Double) -> Int {
      for index in 0..<64 as Range<UInt32> {
        #expect(fixture.add(.first(identification: index), at: now) == .held)
      }
      let expired = fixture.expire(at: now + 30)
      #expect(expired.count == 64)
      return expired.count { $0 != .silent }
    }
    #expect(flood(at: 0) == 16)
    #expect(flood(at: 0.5) == 5)
    #expect(flood(at: 0.55) == 0)
    #expect(flood(at: 0.6) == 1)
    #expect(flood(at: 100) == 16)
    #expect(fixture.count(.timeExceededSent) == 38)
  }

  /// A clock that goes back causes no trap, and no datagram waits for the old time to return (R24).
  @Test func F9_clockThatGoesBack() {
    #expect(fixture.add(.first(identification: 1), at: 1000) == .held)
    #expect(fixture.add(.first(isIPv4: false, identification: 2), at: 2000) == .held)
    #expect(fixture.add(.first(identification: 3), at: 10) == .held)
    #expect(fixture.nextDeadline == 40)
    #expect(fixture.expire(at: 5).isEmpty)
    #expect(fixture.nextDeadline == 35)
    #expect(fixture.expire(at: 35).count == 2)
    #expect(fixture.expire(at: 65).count == 1)
    let end = Instant(nanoseconds: .max)
    #expect(fixture.reassembler.expire(at: end) == nil)
    #expect(fixture.add(.first(), at: 1e9) == .held)
    #expect(fixture.expire(at: 1.8e10).count == 1)
  }

  // MARK: F10

  @Test(arguments: [true, false]) func F10_twoDifferentEndsDiscardTheDatagram(isIPv4: Bool) {
    for byteCount in [31, 39, 40, 41, 48] where byteCount != 40 {
      let datagram = TestFragment.datagram(isIPv4: isIPv4, 80)
      let last = datagram.cut(24)[1].with { $0.hasMore = false }
      let fixture = ReassemblerFixture()
      #expect(fixture.add(last.with { $0.payload = Array($0.payload.prefix(16)) }) == .held)
      let other = last.with {
        $0.byteOffset = 16
        $0.payload = Array(datagram.payload[16..<byteCount])
      }
      #expect(fixture.add(other) == .dropped(.differentEnd))
      #expect(fixture.add(datagram.cut(24)[0]) == .dropped(.poisoned))
    }
  }

  @Test(arguments: [true, false]) func F10_dataBeyondTheLastDiscardsTheDatagram(isIPv4: Bool) {
    let fragments = TestFragment.datagram(isIPv4: isIPv4, 96).cut(24)
    let last = fragments[1].with { $0.hasMore = false }
    for beyond in [fragments[2], fragments[2].with { $0.byteOffset = 40 }] {
      let fixture = ReassemblerFixture()
      #expect(fixture.add(last) == .held)
      #expect(fixture.add(beyond) == .dropped(.beyondEnd))
      #expect(fixture.add(fragments[0]) == .dropped(.poisoned))
    }
    // The other order: the last fragment arrives after the data beyond it.
    #expect(fixture.add(fragments[2]) == .held)
    #expect(fixture.add(last) == .dropped(.beyondEnd))
    #expect(fixture.add(fragments[0]) == .dropped(.poisoned))
  }

  @Test func F10_removingAPeerFlushesItsSlots() {
    for isIPv4 in [true, false] {
      for sender in 1...3 as ClosedRange<UInt32> {
        for index in 0..<5 as Range<UInt32> {
          let first = TestFragment.first(isIPv4: isIPv4, identification: index)
          #expect(fixture.add(first, from: sender) == .held)
        }
      }
    }
    // One of them is poisoned.
    let changed = TestFragment.first(identification: 0).with { $0.payload[0] ^= 1 }
    #expect(fixture.add(changed, from: 2) == .dropped(.overlap))
    fixture.reassembler.removeAll(from: 2)
    #expect(fixture.incompleteCount == 20 && fixture.count(.removed) == 10)
    let last = TestFragment.datagram(identification: 0, 24).cut(16)[1]
    #expect(fixture.add(last, from: 2) == .held)
    #expect(fixture.add(last, from: 1) != .held && fixture.add(last, from: 3) != .held)
    fixture.reassembler.removeAll(from: 9)
    #expect(fixture.incompleteCount == 19)
    // Packets that were handed out stay valid.
    fixture.keepsPackets = true
    let whole = TestFragment.datagram(identification: 77, 24)
    #expect(fixture.add(whole.cut(8), from: 2) == .complete(whole.whole.bytes))
    fixture.reassembler.removeAll(from: 2)
    #expect(fixture.reassembler.completedCount == 1)
    fixture.release()
    #expect(fixture.reassembler.completedCount == 0)
  }
}
