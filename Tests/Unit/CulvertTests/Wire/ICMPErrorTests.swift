import Testing

@testable import Culvert

private let source4 = ipv4(10, 0, 0, 1)
private let target4 = ipv4(192, 0, 2, 9)
private let source6 = ipv6(0xfd00_0000_0000_0000, 1)
private let target6 = ipv6(0x2001_0db8_0000_0000, 9)
private let headroom = ICMPError.headroomByteCount

@Suite struct ICMPErrorTests {
  /// A packet behind the headroom; its payload counts up from 0x30.
  private func packet4(
    _ byteCount: Int = 60, protocol number: UInt8 = 17, source: IPAddress = source4,
    destination: IPAddress = target4, fragmentField: UInt16 = 0
  ) -> PacketBuffer {
    let buffer = PacketBuffer(byteCount: headroom + byteCount)
    for offset in 20..<byteCount { buffer[headroom + offset] = UInt8(truncatingIfNeeded: offset) }
    IPv4Header.write(
      at: buffer.start + headroom, totalByteCount: byteCount, identification: 77,
      fragmentField: fragmentField, protocol: number, source: source, destination: destination)
    return buffer
  }

  private func packet6(
    _ byteCount: Int = 80, nextHeader: UInt8 = 17, source: IPAddress = source6,
    destination: IPAddress = target6
  ) -> PacketBuffer {
    let buffer = PacketBuffer(byteCount: headroom + byteCount)
    for offset in 40..<byteCount { buffer[headroom + offset] = UInt8(truncatingIfNeeded: offset) }
    IPv6Header.write(
      at: buffer.start + headroom, payloadByteCount: byteCount - 40, nextHeader: nextHeader,
      source: source, destination: destination)
    return buffer
  }

  private func write(
    _ kind: ICMPErrorKind, _ buffer: PacketBuffer, source: IPAddress? = nil
  ) -> ICMPError? {
    ICMPError.write(
      kind, in: buffer.start, packetByteOffset: headroom,
      packetByteCount: buffer.byteCount - headroom, source: source)
  }

  @Test(arguments: [28, 548, 549, 1500]) func ipv4Layout(byteCount: Int) throws {
    let buffer = packet4(byteCount)
    let quoted = Array(buffer.bytes[headroom...])
    let error = try #require(write(.hostUnreachable, buffer))
    #expect(error.byteOffset == headroom - 28)
    #expect(error.byteCount == min(576, 28 + byteCount))
    let start = buffer.start + error.byteOffset
    let header = try #require(IPv4Header(at: start, byteCount: error.byteCount))
    #expect(header.totalByteCount == error.byteCount && header.hasIntactChecksum)
    #expect(header.source == target4 && header.destination == source4)
    #expect(header.protocolNumber == IPProtocol.icmp && !header.isFragment)
    #expect(header.payload.byte(0) == 3 && header.payload.byte(1) == 1)
    let end = error.byteOffset + error.byteCount
    let message = Array(buffer.bytes[(error.byteOffset + 20)..<end])
    #expect(naiveSum(message) == 0xffff)
    #expect(Array(message[8...]) == Array(quoted[..<(error.byteCount - 28)]))
  }

  @Test(arguments: [48, 1232, 1233, 1500]) func ipv6Layout(byteCount: Int) throws {
    let buffer = packet6(byteCount)
    let quoted = Array(buffer.bytes[headroom...])
    let error = try #require(write(.hostUnreachable, buffer))
    #expect(error.byteOffset == 0 && error.byteCount == min(1280, 48 + byteCount))
    let header = try #require(IPv6Header(at: buffer.start, byteCount: error.byteCount))
    #expect(header.totalByteCount == error.byteCount)
    #expect(header.source == target6 && header.destination == source6)
    #expect(header.nextHeader == IPProtocol.icmpv6)
    let message = Array(buffer.bytes[40..<error.byteCount])
    #expect(message[0] == 1 && message[1] == 3)
    let pseudo =
      Array(buffer.bytes[8..<40])
      + [0, 0, UInt8(message.count >> 8), UInt8(message.count & 0xff), 0, 0, 0, 58]
    #expect(naiveSum(pseudo + message) == 0xffff)
    #expect(Array(message[8...]) == Array(quoted[..<(error.byteCount - 48)]))
  }

  @Test func typesCodesAndMTU() throws {
    let kinds: [(ICMPErrorKind, [UInt8], [UInt8])] = [
      (.noRoute, [3, 0], [1, 0]),
      (.hostUnreachable, [3, 1], [1, 3]),
      (.administrativelyProhibited, [3, 13], [1, 1]),
      (.packetTooBig(mtu: 1420), [3, 4], [2, 0]),
      (.reassemblyTimeExceeded, [11, 1], [3, 1]),
    ]
    for (kind, ipv4, ipv6) in kinds {
      let buffer4 = packet4()
      let error4 = try #require(write(kind, buffer4))
      #expect(Array(buffer4.bytes[(error4.byteOffset + 20)...].prefix(2)) == ipv4)
      let buffer6 = packet6()
      let error6 = try #require(write(kind, buffer6))
      #expect(Array(buffer6.bytes[(error6.byteOffset + 40)...].prefix(2)) == ipv6)
      guard case .packetTooBig = kind else { continue }
      #expect(Array(buffer4.bytes[(error4.byteOffset + 24)...].prefix(4)) == [0, 0, 0x05, 0x8c])
      #expect(Array(buffer6.bytes[(error6.byteOffset + 44)...].prefix(4)) == [0, 0, 0x05, 0x8c])
    }
  }

  @Test func paddingBehindThePacketIsNotQuoted() throws {
    let buffer = packet4(40)
    let longer = PacketBuffer(buffer.bytes + [1, 2, 3])
    let error = try #require(write(.noRoute, longer))
    #expect(error.byteCount == 28 + 40)
  }

  @Test func sourceCanBeGiven() throws {
    let buffer = packet4()
    let error = try #require(write(.noRoute, buffer, source: ipv4(10, 9, 9, 9)))
    let header = try #require(
      IPv4Header(at: buffer.start + error.byteOffset, byteCount: error.byteCount))
    #expect(header.source == ipv4(10, 9, 9, 9))
    #expect(write(.noRoute, packet4(), source: source6) == nil)
    #expect(write(.noRoute, packet6(), source: source4) == nil)
  }

  @Test func noErrorAboutAnError() {
    for type: UInt8 in 0...255 {
      let packet = packet4(protocol: IPProtocol.icmp)
      packet[headroom + 20] = type
      #expect((write(.noRoute, packet) == nil) == [3, 4, 5, 11, 12].contains(type))
      let packet6 = packet6(nextHeader: IPProtocol.icmpv6)
      packet6[headroom + 40] = type
      #expect((write(.noRoute, packet6) == nil) == (type < 128 || type == 137))
    }
    // Hidden behind options, or cut off before the type.
    let hidden = packet6(nextHeader: IPProtocol.destinationOptions)
    hidden[headroom + 40] = IPProtocol.icmpv6
    hidden[headroom + 41] = 0
    hidden[headroom + 48] = 1
    #expect(write(.noRoute, hidden) == nil)
    #expect(write(.noRoute, packet4(20, protocol: IPProtocol.icmp)) == nil)
    #expect(write(.noRoute, packet6(40, nextHeader: IPProtocol.icmpv6)) == nil)
  }

  @Test func noErrorToOrAboutSeveralHosts() {
    let several4 = [
      ipv4(0, 0, 0, 0), ipv4(0, 1, 2, 3), ipv4(127, 0, 0, 1), ipv4(224, 0, 0, 1),
      ipv4(239, 255, 255, 255), ipv4(240, 0, 0, 1), ipv4(255, 255, 255, 255),
    ]
    for address in several4 {
      #expect(write(.noRoute, packet4(source: address)) == nil)
      #expect(write(.noRoute, packet4(destination: address)) == nil)
      #expect(write(.noRoute, packet4(), source: address) == nil)
    }
    for address in [ipv6(0, 0), ipv6(0, 1), ipv6(0xff02_0000_0000_0000, 1)] {
      #expect(write(.noRoute, packet6(source: address)) == nil)
      #expect(write(.noRoute, packet6(destination: address)) == nil)
      #expect(write(.noRoute, packet6(), source: address) == nil)
    }
    // RFC 4443 section 2.4(e.3): except that a multicast may be too big, if someone can say so.
    let group = ipv6(0xff0e_0000_0000_0000, 1)
    #expect(write(.packetTooBig(mtu: 1280), packet6(destination: group)) == nil)
    #expect(
      write(.packetTooBig(mtu: 1280), packet6(destination: group), source: target6) != nil)
    #expect(write(.noRoute, packet6(destination: group), source: target6) == nil)
  }

  @Test func noErrorAboutALaterFragment() {
    #expect(write(.noRoute, packet4(fragmentField: 0x2000)) != nil)
    #expect(write(.noRoute, packet4(fragmentField: 0x0001)) == nil)
    let first = packet6(nextHeader: IPProtocol.fragment)
    let fragment: [UInt8] = [17, 0, 0, 1, 0, 0, 0, 1]
    for (offset, byte) in fragment.enumerated() { first[headroom + 40 + offset] = byte }
    #expect(write(.noRoute, first) != nil)
    let later = packet6(nextHeader: IPProtocol.fragment)
    for (offset, byte) in fragment.enumerated() { later[headroom + 40 + offset] = byte }
    later[headroom + 43] = 9
    #expect(write(.noRoute, later) == nil)
  }

  @Test func noErrorWithoutRoomOrPacket() {
    let packet = packet4()
    #expect(
      ICMPError.write(
        .noRoute, in: packet.start + 1, packetByteOffset: headroom - 1, packetByteCount: 60) == nil)
    packet[headroom] = 0x55
    #expect(write(.noRoute, packet) == nil)
    #expect(
      ICMPError.write(
        .noRoute, in: packet.start, packetByteOffset: headroom, packetByteCount: 0) == nil)
  }
}
