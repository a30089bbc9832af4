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

  /// Whitepaper section 5.4.2: every field is filled with its own number; together they must
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
