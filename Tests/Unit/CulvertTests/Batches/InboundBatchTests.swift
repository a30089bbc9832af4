import Testing

@testable import Culvert

/// Coalesced datagrams as input, and joined packets as output.
@Suite struct InboundBatchTests {
  private static let home = Path(to: TunnelPair.elsewhere)

  private func node(batchPackets: Int) -> TunnelNode {
    var limits = Limits.roomy
    limits.batchPackets = batchPackets
    return TunnelNode(seed: 1, endpoint: TunnelPair.elsewhere, limits: limits)
  }

  /// Sizes of the datagrams in a batch; a truncated one's is negative.
  private func sizes(_ batch: borrowing InboundBatch) -> [Int] {
    (0..<batch.count).map {
      let packet = batch.packets[$0]
      return Int(packet.byteCount) * (packet.kind == .truncated ? -1 : 1)
    }
  }

  // MARK: Filling

  /// Byte count, segment size, whether it was truncated; and the expected sizes.
  @Test(arguments: [
    (0, 0, false, [0]), (0, 10, false, [0]), (7, 0, false, [7]), (7, 10, false, [7]),
    (10, 10, false, [10]), (30, 10, false, [10, 10, 10]), (31, 10, false, [10, 10, 10, 1]),
    (39, 10, false, [10, 10, 10, 9]), (3, 1, false, [1, 1, 1]),
    (7, 0, true, [-7]), (30, 10, true, [10, 10, -10]), (35, 10, true, [10, 10, 10, -5]),
  ])
  func gluedDatagramsAreTakenApart(
    byteCount: Int, size: Int, isTruncated: Bool, expected: [Int]
  ) {
    let node = node(batchPackets: 16)
    node.inbound.reset()
    for offset in [0, 48] {
      let first = node.inbound.count
      let room = node.inbound.room(for: 1000, datagrams: 4)!
      node.inbound.append(
        byteCount: byteCount, at: offset, from: InboundBatchTests.home, trafficClass: 1,
        isTruncated: isTruncated, segmentByteCount: size)
      #expect(Array(sizes(node.inbound)[first...]) == expected)
      var place = room.baseAddress! + offset
      for index in first..<node.inbound.count {
        let start = node.inbound.datagram(index)
        #expect(start == place)
        #expect(node.inbound.packets[index].arrival == UInt16(first == 0 ? 0 : 1))
        place += Int(node.inbound.packets[index].byteCount)
      }
    }
    #expect(node.inbound.surplusCount == 0)
  }

  @Test func moreThanTheTableHoldsIsCountedAsTruncated() {
    let node = node(batchPackets: 4)
    let now = Instant(nanoseconds: 1)
    node.inbound.reset()
    expect(node.inbound.room(for: 2000, datagrams: 64) != nil, "an empty batch takes any number")
    node.inbound.append(
      byteCount: 95, from: InboundBatchTests.home, trafficClass: 0, isTruncated: false,
      segmentByteCount: 10)
    #expect(sizes(node.inbound) == [10, 10, 10, 10])
    #expect(node.inbound.surplusCount == 6)
    expect(node.inbound.room == nil && node.inbound.room(for: 0, datagrams: 1) == nil)
    node.tunnel.accept(&node.inbound, at: now)
    #expect(node.count(.truncated) == 6)
    #expect(node.count(.malformedMessage) == 4)
    // `reset` clears the surplus, so it is not counted again.
    node.inbound.reset()
    node.inbound.append(
      byteCount: 5, from: InboundBatchTests.home, trafficClass: 0, isTruncated: false)
    node.tunnel.accept(&node.inbound, at: now)
    #expect(node.count(.truncated) == 6)
    // Room is limited in datagrams, not only in bytes.
    expect(node.inbound.room(for: 100, datagrams: 3) != nil)
    expect(node.inbound.room(for: 100, datagrams: 4) == nil)
  }

  /// An empty batch has room for all messages of one call.
  @Test func moreArrivalsThanTheTableHoldsAreCountedAsTruncated() {
    let node = node(batchPackets: 3)
    node.inbound.reset()
    let start = node.inbound.byteCount
    for number in 0..<5 {
      node.inbound.append(
        byteCount: 10, at: start + number * 128 - node.inbound.byteCount,
        from: InboundBatchTests.home, trafficClass: 0, isTruncated: number == 1)
    }
    #expect(sizes(node.inbound) == [10, -10, 10])
    #expect(node.inbound.surplusCount == 2)
    node.tunnel.accept(&node.inbound, at: Instant(nanoseconds: 1))
    #expect(node.count(.truncated) == 3)
  }

  /// A datagram of any length stays within its own place.
  @Test func aStrideLeavesRoomForTheLongestDatagram() {
    for byteCount in [1, 15, 16, 2048, 65_520, 65_527, 65_535] {
      let node = node(batchPackets: 4)
      node.inbound.reset()
      let stride = BatchLayout.stride(for: byteCount)
      for number in 0..<2 {
        let offset = number * stride - node.inbound.byteCount
        #expect(offset >= 0)
        node.inbound.append(
          byteCount: byteCount, at: offset, from: InboundBatchTests.home, trafficClass: 0,
          isTruncated: false)
      }
      #expect(sizes(node.inbound) == [byteCount, byteCount])
    }
  }

  // MARK: Opening

  private func send(_ pair: TunnelPair, _ packets: [TunPacket]) -> [Arrival] {
    pair.a.send(packets, at: pair.now).map {
      Arrival($0.bytes, from: pair.a.endpoint, trafficClass: $0.trafficClass)
    }
  }

  @Test(arguments: [2, 5, 64], [0, 512])
  func gluedDatagramsAreDelivered(batchPackets: Int, stride: Int) throws {
    let pair = try SegmentsTests.pair(batchPackets: batchPackets, stride: stride)
    let packet = TunPacket(SegmentsTests.flow(1410), segmentByteCount: 100)
    let single = TunPacket(SegmentsTests.single(1))
    let arrivals = send(pair, [packet, single])
    let glued = Arrival.glued(arrivals)
    // 14 of 176 bytes followed by a shorter one, and the single one, which is longer.
    #expect(glued.map(\.segmentByteCount) == [176, 0])
    #expect(glued.map(\.bytes.count) == [14 * 176 + 96, 64])
    let expected = packet.segments + single.segments
    let delivered = pair.b.receive(glued, at: pair.now)
    // Datagrams without a place in the table are dropped and counted.
    let taken = min(batchPackets, 15)
    #expect(delivered == Array(expected.prefix(taken)) + single.segments)
    #expect(pair.b.count(.truncated) == UInt64(15 - taken))
  }

  @Test(arguments: [0, 64, 256, 512])
  func textsKeepApartWithTheRoomThatHeadersNeed(stride: Int) throws {
    let pair = try SegmentsTests.pair(batchPackets: 64, stride: stride, mtu: 0)
    var random = SeededGenerator(seed: UInt64(stride))
    for _ in 0..<20 {
      var room = 140_000
      var packets: [TunPacket] = []
      while packets.count < 64, room > 0 {
        let byteCount = [1, 40, 500, 20_000].randomElement(using: &random)!
        let payload = random.bytes(.random(in: 0...min(byteCount, room), using: &random))
        room -= payload.count + 300
        packets.append(
          TunPacket(
            TestPacket.ipv4(
              from: TunnelPair.addressOfA, to: TunnelPair.addressOfB, payload: payload)))
      }
      let arrivals = send(pair, packets)
      pair.b.inbound.texts.initializeMemory(as: UInt8.self, repeating: 0xcc)
      let delivered = pair.b.receive(arrivals, at: pair.now) {
        let batch = pair.b.inbound.packets
        var end = 0
        for index in 0..<pair.b.inbound.count {
          let packet = batch[index]
          #expect(Int(packet.textOffset) >= end + BatchLayout.headroom)
          end = Int(packet.textOffset) + Int(packet.byteCount) - WireGuard.overheadByteCount
          // Overwrite the headroom, as the lane does for the first packet of a group.
          let text = pair.b.inbound.text(index)
          (text - BatchLayout.headroom).initializeMemory(
            as: UInt8.self, repeating: 0xdd, count: BatchLayout.headroom)
        }
        #expect(end + BatchLayout.slack <= pair.b.inbound.texts.count)
      }
      // Compare outside #expect, which would print all packets.
      let isAsSent = delivered == packets.map(\.bytes)
      #expect(isAsSent)
    }
  }

  @Test func aBadTagInTheMiddleSpoilsNothingElse() throws {
    let pair = try SegmentsTests.pair(batchPackets: 16, stride: 512)
    pair.b.joins = true
    let packet = TunPacket(SegmentsTests.flow(500), segmentByteCount: 100)
    var glued = Arrival.glued(send(pair, [packet]))
    glued[0].bytes[2 * 176 + 20] ^= 1
    var expected = packet.segments
    expected.remove(at: 2)
    #expect(pair.b.receive(glued, at: pair.now) == expected)
    #expect(pair.b.count(.badTag) == 1)
    // The packets on either side of the gap do not continue each other.
    #expect(pair.b.writes.map(\.packetCount) == [2, 2])
  }

  // MARK: Joining

  /// The result matches the input: headers, the checksum left to the kernel, and the offload.
  @Test(arguments: [true, false], [true, false])
  func whatWasCutIsJoinedAgain(isIPv4: Bool, isTCP: Bool) throws {
    let pair = try SegmentsTests.pair(batchPackets: 64, stride: 512)
    pair.b.joins = true
    var flow = SegmentsTests.flow(2345, isIPv4: isIPv4, isTCP: isTCP)
    if isTCP {
      flow.flags = 0x18
      flow.tcpOptions = FlowPacket.timestamp(5)
    }
    let packet = TunPacket(flow, segmentByteCount: 100)
    #expect(pair.b.receive(send(pair, [packet]), at: pair.now) == packet.segments)
    let write = try #require(pair.b.writes.first)
    #expect(pair.b.writes.count == 1)
    #expect(write.packetCount == 24)
    #expect(write.bytes == packet.bytes)
    #expect(write.offload.segmentByteCount == 100)
    #expect(write.offload.segmentation == packet.offload.segmentation)
    #expect(write.offload.checksumStart == packet.offload.checksumStart)
    #expect(write.offload.checksumOffset == packet.offload.checksumOffset)
  }

  @Test func onlyWhatTheTUNTakesIsJoined() throws {
    let pair = try SegmentsTests.pair(batchPackets: 64)
    let tcp = TunPacket(SegmentsTests.flow(300), segmentByteCount: 100)
    let udp = TunPacket(SegmentsTests.flow(400, isTCP: false), segmentByteCount: 100)
    for (takesTCP, takesUDP, expected) in [
      (true, true, [3, 4]), (true, false, [3, 1, 1, 1, 1]), (false, true, [1, 1, 1, 4]),
      (false, false, [1, 1, 1, 1, 1, 1, 1]),
    ] {
      var counts: [Int] = []
      let arrivals = send(pair, [tcp, udp])
      pair.b.inbound.reset()
      for arrival in arrivals {
        pair.b.inbound.room?.copyBytes(from: arrival.bytes)
        pair.b.inbound.append(
          byteCount: arrival.bytes.count, from: arrival.path,
          trafficClass: arrival.trafficClass, isTruncated: false)
      }
      pair.b.inbound.preparesJoining = true
      pair.b.tunnel.accept(&pair.b.inbound, at: pair.now)
      pair.b.inbound.open()
      pair.b.tunnel.deliver(&pair.b.inbound, at: pair.now)
      pair.b.inbound.join(tcp: takesTCP, udp: takesUDP)
      for group in 0..<pair.b.inbound.outputCount {
        counts.append(pair.b.inbound.packetCount(of: group))
      }
      #expect(counts == expected)
    }
  }

  /// A congestion mark set by the network changes one packet's header, which then fits no group.
  @Test(arguments: [true, false])
  func aCongestionMarkKeepsAPacketOutOfItsGroup(isIPv4: Bool) throws {
    let pair = try SegmentsTests.pair(batchPackets: 64, stride: 512)
    pair.b.joins = true
    let packet = TunPacket(SegmentsTests.flow(800, isIPv4: isIPv4), segmentByteCount: 100)
    var arrivals = send(pair, [packet])
    arrivals[3].trafficClass |= 3
    arrivals[4].trafficClass |= 3
    let delivered = pair.b.receive(Arrival.glued(arrivals), at: pair.now)
    #expect(pair.b.writes.map(\.packetCount) == [3, 2, 3])
    #expect(delivered.map { SegmentsTests.mark(of: $0) } == [2, 2, 2, 3, 3, 2, 2, 2])
    for (index, (got, sent)) in zip(delivered, packet.segments).enumerated() {
      #expect(PacketModel(got)?.hasRightChecksums == true)
      #expect(PacketModel(got)?.payload == PacketModel(sent)?.payload)
      if !(3...4).contains(index) { #expect(got == sent) }
    }
  }

  @Test func aLonePacketIsNotLookedAtAndStaysAsItIs() throws {
    let pair = try SegmentsTests.pair(batchPackets: 16)
    pair.b.joins = true
    let packets = (0..<2).map { _ in
      TunPacket(SegmentsTests.flow(100).bytes)
    }
    var kinds: [JoinCandidate.Kind] = []
    let look = {
      kinds += (0..<pair.b.inbound.count).map { pair.b.inbound.packets[$0].candidate.kind }
    }
    for packet in packets {
      let delivered = pair.b.receive(send(pair, [packet]), at: pair.now, beforeDeliver: look)
      #expect(delivered == [packet.bytes])
    }
    #expect(kinds == [.unreadable, .unreadable])
    #expect(pair.b.writes.map(\.packetCount) == [1, 1])
    pair.b.receive(send(pair, packets), at: pair.now, beforeDeliver: look)
    #expect(kinds.suffix(2) == [.tcp4, .tcp4])
  }

  // MARK: Paths

  @Test func aPeerIsWhereItsLastNewDatagramCameFrom() throws {
    let pair = try SegmentsTests.pair(batchPackets: 16)
    let packet = TunPacket(SegmentsTests.flow(500), segmentByteCount: 100)
    var arrivals = send(pair, [packet])
    let places = (0..<3).map { Path(to: Endpoint(address: ipv4(198, 51, 100, 1), port: 10 + $0)) }
    for index in 2..<5 { arrivals[index].path = places[1] }
    for index in 0..<2 { arrivals[index].path = places[0] }
    var glued = Arrival.glued(arrivals)
    #expect(glued.count == 2)
    // A replay from a third address: the endpoint does not change.
    var replay = glued[1]
    replay.path = places[2]
    glued.append(replay)
    #expect(pair.b.receive(glued, at: pair.now) == packet.segments)
    #expect(pair.b.count(.replayed) == 3)
    #expect(pair.b.state(pair.peerOfB).path == places[1])
    #expect(
      pair.b.send([pair.packetFromB()], at: pair.now).map(\.path) == [places[1]])
  }
}
