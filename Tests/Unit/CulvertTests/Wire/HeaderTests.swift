import Testing

@testable import Culvert

private let source4 = ipv4(10, 0, 0, 1)
private let target4 = ipv4(10, 0, 0, 2)
private let source6 = ipv6(0x2001_0db8_0000_0000, 1)
private let target6 = ipv6(0x2001_0db8_0000_0000, 2)

/// A whole IPv4 packet. `payload`, `options` and `padding` are byte counts; `options` is a multiple
/// of 4.
private func ipv4Packet(payload: Int, options: Int = 0, padding: Int = 0) -> PacketBuffer {
  let packet = PacketBuffer(byteCount: 20 + options + payload + padding)
  let header = IPv4Header.write(
    at: packet.start, totalByteCount: 20 + options + payload, trafficClass: 0xb8,
    identification: 0x1234, timeToLive: 63, protocol: IPProtocol.udp, source: source4,
    destination: target4)
  packet[0] = UInt8(0x45 + options / 4)
  header.updateChecksum()
  return packet
}

private func ipv6Packet(payload: Int, padding: Int = 0) -> PacketBuffer {
  let packet = PacketBuffer(byteCount: 40 + payload + padding)
  IPv6Header.write(
    at: packet.start, payloadByteCount: payload, trafficClass: 0xb9, flowLabel: 0xabcde,
    hopLimit: 7, nextHeader: IPProtocol.udp, source: source6, destination: target6)
  return packet
}

@Suite struct HeaderTests {
  @Test func ipv4Fields() throws {
    let packet = ipv4Packet(payload: 8)
    let header = try #require(IPv4Header(at: packet.start, byteCount: packet.byteCount))
    #expect(header.source == source4 && header.destination == target4)
    #expect(header.headerByteCount == 20 && header.totalByteCount == 28)
    #expect(header.payloadByteCount == 8 && header.payload == packet.start + 20)
    #expect(header.trafficClass == 0xb8 && header.timeToLive == 63)
    #expect(header.protocolNumber == IPProtocol.udp && header.identification == 0x1234)
    #expect(!header.isFragment && !header.mayNotBeFragmented && header.hasIntactChecksum)
    packet[8] ^= 1
    #expect(!header.hasIntactChecksum)
  }

  @Test func ipv4SettersKeepTheChecksumRight() throws {
    var random = SeededGenerator(seed: 4)
    let packet = ipv4Packet(payload: 8)
    let header = try #require(IPv4Header(at: packet.start, byteCount: packet.byteCount))
    for _ in 0..<500 {
      let word = UInt16(truncatingIfNeeded: random.next())
      header.trafficClass = UInt8(word & 0xff)
      header.timeToLive = UInt8(word >> 8)
      header.identification = word
      header.fragmentField = ~word
      header.setTotalByteCount(20 + Int(word) % 9)
      #expect(header.trafficClass == UInt8(word & 0xff) && header.timeToLive == UInt8(word >> 8))
      #expect(header.identification == word && header.fragmentField == ~word)
      #expect(header.headerByteCount == 20 && header.protocolNumber == IPProtocol.udp)
      #expect(header.hasIntactChecksum)
    }
  }

  /// F13 depends on them: a packet with only DF set is not a fragment.
  @Test func ipv4FragmentFields() throws {
    let packet = ipv4Packet(payload: 8)
    let header = try #require(IPv4Header(at: packet.start, byteCount: packet.byteCount))
    header.fragmentField = 0x4000
    #expect(header.mayNotBeFragmented && !header.isFragment && !header.hasMoreFragments)
    header.fragmentField = 0x6000
    #expect(header.isFragment && header.hasMoreFragments && header.fragmentByteOffset == 0)
    header.fragmentField = 0x1fff
    #expect(header.isFragment && !header.hasMoreFragments && header.fragmentByteOffset == 65_528)
  }

  @Test func ipv6Fields() throws {
    let packet = ipv6Packet(payload: 3)
    let header = try #require(IPv6Header(at: packet.start, byteCount: packet.byteCount))
    #expect(header.source == source6 && header.destination == target6)
    #expect(header.payloadByteCount == 3 && header.totalByteCount == 43)
    #expect(header.trafficClass == 0xb9 && header.flowLabel == 0xabcde)
    #expect(header.nextHeader == IPProtocol.udp && header.hopLimit == 7)
    header.trafficClass = 0x46
    header.hopLimit = 9
    #expect(header.trafficClass == 0x46 && header.flowLabel == 0xabcde && header.hopLimit == 9)
    #expect(packet[0] == 0x64)
  }

  @Test(arguments: [4, 20, 40]) func R38_ipv4OptionsAreRouted(optionByteCount: Int) throws {
    let packet = ipv4Packet(payload: 8, options: optionByteCount)
    let inner = try #require(InnerPacket(at: packet.start, byteCount: packet.byteCount))
    #expect(inner.source == source4 && inner.destination == target4)
    #expect(inner.byteCount == 28 + optionByteCount)
    let header = try #require(IPv4Header(at: packet.start, byteCount: packet.byteCount))
    #expect(header.headerByteCount == 20 + optionByteCount && header.payloadByteCount == 8)
    #expect(header.hasIntactChecksum)
    // Options that the total length does not cover.
    header.setTotalByteCount(20 + optionByteCount - 1)
    #expect(InnerPacket(at: packet.start, byteCount: packet.byteCount) == nil)
  }

  @Test func R14_paddingIsTrimmedToTheInnerLength() throws {
    let packet4 = ipv4Packet(payload: 5, padding: 7)
    let inner4 = try #require(InnerPacket(at: packet4.start, byteCount: packet4.byteCount))
    #expect(inner4.byteCount == 25 && inner4.family == .ipv4 && inner4.trafficClass == 0xb8)
    let packet6 = ipv6Packet(payload: 5, padding: 3)
    let inner6 = try #require(InnerPacket(at: packet6.start, byteCount: packet6.byteCount))
    #expect(inner6.byteCount == 45 && inner6.family == .ipv6 && inner6.trafficClass == 0xb9)
    #expect(inner6.source == source6 && inner6.destination == target6)
  }

  @Test func R14_innerLengthsBeyondTheBufferAreRefused() {
    for packet in [ipv4Packet(payload: 5), ipv6Packet(payload: 5)] {
      #expect(InnerPacket(at: packet.start, byteCount: packet.byteCount) != nil)
      for byteCount in 0..<packet.byteCount {
        let short = PacketBuffer(Array(packet.bytes[..<byteCount]))
        #expect(InnerPacket(at: short.start, byteCount: byteCount) == nil)
      }
    }
  }

  @Test func R14_malformedHeadersAreRefused() {
    let packet = ipv4Packet(payload: 40)
    for version: UInt8 in 0...15 where version != 4 && version != 6 {
      packet[0] = version << 4 | 5
      #expect(InnerPacket(at: packet.start, byteCount: packet.byteCount) == nil)
    }
    for words: UInt8 in 0..<5 {
      packet[0] = 0x40 | words
      #expect(InnerPacket(at: packet.start, byteCount: packet.byteCount) == nil)
    }
    packet[0] = 0x45
    for total: UInt8 in 0..<20 {
      packet[2] = 0
      packet[3] = total
      #expect(InnerPacket(at: packet.start, byteCount: packet.byteCount) == nil)
    }
    // A jumbogram: payload length 0, then hop-by-hop options.
    let jumbo = ipv6Packet(payload: 8)
    jumbo[5] = 0
    #expect(InnerPacket(at: jumbo.start, byteCount: jumbo.byteCount) != nil)
    jumbo[6] = 0
    #expect(InnerPacket(at: jumbo.start, byteCount: jumbo.byteCount) == nil)
  }

  @Test func udpHeaderAndChecksum() throws {
    for (source, target) in [(source4, target4), (source6, target6)] {
      let datagram = PacketBuffer(byteCount: 8 + 5 + 2)
      let header = UDPHeader.write(
        at: datagram.start, totalByteCount: 13, source: 51820, destination: 53)
      for offset in 8..<15 { datagram[offset] = UInt8(offset) }
      #expect(header.hasIntactChecksum(source: source, destination: target) == (source == source4))
      header.updateChecksum(source: source, destination: target)
      let view = try #require(UDPHeader(at: datagram.start, byteCount: datagram.byteCount))
      #expect(view.source == 51820 && view.destination == 53 && view.payloadByteCount == 5)
      #expect(view.hasIntactChecksum(source: source, destination: target))
      // Bytes after the datagram are ignored.
      datagram[14] ^= 1
      #expect(view.hasIntactChecksum(source: source, destination: target))
      datagram[12] ^= 1
      #expect(!view.hasIntactChecksum(source: source, destination: target))
      for byteCount in 0..<13 {
        #expect(UDPHeader(at: datagram.start, byteCount: byteCount) == nil)
      }
      header.setTotalByteCount(7)
      #expect(UDPHeader(at: datagram.start, byteCount: datagram.byteCount) == nil)
    }
  }

  @Test func tcpHeader() throws {
    let segment = PacketBuffer(byteCount: 32)
    segment[12] = 8 << 4
    segment[13] = TCPHeader.ackFlag | TCPHeader.pshFlag
    segment.start.storeBig(0xdead_beef as UInt32, 4)
    let view = try #require(TCPHeader(at: segment.start, byteCount: 32))
    #expect(view.headerByteCount == 32 && view.sequence == 0xdead_beef && view.flags == 0x18)
    #expect(TCPHeader(at: segment.start, byteCount: 31) == nil)
    segment[12] = 4 << 4
    #expect(TCPHeader(at: segment.start, byteCount: 32) == nil)
  }

  /// Reads every field of each packet that is accepted; under the address sanitizer this also
  /// proves that no read leaves the buffer.
  @Test func R14_randomBuffersNeverTrap() {
    var random = SeededGenerator(seed: 5)
    var accepted = 0
    var escaped = 0
    for round in 0..<100_000 {
      let byteCount = Int.random(in: 0...96, using: &random)
      let packet = PacketBuffer(random.bytes(byteCount))
      // Mostly plausible versions and lengths, or nothing would pass the first check.
      if byteCount > 7 {
        packet[0] = round & 1 == 0 ? 0x40 | packet[0] & 0xf : 0x60 | packet[0] & 0xf
        packet[round & 1 == 0 ? 2 : 4] = 0
        packet[round & 1 == 0 ? 3 : 5] &= 0x7f
      }
      if byteCount > 6, round & 3 == 1 { packet[6] = [0, 43, 44, 60, 58][round % 5] }
      let inner = InnerPacket(at: packet.start, byteCount: byteCount)
      if let inner {
        accepted += 1
        if inner.byteCount > byteCount { escaped += 1 }
      }
      if let header = IPv4Header(at: packet.start, byteCount: byteCount) {
        if inner == nil { escaped += 1 }
        _ = header.hasIntactChecksum
        touchTransport(header.payload, header.payloadByteCount, header.source)
      }
      if let header = IPv6Header(at: packet.start, byteCount: byteCount) {
        if inner == nil { escaped += 1 }
        touchTransport(header.payload, header.payloadByteCount, header.source)
        if let extensions = IPv6Extensions(of: header) {
          if extensions.byteOffset > header.totalByteCount { escaped += 1 }
        }
      }
      let room = PacketBuffer(
        [UInt8](repeating: 0, count: ICMPError.headroomByteCount) + packet.bytes)
      let error = ICMPError.write(
        .hostUnreachable, in: room.start, packetByteOffset: ICMPError.headroomByteCount,
        packetByteCount: byteCount)
      if let error, error.byteOffset + error.byteCount > room.byteCount { escaped += 1 }
    }
    #expect(accepted > 10_000 && escaped == 0)
  }

  private func touchTransport(
    _ bytes: UnsafeMutableRawPointer, _ byteCount: Int, _ address: IPAddress
  ) {
    if let udp = UDPHeader(at: bytes, byteCount: byteCount) {
      _ = udp.hasIntactChecksum(source: address, destination: address)
    }
    if let tcp = TCPHeader(at: bytes, byteCount: byteCount) {
      #expect(tcp.headerByteCount <= byteCount)
    }
  }
}

@Suite struct IPv6ExtensionsTests {
  /// A packet whose payload is `payload`, starting with the header `first`.
  private func walk(_ first: UInt8, _ payload: [UInt8]) -> IPv6Extensions? {
    let packet = PacketBuffer([UInt8](repeating: 0, count: 40) + payload)
    let header = IPv6Header.write(
      at: packet.start, payloadByteCount: payload.count, nextHeader: first,
      source: ipv6(1, 1), destination: ipv6(2, 2))
    return withExtendedLifetime(packet) { IPv6Extensions(of: header) }
  }

  @Test func noExtensions() throws {
    let walked = try #require(walk(17, [0]))
    #expect(walked.protocolNumber == 17 && walked.byteOffset == 40)
    #expect(walked.fragmentHeaderByteOffset == 0 && walked.fragmentByteOffset == 0)
  }

  @Test func optionsThenFragmentThenUDP() throws {
    let options: [UInt8] = [44, 1] + [UInt8](repeating: 0, count: 14)
    let fragment: [UInt8] = [17, 0, 0, 1, 0, 0, 0, 9]
    let walked = try #require(walk(0, options + fragment))
    #expect(walked.protocolNumber == 17 && walked.byteOffset == 64)
    #expect(walked.fragmentHeaderByteOffset == 56 && walked.fragmentByteOffset == 0)
  }

  /// Whatever follows a fragment header with an offset is data.
  @Test func laterFragmentEndsTheWalk() throws {
    let fragment: [UInt8] = [60, 0, 0x05, 0xa9, 0, 0, 0, 9]
    let walked = try #require(walk(44, fragment + [255, 255]))
    #expect(walked.protocolNumber == 60 && walked.byteOffset == 48)
    #expect(walked.fragmentByteOffset == 0x5a8)
  }

  @Test func brokenChainsAreRefused() {
    // Cut off; longer than the packet; a second fragment header; no end.
    #expect(walk(0, [17, 0, 0, 0, 0, 0, 0]) == nil)
    #expect(walk(0, [17, 1, 0, 0, 0, 0, 0, 0]) == nil)
    #expect(walk(44, [44, 0, 0, 1, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 0]) == nil)
    let options: [UInt8] = [60, 0, 0, 0, 0, 0, 0, 0]
    #expect(walk(60, Array(repeating: options, count: 100).flatMap { $0 }) == nil)
  }
}

@Suite struct ECNTests {
  /// RFC 6040 figure 4. Rows: inner Not-ECT, ECT(0), ECT(1), CE; columns: outer in the same order.
  /// Not-ECT in CE passes, as through the kernel's WireGuard.
  @Test func R68_decapsulationTable() {
    let order: [UInt8] = [0b00, 0b10, 0b01, 0b11]
    let table: [[UInt8]] = [
      [0b00, 0b00, 0b00, 0b00],
      [0b10, 0b10, 0b01, 0b11],
      [0b01, 0b01, 0b01, 0b11],
      [0b11, 0b11, 0b11, 0b11],
    ]
    for (row, inner) in order.enumerated() {
      for (column, outer) in order.enumerated() {
        // The DSCP above the codepoint is ignored.
        let combined = ECN.combine(inner: inner | 0xb8, outer: outer | 0x40)
        #expect(combined == table[row][column], "inner \(inner) outer \(outer)")
      }
    }
  }

  @Test func encapsulationCopiesTheCodepointOnly() {
    for trafficClass: UInt8 in 0...255 {
      #expect(ECN.encapsulate(trafficClass) == trafficClass & 3)
    }
  }
}
