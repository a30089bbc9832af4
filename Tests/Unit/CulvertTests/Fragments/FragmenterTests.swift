import Testing

@testable import Culvert

@Suite struct FragmenterTests {
  private func cut(_ bytes: [UInt8], mtu: Int, identification: UInt32 = 7) -> [[UInt8]]? {
    let packet = PacketBuffer(bytes)
    guard
      let fragmenter = Fragmenter(
        at: packet.start, byteCount: bytes.count, mtu: mtu, identification: identification)
    else { return nil }
    let fragments = (0..<fragmenter.count).map { index in
      let fragment = PacketBuffer(byteCount: fragmenter.byteCount(index))
      fragmenter.write(index, to: fragment.start)
      return fragment.bytes
    }
    #expect(packet.bytes == bytes)
    return fragments
  }

  /// The expected fragments of a datagram without options or extensions.
  private func expected(_ datagram: TestFragment, mtu: Int) -> [[UInt8]] {
    datagram.cut((mtu - (datagram.isIPv4 ? 20 : 48)) / 8 * 8).map(\.bytes)
  }

  @Test(
    arguments: [(68, 49), (68, 48 * 3), (576, 5000), (1280, 1261), (1500, 10_000), (1500, 65_515)])
  func ipv4(mtu: Int, byteCount: Int) {
    let datagram = TestFragment.datagram(byteCount)
    let isRight = cut(datagram.whole.bytes, mtu: mtu) == expected(datagram, mtu: mtu)
    #expect(isRight)
  }

  @Test(arguments: [(1280, 1241), (1280, 1232 * 2), (1281, 5000), (1500, 10_000), (1500, 65_535)])
  func ipv6(mtu: Int, byteCount: Int) {
    let datagram = TestFragment.datagram(isIPv4: false, identification: 0x8001_0203, byteCount)
    let fragments = cut(datagram.whole.bytes, mtu: mtu, identification: 0x8001_0203)
    let isRight = fragments == expected(datagram, mtu: mtu)
    #expect(isRight)
  }

  /// For any size, no fragment exceeds the link's MTU, and all but the last are full.
  @Test(arguments: [true, false]) func anySizeIsPutTogetherAgain(isIPv4: Bool) throws {
    var random = SeededGenerator(seed: 5)
    let fixture = ReassemblerFixture()
    for round in 0..<300 {
      var datagram = TestFragment.datagram(
        isIPv4: isIPv4, identification: UInt32(round), Int.random(in: 1300...9000, using: &random))
      datagram.options = [[], [1, 1, 1, 0], [0x94, 4, 0, 0, 7, 3, 4, 0]][round % 3]
      let mtu = Int.random(in: (isIPv4 ? 68 : 1280)...1300, using: &random)
      let packet = datagram.whole.bytes
      let fragments = try #require(cut(packet, mtu: mtu, identification: UInt32(round)))
      let sizes = fragments.map(\.count)
      #expect(sizes.allSatisfy { $0 <= mtu } && sizes.dropLast().allSatisfy { $0 > mtu - 8 })
      for fragment in fragments.dropLast() { #expect(fixture.add(fragment) == .held) }
      let isSame = fixture.add(fragments.last!) == .complete(packet)
      #expect(isSame)
    }
  }

  /// RFC 791 section 3.1: options with the copied flag are in every fragment.
  @Test func optionsWithTheCopiedFlagAreInEveryFragment() throws {
    // Record route, no operation, security, router alert, end.
    let options: [UInt8] = [
      7, 7, 4, 0, 0, 0, 0, 1, 0x82, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x94, 4, 0, 0, 0,
    ]
    let datagram = TestFragment.datagram(300).with { $0.options = options }
    let fragments = try #require(cut(datagram.whole.bytes, mtu: 140))
    #expect(fragments[0][0] == 0x4b && Array(fragments[0][20..<44]) == options)
    let copied: [UInt8] = Array(options[8..<23]) + [0]
    for fragment in fragments[1...] {
      #expect(fragment[0] == 0x49 && Array(fragment[20..<36]) == copied)
    }
    // 96, then 104 each: the shorter header leaves more room.
    #expect(fragments.map(\.count) == [140, 140, 136])
    #expect(fragments.allSatisfy { PacketModel($0) != nil })
    for bytes in fragments {
      let fragment = PacketBuffer(bytes)
      #expect(IPv4Header(at: fragment.start, byteCount: bytes.count)?.hasIntactChecksum == true)
    }
  }

  @Test func brokenOptionsAreRefusedWhereThePacketIsCut() {
    for options: [UInt8] in [[7, 0, 0, 0], [7, 1, 0, 0], [7, 5, 0, 0], [1, 1, 1, 7]] {
      let datagram = TestFragment.datagram(300).with { $0.options = options }
      #expect(cut(datagram.whole.bytes, mtu: 140) == nil)
      #expect(cut(datagram.whole.bytes, mtu: 500) == [datagram.whole.bytes])
    }
    let ended = TestFragment.datagram(300).with { $0.options = [0, 7, 0, 0] }
    #expect(cut(ended.whole.bytes, mtu: 140)?.count == 3)
  }

  @Test(arguments: [true, false]) func packetThatFitsStaysAsItIs(isIPv4: Bool) {
    let packet = TestFragment.datagram(isIPv4: isIPv4, 1300).with { $0.hasFragmentHeader = false }
    for packet in [packet, packet.with { $0.mayNotBeFragmented = true }] {
      let bytes = packet.bytes
      #expect(cut(bytes, mtu: bytes.count) == [bytes])
      #expect(cut(bytes + [1, 2], mtu: bytes.count) == [bytes])
      #expect(cut(bytes, mtu: 70_000) == [bytes])
    }
  }

  @Test func whatMayNotBeCut() {
    let ipv4 = TestFragment.datagram(1300).whole
    #expect(cut(ipv4.bytes, mtu: 1300) != nil)
    #expect(cut(ipv4.with { $0.mayNotBeFragmented = true }.bytes, mtu: 1300) == nil)
    #expect(cut(ipv4.with { $0.hasMore = true }.bytes, mtu: 1300) == nil)
    #expect(cut(ipv4.with { $0.byteOffset = 8 }.bytes, mtu: 1300) == nil)
    let ipv6 = TestFragment.datagram(isIPv4: false, 1300).whole
    #expect(cut(ipv6.bytes, mtu: 1300) != nil)
    #expect(cut(ipv6.with { $0.hasFragmentHeader = true }.bytes, mtu: 1300) == nil)
    for number: UInt8 in [0, 43, 60] {
      let extended = ipv6.with { $0.extensions = [(number, [0, 0, 1, 4, 0, 0, 0, 0])] }
      #expect(cut(extended.bytes, mtu: 1300) == nil)
    }
  }

  @Test func linksThatAreTooSmall() {
    let ipv4 = TestFragment.datagram(60).whole.bytes
    let ipv6 = TestFragment.datagram(isIPv4: false, 60).whole.bytes
    for mtu in [-1, 0, 19, 67] { #expect(cut(ipv4, mtu: mtu) == nil) }
    for mtu in [-1, 0, 68, 1279] { #expect(cut(ipv6, mtu: mtu) == nil) }
    #expect(cut(ipv4, mtu: 68)?.count == 2 && cut(ipv6, mtu: 1280)?.count == 1)
  }

  @Test func whatIsNoPacket() {
    for bytes in [[], [0x45], [UInt8](repeating: 0x55, count: 60)] {
      #expect(cut(bytes, mtu: 1500) == nil)
    }
    let short = TestFragment.datagram(60).whole.bytes.dropLast()
    #expect(cut(Array(short), mtu: 1500) == nil)
  }
}
