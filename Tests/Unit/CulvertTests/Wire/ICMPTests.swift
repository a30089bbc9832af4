import Testing

@testable import Culvert

private let source4 = ipv4(10, 0, 0, 1)
private let target4 = ipv4(192, 0, 2, 9)
private let source6 = ipv6(0xfd00_0000_0000_0000, 1)
private let target6 = ipv6(0x2001_0db8_0000_0000, 9)
private let headroom = ICMPError.headroomByteCount

@Suite struct ICMPErrorTests {
  /// A packet after the headroom; its payload counts up from 0x30.
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
    // Behind options, or cut off before the type.
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
    // RFC 4443 section 2.4(e.3): "packet too big" may answer a multicast, but the error must have a
    // unicast source.
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

private let near4 = ipv4(10, 0, 0, 1)
private let far4 = ipv4(192, 0, 2, 9)
private let router4 = ipv4(203, 0, 113, 1)
private let near6 = ipv6(0xfd00_0000_0000_0000, 1)
private let far6 = ipv6(0x2001_0db8_0000_0000, 9)
private let router6 = ipv6(0x2001_0db8_0000_0000, 0xfff)

@Suite struct ICMPMessageTests {
  /// The result of reading a message.
  private struct Reading: Equatable {
    /// Nil for no result, -1 for unreachable, otherwise the MTU.
    var effect: Int?
    var source: IPAddress?
    var destination: IPAddress?
    var ports: [UInt16] = []
  }

  /// Reads an error in memory of exactly its size; nil if it is not one.
  private func read(_ packet: [UInt8]) -> Reading? {
    let buffer = PacketBuffer(packet)
    return withExtendedLifetime(buffer) {
      guard let content = TransportContent(at: buffer.start, byteCount: buffer.byteCount),
        let message = ICMPMessage(content)
      else { return nil }
      var reading = Reading()
      switch message.effect {
      case .unreachable: reading.effect = -1
      case .tooBig(let mtu): reading.effect = mtu
      case nil: break
      }
      if let quoted = message.quotedDatagram {
        reading.source = quoted.source
        reading.destination = quoted.destination
        reading.ports = [quoted.sourcePort, quoted.destinationPort]
      }
      return reading
    }
  }

  private func datagram(_ family: IPAddress.Family, _ byteCount: Int = 8) -> ChannelPacket {
    var model = ChannelPacket(
      source: family == .ipv4 ? near4 : near6, destination: family == .ipv4 ? far4 : far6)
    model.sourcePort = 51_820
    model.destinationPort = 0xfedc
    model.payload = [UInt8](repeating: 5, count: byteCount)
    return model
  }

  private func error(
    _ type: UInt8, _ code: UInt8, word: Int = 0, quoting quoted: [UInt8],
    _ family: IPAddress.Family
  ) -> [UInt8] {
    ChannelPacket.icmp(
      type, code, word: word, quoting: quoted, from: family == .ipv4 ? router4 : router6,
      to: family == .ipv4 ? near4 : near6
    ).bytes
  }

  private func expected(_ family: IPAddress.Family, _ effect: Int?) -> Reading {
    Reading(
      effect: effect, source: family == .ipv4 ? near4 : near6,
      destination: family == .ipv4 ? far4 : far6, ports: [51_820, 0xfedc])
  }

  // MARK: Types and codes

  @Test func everyTypeAndCodeOfIPv4() {
    let quoted = datagram(.ipv4).bytes
    for type: UInt8 in 0...255 {
      for code: UInt8 in 0...20 {
        var effect: Int?
        if type == 3, code <= 3 || (9...13).contains(code) { effect = -1 }
        if type == 3, code == 4 { effect = 1400 }
        let packet = error(type, code, word: 0xabcd_0000 | 1400, quoting: quoted, .ipv4)
        #expect(read(packet) == expected(.ipv4, effect), "\(type) \(code)")
      }
    }
  }

  @Test func everyTypeAndCodeOfIPv6() {
    let quoted = datagram(.ipv6).bytes
    for type: UInt8 in 0...255 {
      for code: UInt8 in 0...7 {
        let effect: Int? = type == 1 ? -1 : type == 2 ? 1400 : nil
        let packet = error(type, code, word: 1400, quoting: quoted, .ipv6)
        #expect(read(packet) == expected(.ipv6, effect), "\(type) \(code)")
      }
    }
  }

  @Test func mtus() {
    for (word, ipv4, ipv6) in [
      (0, 0, 0), (1, 1, 1), (68, 68, 68), (0xffff, 0xffff, 0xffff), (0x1_0000, 0, 0xffff),
      (0x8000_0000, 0, 0xffff), (0xffff_ffff, 0xffff, 0xffff),
    ] {
      let packet4 = error(3, 4, word: word, quoting: datagram(.ipv4).bytes, .ipv4)
      #expect(read(packet4)?.effect == ipv4)
      let packet6 = error(2, 0, word: word, quoting: datagram(.ipv6).bytes, .ipv6)
      #expect(read(packet6)?.effect == ipv6)
    }
  }

  // MARK: The message

  @Test func wrongChecksumsAreRefused() {
    for family: IPAddress.Family in [.ipv4, .ipv6] {
      let packet = error(family == .ipv4 ? 3 : 1, 1, quoting: datagram(family).bytes, family)
      let start = family == .ipv4 ? 20 : 40
      for bit in start * 8..<packet.count * 8 {
        var wrong = packet
        wrong[bit / 8] ^= 1 << (bit % 8)
        #expect(read(wrong) == nil)
      }
      // ICMPv6 covers the addresses.
      if family == .ipv6 {
        var wrong = packet
        wrong[8] ^= 1
        #expect(read(wrong) == nil)
      }
    }
  }

  @Test func shortMessagesAreRefused() {
    for count in 0..<8 {
      var packet = ChannelPacket(source: router4, destination: near4)
      packet.other = (1, [UInt8](repeating: 0, count: count))
      #expect(read(packet.bytes) == nil)
    }
  }

  /// However short the quotation is, nothing beyond its end is read.
  @Test func quotationsAreCutAnywhere() {
    for family: IPAddress.Family in [.ipv4, .ipv6] {
      let quoted = datagram(family, 40).bytes
      let enough = (family == .ipv4 ? 20 : 40) + 4
      for count in 0...quoted.count {
        let packet = error(
          family == .ipv4 ? 3 : 1, 1, quoting: Array(quoted[..<count]), family)
        let wanted = count < enough ? Reading(effect: -1) : expected(family, -1)
        #expect(read(packet) == wanted, "\(count) bytes")
      }
    }
  }

  // MARK: The quotation

  @Test func optionsOfIPv4AreSkipped() {
    for count in stride(from: 4, through: 40, by: 4) {
      var model = datagram(.ipv4)
      model.ipv4Options = [UInt8](repeating: 1, count: count)
      for cut in [20 + count + 3, 20 + count + 4, 20 + count + 8] {
        let packet = error(3, 3, quoting: Array(model.bytes[..<cut]), .ipv4)
        let isEnough = cut >= 20 + count + 4
        #expect(read(packet) == (isEnough ? expected(.ipv4, -1) : Reading(effect: -1)))
      }
    }
    // A header length below the minimum.
    for words: UInt8 in 0..<5 {
      var quoted = datagram(.ipv4).bytes
      quoted[0] = 0x40 | words
      #expect(read(error(3, 3, quoting: quoted, .ipv4)) == Reading(effect: -1))
    }
  }

  @Test func onlyUDPOfTheFamilyIsLookedAt() {
    for family: IPAddress.Family in [.ipv4, .ipv6] {
      let type: UInt8 = family == .ipv4 ? 3 : 1
      let quoted = datagram(family).bytes
      for number: UInt8 in [0, 1, 6, 43, 44, 58, 59, 60, 255] {
        var other = quoted
        other[family == .ipv4 ? 9 : 6] = number
        let reading = read(error(type, 3, quoting: other, family))
        #expect(reading == Reading(effect: -1), "\(number)")
      }
      for version: UInt8 in 0...15 where version != quoted[0] >> 4 {
        let other = [version << 4 | quoted[0] & 0xf] + quoted[1...]
        #expect(read(error(type, 3, quoting: Array(other), family)) == Reading(effect: -1))
      }
    }
  }

  /// Only the first of our fragments has the ports.
  @Test func fragmentsAreKnownByTheFirst() {
    for family: IPAddress.Family in [.ipv4, .ipv6] {
      let type: UInt8 = family == .ipv4 ? 3 : 1
      let fragments = datagram(family, 100).fragments(48)
      for (index, fragment) in fragments.enumerated() {
        let reading = read(error(type, 1, quoting: fragment, family))
        #expect(reading == (index == 0 ? expected(family, -1) : Reading(effect: -1)))
      }
    }
    // The fragment header cut off, and one that carries something else.
    let first = datagram(.ipv6, 100).fragments(48)[0]
    for count in 40..<52 {
      let reading = read(error(1, 1, quoting: Array(first[..<count]), .ipv6))
      #expect(reading == Reading(effect: -1))
    }
    #expect(
      read(error(1, 1, quoting: Array(first[..<52]), .ipv6)) == expected(.ipv6, -1))
    var other = first
    other[40] = 6
    #expect(read(error(1, 1, quoting: other, .ipv6)) == Reading(effect: -1))
  }
}
