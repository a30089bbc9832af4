import Testing

@testable import Culvert

@Suite struct MessageTests {
  private func type(_ bytes: [UInt8]) -> MessageType? {
    let datagram = PacketBuffer(bytes)
    return MessageType(at: datagram.start, byteCount: datagram.byteCount)
  }

  @Test func R30_eachTypeHasItsExactLength() {
    let lengths: [(UInt8, Int, MessageType)] = [
      (1, 148, .initiation), (2, 92, .response), (3, 64, .cookieReply),
    ]
    for (number, length, expected) in lengths {
      for byteCount in 0...200 {
        let bytes = (0..<byteCount).map { $0 == 0 ? number : 0 }
        #expect(type(bytes) == (byteCount == length ? expected : nil), "\(number): \(byteCount)")
      }
    }
    for byteCount in 0...200 {
      let bytes = (0..<byteCount).map { $0 == 0 ? UInt8(4) : 0 }
      #expect(type(bytes) == (byteCount >= 32 ? .transportData : nil))
    }
  }

  @Test func R30_reservedBytesMustBeZero() {
    for (number, length) in [(1, 148), (2, 92), (3, 64), (4, 32)] as [(UInt8, Int)] {
      for reserved in 1...3 {
        for bit in 0..<8 {
          var bytes = [UInt8](repeating: 0, count: length)
          bytes[0] = number
          #expect(type(bytes) != nil)
          bytes[reserved] = 1 << bit
          #expect(type(bytes) == nil)
        }
      }
    }
  }

  @Test func R30_otherTypesAreRefused() {
    for number: UInt8 in 0...255 where !(1...4).contains(number) {
      for length in [32, 64, 92, 148] {
        var bytes = [UInt8](repeating: 0, count: length)
        bytes[0] = number
        #expect(type(bytes) == nil)
      }
    }
  }

  /// Whitepaper section 5.4.2: every field is filled with a different number; together they must
  /// cover the message without gap or overlap.
  @Test func initiationLayout() throws {
    let datagram = PacketBuffer(byteCount: 148)
    let message = InitiationMessage(writingTo: datagram.start, sender: 0x0403_0201)
    fill(message.ephemeral, 32, 0xa1)
    fill(message.encryptedStatic, 48, 0xa2)
    fill(message.encryptedTimestamp, 28, 0xa3)
    fill(message.mac1, 16, 0xa4)
    fill(message.mac2, 16, 0xa5)
    let fields = runs([(0xa1, 32), (0xa2, 48), (0xa3, 28), (0xa4, 16), (0xa5, 16)])
    #expect(datagram.bytes == [1, 0, 0, 0, 1, 2, 3, 4] + fields)
    let read = try #require(InitiationMessage(at: datagram.start, byteCount: 148))
    #expect(read.sender == 0x0403_0201)
    #expect(InitiationMessage.mac2Offset - InitiationMessage.mac1Offset == 16)
    #expect(ResponseMessage(at: datagram.start, byteCount: 148) == nil)
  }

  @Test func responseLayout() throws {
    let datagram = PacketBuffer(byteCount: 92)
    let message = ResponseMessage(
      writingTo: datagram.start, sender: 0x0403_0201, receiver: 0x0807_0605)
    fill(message.ephemeral, 32, 0xa1)
    fill(message.encryptedNothing, 16, 0xa2)
    fill(message.mac1, 16, 0xa4)
    fill(message.mac2, 16, 0xa5)
    let fields = runs([(0xa1, 32), (0xa2, 16), (0xa4, 16), (0xa5, 16)])
    #expect(datagram.bytes == [2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8] + fields)
    let read = try #require(ResponseMessage(at: datagram.start, byteCount: 92))
    #expect(read.sender == 0x0403_0201 && read.receiver == 0x0807_0605)
    #expect(InitiationMessage(at: datagram.start, byteCount: 92) == nil)
  }

  @Test func cookieReplyLayout() throws {
    let datagram = PacketBuffer(byteCount: 64)
    let message = CookieReplyMessage(writingTo: datagram.start, receiver: 0x0807_0605)
    fill(message.nonce, 24, 0xa1)
    fill(message.encryptedCookie, 32, 0xa2)
    #expect(datagram.bytes == [3, 0, 0, 0, 5, 6, 7, 8] + runs([(0xa1, 24), (0xa2, 32)]))
    let read = try #require(CookieReplyMessage(at: datagram.start, byteCount: 64))
    #expect(read.receiver == 0x0807_0605)
  }

  @Test func transportDataLayout() throws {
    let datagram = PacketBuffer(byteCount: 16 + 16 + 16)
    TransportDataMessage.writeHeader(
      to: datagram.start, receiver: 0x0807_0605, counter: 0x1817_1615_1413_1211)
    #expect(
      datagram.bytes[..<16] == [
        4, 0, 0, 0, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
      ])
    let read = try #require(TransportDataMessage(at: datagram.start, byteCount: 48))
    #expect(read.receiver == 0x0807_0605 && read.counter == 0x1817_1615_1413_1211)
    #expect(read.encryptedPacket == datagram.start + 16 && read.encryptedPacketByteCount == 16)
    #expect(!read.isKeepalive)
    let keepalive = try #require(TransportDataMessage(at: datagram.start, byteCount: 32))
    #expect(keepalive.isKeepalive && keepalive.encryptedPacketByteCount == 0)
  }

  private func fill(_ bytes: UnsafeMutableRawPointer, _ byteCount: Int, _ value: UInt8) {
    bytes.initializeMemory(as: UInt8.self, repeating: value, count: byteCount)
  }

  private func runs(_ runs: [(UInt8, Int)]) -> [UInt8] {
    runs.flatMap { [UInt8](repeating: $0.0, count: $0.1) }
  }
}

@Suite struct TransportContentTests {
  private let families: [IPAddress.Family] = [.ipv4, .ipv6]

  private func model(_ family: IPAddress.Family, _ payload: [UInt8] = [9, 8, 7]) -> ChannelPacket {
    let isIPv4 = family == .ipv4
    return ChannelPacket(
      source: isIPv4 ? ipv4(10, 1, 2, 3) : ipv6(0xfd00 << 48 | 5, 6),
      destination: isIPv4 ? ipv4(192, 0, 2, 1) : ipv6(0x2001_0db8 << 32, 0xabcd),
      payload: payload, trafficClass: 0xb9)
  }

  /// Reads a packet in memory of exactly its size, and passes its content and its start to `body`.
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

  /// Fragments have no complete transport header; an atomic IPv6 fragment is refused too.
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
        // With the other family's version, the lengths are invalid.
        expectNone([version << 4 | bytes[0] & 0xf] + bytes[1...])
      }
    }
    // An extension header that extends beyond the packet.
    var long = model(.ipv6)
    long.extensions = [.options(8)]
    var bytes = long.bytes
    bytes[41] = 3
    expectNone(bytes)
    long.extensions = Array(repeating: .options(8), count: 9)
    expectNone(long.bytes)
  }
}
