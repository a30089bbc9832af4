import Testing

@testable import Culvert

@Suite struct TransportContentTests {
  private let families: [IPAddress.Family] = [.ipv4, .ipv6]

  private func model(_ family: IPAddress.Family, _ payload: [UInt8] = [9, 8, 7]) -> ChannelPacket {
    let isIPv4 = family == .ipv4
    return ChannelPacket(
      source: isIPv4 ? ipv4(10, 1, 2, 3) : ipv6(0xfd00 << 48 | 5, 6),
      destination: isIPv4 ? ipv4(192, 0, 2, 1) : ipv6(0x2001_0db8 << 32, 0xabcd),
      payload: payload, trafficClass: 0xb9)
  }

  /// Reads a packet in memory of just its size, and gives `body` what it carries and its start.
  private func read(
    _ packet: [UInt8], _ body: (TransportContent?, UnsafeMutableRawPointer) -> Void
  ) {
    let buffer = PacketBuffer(packet)
    withExtendedLifetime(buffer) {
      body(TransportContent(at: buffer.start, byteCount: buffer.byteCount), buffer.start)
    }
  }

  private func expectContent(_ model: ChannelPacket, headerByteCount: Int, padding: Int = 0) {
    let bytes = model.bytes
    read(bytes + [UInt8](repeating: 0xff, count: padding)) { content, start in
      guard let content else {
        Issue.record("\(bytes)")
        return
      }
      #expect(content.source == model.source && content.destination == model.destination)
      #expect(content.trafficClass == 0xb9)
      #expect(content.protocolNumber == model.other?.number ?? 17)
      #expect(content.bytes == start + headerByteCount)
      #expect(content.byteCount == bytes.count - headerByteCount)
    }
  }

  private func expectNone(
    _ packet: [UInt8], sourceLocation: SourceLocation = #_sourceLocation
  ) {
    read(packet) { content, _ in #expect(content == nil, sourceLocation: sourceLocation) }
  }

  @Test func plainPackets() {
    for family in families {
      for padding in [0, 1, 100] {
        expectContent(
          model(family), headerByteCount: family == .ipv4 ? 20 : 40, padding: padding)
      }
      var other = model(family)
      other.other = (6, [1, 2])
      expectContent(other, headerByteCount: family == .ipv4 ? 20 : 40)
      other.other = (255, [])
      expectContent(other, headerByteCount: family == .ipv4 ? 20 : 40)
    }
  }

  @Test func optionsAndExtensions() {
    var options = model(.ipv4)
    for count in stride(from: 4, through: 40, by: 4) {
      options.ipv4Options = [UInt8](repeating: 1, count: count)
      expectContent(options, headerByteCount: 20 + count)
    }
    var extensions = model(.ipv6)
    extensions.extensions = [.options(8)]
    expectContent(extensions, headerByteCount: 48)
    extensions.extensions = [.options(256), .options(16)]
    extensions.extensions[1].number = 43
    expectContent(extensions, headerByteCount: 312)
    extensions.other = (59, [])
    expectContent(extensions, headerByteCount: 312)
  }

  /// Fragments carry no whole header; not even an IPv6 one that is alone.
  @Test func fragmentsAreRefused() {
    for family in families {
      for fragment in model(family, [UInt8](repeating: 1, count: 100)).fragments(48) {
        expectNone(fragment)
      }
    }
    expectNone(model(.ipv6).fragments(64)[0])
    var forbidden = model(.ipv4).bytes
    forbidden[6] = 0x40
    read(forbidden) { content, _ in #expect(content != nil) }
  }

  @Test func brokenOnesAreRefused() {
    for family in families {
      var model = model(family)
      if family == .ipv6 { model.extensions = [.options(24), .options(8)] }
      if family == .ipv4 { model.ipv4Options = [1, 1, 1, 1] }
      let bytes = model.bytes
      for count in 0..<bytes.count { expectNone(Array(bytes[..<count])) }
      for version: UInt8 in 0...15 where version != bytes[0] >> 4 {
        // Of one family's version in the other's packet the lengths make no sense.
        expectNone([version << 4 | bytes[0] & 0xf] + bytes[1...])
      }
    }
    // An extension header that leaves the packet.
    var long = model(.ipv6)
    long.extensions = [.options(8)]
    var bytes = long.bytes
    bytes[41] = 3
    expectNone(bytes)
    long.extensions = Array(repeating: .options(8), count: 9)
    expectNone(long.bytes)
  }
}
