import Testing

@testable import Culvert

private let families: [IPAddress.Family] = [.ipv4, .ipv6]

/// Outbound: the packets in the tunnel's batch, byte by byte.
@Suite struct DatagramChannelSendTests {
  private let near = ChannelEnd(host: 1)
  private let far = ChannelEnd(host: 2)

  private func headerByteCount(_ family: IPAddress.Family) -> Int {
    (family == .ipv4 ? 20 : 40) + 8
  }

  /// The expected packet, except for the fields that the channel may choose.
  private func expected(
    _ payload: [UInt8], _ family: IPAddress.Family, like packet: [UInt8], trafficClass: UInt8 = 0
  ) -> [UInt8] {
    var model = far.packet(payload, from: near, family)
    model.sourcePort = ChannelEnd.port
    model.trafficClass = trafficClass
    model.identification = UInt32(packet[4]) << 8 | UInt32(packet[5])
    var bytes = model.bytes
    // The flow label.
    if family == .ipv6 { bytes[1] |= packet[1] & 0xf }
    if family == .ipv6 { bytes.replaceSubrange(2..<4, with: packet[2..<4]) }
    return bytes
  }

  // MARK: Headers

  @Test(arguments: families, [0, 1, 2, 3, 63, 64, 1000])
  func everyByteOfAHeader(family: IPAddress.Family, byteCount: Int) throws {
    var random = SeededGenerator(seed: UInt64(byteCount))
    for trafficClass: UInt8 in [0, 1, 0x88, 0xff] {
      let payload = random.bytes(byteCount)
      let packets = near.packets(
        of: payload, to: far.endpoint(family), trafficClass: trafficClass)
      let packet = try #require(packets.first)
      #expect(packets.count == 1)
      #expect(packet == expected(payload, family, like: packet, trafficClass: trafficClass))
      // The model agrees with itself and with RFC 791: no flags, no offset, 64 hops.
      #expect(try #require(PacketModel(packet)).hasRightChecksums)
      if family == .ipv4 { #expect(packet[6] == 0 && packet[7] == 0 && packet[8] == 64) }
      if family == .ipv6 { #expect(packet[6] == 17 && packet[7] == 64) }
    }
    #expect(near.count(.sent) == 4 && near.total == 4)
  }

  /// Sends from a port other than the first, to another port.
  @Test(arguments: families) func portsAreThoseGiven(family: IPAddress.Family) throws {
    near.channel.open(firstPort: 0x1234, count: 3)
    let packet = try #require(
      near.packets(of: [1], from: 0x1236, to: far.endpoint(family, port: 0xfedc)).first)
    let start = headerByteCount(family) - 8
    #expect(Array(packet[start..<start + 4]) == [0x12, 0x36, 0xfe, 0xdc])
    #expect(try #require(PacketModel(packet)).hasRightChecksums)
  }

  /// RFC 768: a checksum of zero is sent as all ones, since zero means that there is none.
  @Test(arguments: families) func F8_aChecksumOfZeroIsSentAsOnes(family: IPAddress.Family) throws {
    let offset = headerByteCount(family) - 2
    let packet = try #require(near.packets(of: [0, 0], to: far.endpoint(family)).first)
    // The value that completes the sum to all ones, in place of two zero bytes.
    let payload = Array(packet[offset..<offset + 2])
    #expect(payload != [0, 0] && payload != [0xff, 0xff])
    let zero = try #require(near.packets(of: payload, to: far.endpoint(family)).first)
    #expect(Array(zero[offset..<offset + 2]) == [0xff, 0xff])
    #expect(far.receive(zero).payload == payload)
  }

  @Test func identificationsOfIPv4Change() throws {
    var seen: Set<[UInt8]> = []
    for _ in 0..<300 {
      let packet = try #require(near.packets(of: [1], to: far.endpoint(.ipv4)).first)
      let isNew = seen.insert(Array(packet[4..<6])).inserted
      #expect(isNew)
    }
    // They do not start at the same value as those of another channel.
    let other = ChannelEnd(host: 3, seed: 2)
    let packet = try #require(other.packets(of: [1], to: far.endpoint(.ipv4)).first)
    let isNew = !seen.contains(Array(packet[4..<6]))
    #expect(isNew)
  }

  @Test func identificationsOfIPv6FragmentsChange() throws {
    var seen: Set<[UInt8]> = []
    for _ in 0..<100 {
      let packets = near.packets(
        of: [UInt8](repeating: 1, count: 2000), to: far.endpoint(.ipv6))
      #expect(packets.count == 2 && packets[0][44..<48] == packets[1][44..<48])
      let isNew = seen.insert(Array(packets[0][44..<48])).inserted
      #expect(isNew)
    }
  }

  // MARK: Flow labels

  private func label(
    _ end: ChannelEnd, from port: UInt16 = ChannelEnd.port, to endpoint: Endpoint
  ) -> UInt32 {
    let packet = end.packets(of: [1, 2, 3], from: port, to: endpoint)[0]
    // The version and the traffic class are unchanged.
    #expect(packet[0] == 0x60 && packet[1] & 0xf0 == 0)
    return UInt32(packet[1]) << 16 | UInt32(packet[2]) << 8 | UInt32(packet[3])
  }

  @Test func aFlowKeepsItsLabel() {
    let first = label(near, to: far.endpoint(.ipv6))
    for _ in 0..<20 {
      #expect(label(near, to: far.endpoint(.ipv6)) == first)
      _ = label(near, to: far.endpoint(.ipv6, port: .random(in: 1...0xffff)))
    }
  }

  /// With a million possible labels, hardly any two of 400 flows share one, whichever field they
  /// differ in.
  @Test(arguments: 0..<5) func flowsHaveLabelsOfTheirOwn(what: Int) {
    near.channel.open(firstPort: 1, count: 65_535)
    var labels: Set<UInt32> = []
    for index in 0..<400 {
      var endpoint = far.endpoint(.ipv6)
      var port = ChannelEnd.port
      let high = endpoint.address.high
      let low = endpoint.address.low
      switch what {
      case 0: port = UInt16(1000 + index)
      case 1: endpoint.port = UInt16(1000 + index)
      case 2: endpoint.address = ipv6(high, low + UInt64(index))
      case 3: endpoint.address = ipv6(high + UInt64(index) << 32, low)
      default:
        // The same bits are flipped in both fields.
        endpoint.address = ipv6(high, low ^ UInt64(index))
        endpoint.port = ChannelEnd.port ^ UInt16(index)
      }
      labels.insert(label(near, from: port, to: endpoint))
    }
    #expect(labels.count >= 398)
  }

  @Test func labelsAreOneChannelsOwn() {
    let other = ChannelEnd(host: 1, seed: 99)
    let labels = (0..<50).map { label(near, to: far.endpoint(.ipv6, port: 1000 + $0)) }
    let others = (0..<50).map { label(other, to: far.endpoint(.ipv6, port: 1000 + $0)) }
    #expect(zip(labels, others).allSatisfy { $0 != $1 })
  }

  /// Identifications and labels on the wire reveal no seed of the tables: they are derived through
  /// a keyed hash.
  @Test func nothingOnTheWireIsPartOfTheSeed() {
    for seed: UInt64 in [0, 1, 0x0123_4567_89ab_cdef, .max] {
      let end = ChannelEnd(host: 1, seed: seed)
      let low = UInt16(truncatingIfNeeded: seed)
      expect(end.channel.ipv4Identification != low)
      expect(end.channel.ipv6Identification != UInt32(truncatingIfNeeded: seed >> 16))
      expect(end.channel.ipv6Identification != UInt32(truncatingIfNeeded: seed))
      let labels = (0..<4).map { label(end, to: far.endpoint(.ipv6, port: $0)) }
      #expect(Set(labels).count == 4)
    }
  }

  // MARK: Sizes

  @Test(arguments: families) func aPacketOfExactlyTheMTUGoesWhole(family: IPAddress.Family) throws {
    let largest = 1420 - headerByteCount(family)
    let whole = near.packets(
      of: [UInt8](repeating: 7, count: largest), to: far.endpoint(family))
    #expect(whole.map(\.count) == [1420])
    let cut = near.packets(
      of: [UInt8](repeating: 7, count: largest + 1), to: far.endpoint(family))
    #expect(cut.count == 2)
    #expect(cut.allSatisfy { $0.count <= 1420 })
    #expect(near.count(.sent) == 1 && near.count(.sentInFragments) == 1)
  }

  @Test(arguments: families, [300, 576, 1280, 1281, 1500, 9000])
  func theMTUIsTheOneSet(family: IPAddress.Family, mtu: Int) {
    near.channel.setMTU(mtu)
    let largest = mtu - headerByteCount(family)
    let endpoint = far.endpoint(family)
    #expect(near.packets(of: [UInt8](repeating: 7, count: largest), to: endpoint).count == 1)
    let cut = near.packets(of: [UInt8](repeating: 7, count: largest + 1), to: endpoint)
    // A link must carry 1280 bytes for IPv6, whose fragments may have that size.
    let isImpossible = family == .ipv6 && mtu < 1280
    #expect(cut.count == (isImpossible ? 0 : 2))
    #expect(cut.allSatisfy { $0.count <= mtu })
    #expect(near.count(.tooLarge) == (isImpossible ? 1 : 0))
  }

  /// Another channel reassembles the fragments of this one, in any order.
  @Test(arguments: families, [0, 1, 1372, 1373, 1392, 1393, 8000, 65_507])
  func fragmentsAreTheDatagramAgain(family: IPAddress.Family, byteCount: Int) throws {
    var random = SeededGenerator(seed: UInt64(byteCount))
    for mtu in [1420, 1280, 4000] {
      near.channel.setMTU(mtu)
      let payload = random.bytes(byteCount)
      var packets = near.packets(of: payload, to: far.endpoint(family), trafficClass: 0x2e)
      #expect(packets.allSatisfy { $0.count <= mtu })
      #expect(packets.count >= (byteCount + headerByteCount(family) + mtu - 1) / mtu)
      for round in 0..<2 {
        if round > 0 { packets.shuffle(using: &random) }
        let arrived = far.receiveAll(packets)
        #expect(
          arrived == [
            .datagram(
              payload, from: near.endpoint(family), port: ChannelEnd.port, trafficClass: 0x2e)
          ])
      }
    }
    expect(far.channel.reassembler.incompleteCount == 0)
  }

  @Test func theLargestDatagrams() {
    let payload = [UInt8](repeating: 1, count: 65_528)
    let sizes = { (family: IPAddress.Family, count: Int) in
      self.near.packets(of: Array(payload[..<count]), to: self.far.endpoint(family)).count
    }
    #expect(sizes(.ipv4, 65_507) == 47 && sizes(.ipv4, 65_508) == 0)
    #expect(sizes(.ipv6, 65_527) == 48 && sizes(.ipv6, 65_528) == 0)
    #expect(near.refusal(of: payload, to: far.endpoint(.ipv4)) == .tooLarge)
    #expect(near.refusal(of: payload, to: far.endpoint(.ipv6)) == .tooLarge)
    #expect(near.count(.tooLarge) == 4)
  }

  // MARK: Forbidden fragmentation

  @Test func doNotFragment() throws {
    near.channel.forbidsFragmentation = true
    let packet = try #require(near.packets(of: [1, 2], to: far.endpoint(.ipv4)).first)
    #expect(packet[6] == 0x40 && packet[7] == 0)
    #expect(try #require(PacketModel(packet)).hasRightChecksums)
    let whole = [UInt8](repeating: 7, count: 1392)
    #expect(near.packets(of: whole, to: far.endpoint(.ipv4)).count == 1)
    #expect(near.refusal(of: whole + [7], to: far.endpoint(.ipv4)) == .tooLarge)
    // IPv6 is fragmented all the same: only the sender may do that.
    #expect(near.packets(of: whole, to: far.endpoint(.ipv6)).count == 2)
    near.channel.forbidsFragmentation = false
    #expect(near.packets(of: whole + [7], to: far.endpoint(.ipv4)).count == 2)
  }

  // MARK: Full batches

  @Test func aFullBatchIsToldAndNotCounted() {
    let limits = Limits.channel(batchPackets: 4, batchByteCount: 80 * 1024)
    let near = ChannelEnd(host: 1, limits: limits)
    for _ in 0..<4 { #expect(near.isSent(near.send([1], to: far.endpoint(.ipv4)))) }
    for byteCount in [0, 1, 1392, 1393, 9000] {
      let payload = [UInt8](repeating: 1, count: byteCount)
      #expect(near.isFull(near.send(payload, to: far.endpoint(.ipv4))))
    }
    #expect(near.batch.count == 4 && near.total == 4)
    // Datagrams that cannot be sent are still refused.
    let largest = [UInt8](repeating: 1, count: 65_508)
    #expect(near.isRefused(near.send(largest, to: far.endpoint(.ipv4)), .tooLarge))
    near.reset()
    #expect(near.isSent(near.send([1], to: far.endpoint(.ipv4))))
  }

  /// All fragments or none, whether places or bytes of the batch run out.
  @Test(arguments: families) func aDatagramIsNotSentInPart(family: IPAddress.Family) {
    let limits = Limits.channel(batchPackets: 4, batchByteCount: 80 * 1024)
    let near = ChannelEnd(host: 1, limits: limits)
    let payload = [UInt8](repeating: 1, count: 3000)
    #expect(near.isSent(near.send([1], to: far.endpoint(family))))
    #expect(near.isSent(near.send([1], to: far.endpoint(family))))
    #expect(near.isFull(near.send(payload, to: far.endpoint(family))))
    #expect(near.batch.count == 2)
    #expect(near.isSent(near.send([1], to: far.endpoint(family))))
    near.reset()
    #expect(near.isSent(near.send(payload, to: far.endpoint(family))))
    #expect(near.batch.count == 3)
    #expect(near.isFull(near.send(payload, to: far.endpoint(family))))
    near.reset()
    // Five fragments do not fit into an empty batch either.
    let five = [UInt8](repeating: 1, count: 4 * 1400)
    #expect(near.isRefused(near.send(five, to: far.endpoint(family)), .tooLarge))
    #expect(near.batch.count == 0)
  }

  @Test(arguments: families) func bytesRunOutToo(family: IPAddress.Family) {
    // Room for 54 fragments of 1420 bytes, with 64 bytes around each.
    let limits = Limits.channel(batchPackets: 128, batchByteCount: 80 * 1024)
    let near = ChannelEnd(host: 1, limits: limits)
    near.batch.reset()
    let payload = [UInt8](repeating: 1, count: 20_000)
    var count = 0
    while near.isSent(near.send(payload, to: far.endpoint(family))) { count += 1 }
    #expect(count == 3 && near.batch.count == 45)
    #expect(near.isFull(near.send(payload, to: far.endpoint(family))))
    // Unfragmented datagrams stay where they are, and need no bytes of the batch.
    #expect(near.isSent(near.send([1], to: far.endpoint(family))))
    // If even an empty batch is too small, waiting for one is pointless.
    let small = ChannelEnd(
      host: 1, limits: .channel(batchPackets: 128, batchByteCount: 20 * 1024))
    #expect(small.isRefused(small.send(payload, to: far.endpoint(family)), .tooLarge))
  }

  // MARK: Refusals

  @Test func withoutAnAddressOfTheFamilyNothingIsSent() {
    let arena = TestArena(byteCount: 1 << 20)
    var limits = Limits.channel
    limits.reassembledByteCount = 2048
    var channel = DatagramChannel(carvingFrom: &arena.arena, limits: limits)
    channel.start(seed: 1)
    channel.open(firstPort: 1)
    expect(channel.address(.ipv4) == nil && channel.address(.ipv6) == nil)
    let buffer = PacketBuffer(byteCount: 64)
    let payload = UnsafeMutableRawBufferPointer(start: buffer.start + 56, count: 8)
    let send = { (channel: inout DatagramChannel, family: IPAddress.Family) in
      self.far.batch.reset()
      return channel.send(
        payload, from: 1, to: self.far.endpoint(family), into: &self.far.batch, at: self.far.now)
    }
    #expect(far.isRefused(send(&channel, .ipv4), .noAddress))
    #expect(far.isRefused(send(&channel, .ipv6), .noAddress))
    channel.setAddress(ipv4(10, 0, 0, 1))
    #expect(far.isSent(send(&channel, .ipv4)))
    #expect(far.isRefused(send(&channel, .ipv6), .noAddress))
    channel.setAddress(ipv6(1, 1))
    #expect(far.isSent(send(&channel, .ipv6)))
    let refused = channel.counters[.noAddress]
    #expect(refused == 3)
  }

  @Test func onlyOpenPortsSend() {
    let endpoint = far.endpoint(.ipv4)
    near.channel.close()
    expect(!near.channel.isOpen)
    #expect(near.refusal(of: [1], to: endpoint) == .closed)
    near.channel.open(firstPort: 1000, count: 3)
    for (port, isOpen): (UInt16, Bool) in [
      (0, false), (999, false), (1000, true), (1001, true), (1002, true), (1003, false),
      (65_535, false),
    ] {
      #expect(near.refusal(of: [1], from: port, to: endpoint) == (isOpen ? nil : .closed))
    }
    // A range up to the last port replaces the earlier range.
    near.channel.open(firstPort: 65_535)
    #expect(near.refusal(of: [1], from: 1000, to: endpoint) == .closed)
    #expect(near.refusal(of: [1], from: 65_535, to: endpoint) == nil)
    near.channel.open(firstPort: 1, count: 65_535)
    #expect(near.refusal(of: [1], from: 65_535, to: endpoint) == nil)
    #expect(near.refusal(of: [1], from: 0, to: endpoint) == .closed)
  }
}
