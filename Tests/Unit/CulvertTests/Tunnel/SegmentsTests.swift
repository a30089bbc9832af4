import Testing

@testable import Culvert

/// Packets with segmentation offloads, from one tunnel to the other.
@Suite struct SegmentsTests {
  /// Batches of few packets, so that one packet is segmented in many rounds.
  static func pair(batchPackets: Int, stride: Int = 0, mtu: Int = 1420) throws -> TunnelPair {
    var limits = Limits.roomy
    limits.batchPackets = batchPackets
    let pair = try TunnelPair(limits: limits)
    for node in [pair.a, pair.b] {
      if stride > 0 { node.tunnel.cipher = .composed(stride: stride) }
      node.tunnel.setMTU(mtu)
    }
    pair.connect()
    pair.forget()
    return pair
  }

  /// Data of `byteCount` bytes from a to b.
  static func flow(_ byteCount: Int, isIPv4: Bool = true, isTCP: Bool = true) -> FlowPacket {
    var flow = FlowPacket(isIPv4: isIPv4, isTCP: isTCP)
    flow.trafficClass = 0xb8 | 2
    flow.payload = (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8) }
    return flow
  }

  static func single(_ number: UInt8) -> [UInt8] {
    TestPacket.ipv4(from: TunnelPair.addressOfA, to: TunnelPair.addressOfB, payload: [number])
  }

  /// Size of a sealed message: padded to a multiple of 16, but not beyond the MTU (R7).
  static func sealedByteCount(_ byteCount: Int, mtu: Int = 1420) -> Int {
    32 + max(byteCount, min((byteCount + 15) / 16 * 16, mtu))
  }

  /// The congestion mark of a packet.
  static func mark(of packet: [UInt8]) -> UInt8 {
    (packet[0] >> 4 == 4 ? packet[1] : packet[1] >> 4) & 3
  }

  /// Sends, and checks that every segment has its own message, counter and padding.
  private func check(
    _ pair: TunnelPair, _ packets: [TunPacket], mtu: Int = 1420,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let first = pair.a.state(pair.peerOfA).keypairs.current.sendCounter
    let sentBytes = pair.a.status(of: pair.peerOfA)!.sentByteCount
    // Previous content of the areas must not show.
    pair.a.outbound.bytes.initializeMemory(as: UInt8.self, repeating: 0xff)
    pair.a.outbound.outputs.bytes.initializeMemory(as: UInt8.self, repeating: 0xff)
    let sent = pair.a.send(packets, at: pair.now)
    let segments = packets.flatMap(\.segments)
    #expect(
      sent.map(\.counter) == (0..<segments.count).map { first + UInt64($0) },
      sourceLocation: sourceLocation)
    #expect(
      sent.map(\.bytes.count)
        == segments.map { SegmentsTests.sealedByteCount($0.count, mtu: mtu) },
      sourceLocation: sourceLocation)
    #expect(
      sent.map(\.trafficClass) == segments.map { SegmentsTests.mark(of: $0) },
      sourceLocation: sourceLocation)
    let now = pair.a.status(of: pair.peerOfA)!.sentByteCount
    #expect(
      now - sentBytes == UInt64(sent.map(\.bytes.count).reduce(0, +)),
      sourceLocation: sourceLocation)
    let isAsCut = pair.carryToB(sent) == segments
    #expect(isAsCut, sourceLocation: sourceLocation)
  }

  // MARK: Cutting

  @Test(arguments: [2, 4, 16, 128], [0, 64, 256, 512])
  func segmentsArriveInOrderWithCountersInARow(batchPackets: Int, stride: Int) throws {
    let pair = try SegmentsTests.pair(batchPackets: batchPackets, stride: stride)
    for isIPv4 in [true, false] {
      for isTCP in [true, false] {
        for (byteCount, size) in [(720, 36), (1, 36), (0, 36), (2801, 1400), (30_000, 1368)] {
          let flow = SegmentsTests.flow(byteCount, isIPv4: isIPv4, isTCP: isTCP)
          check(pair, [TunPacket(flow, segmentByteCount: size)])
        }
      }
    }
  }

  @Test func randomPacketsArriveAsTheirSegments() throws {
    var random = SeededGenerator(seed: 5)
    for batchPackets in [2, 4, 16] {
      let mtu = [0, 576, 1420].randomElement(using: &random)!
      let pair = try SegmentsTests.pair(
        batchPackets: batchPackets, stride: [0, 64, 256, 512].randomElement(using: &random)!,
        mtu: mtu)
      for _ in 0..<60 {
        let packets = (0..<Int.random(in: 1...4, using: &random)).map { _ in
          if Int.random(in: 0..<3, using: &random) == 0 {
            return TunPacket(SegmentsTests.single(.random(in: 0...255, using: &random)))
          }
          let size = Int.random(in: 1...400, using: &random)
          let flow = FlowPacket.random(
            payloadByteCount: .random(in: 0...10 * size, using: &random), using: &random)
          return TunPacket(flow, segmentByteCount: size)
        }
        check(pair, packets, mtu: mtu == 0 ? .max : mtu)
      }
    }
  }

  /// More than the output area holds at once, with an MTU of 1420 and with the largest.
  @Test(arguments: [36, 100, 1368, 9000, 32_000, 64_000])
  func theLargestPacketGoesThroughInRounds(size: Int) throws {
    let pair = try SegmentsTests.pair(batchPackets: 128, stride: 512, mtu: 65_475)
    var rounds = 0
    pair.a.inspect = { _ in rounds += 1 }
    let flow = SegmentsTests.flow(65_000)
    check(pair, [TunPacket(flow, segmentByteCount: size)], mtu: 65_475)
    let least = (65_000 + size - 1) / size
    #expect(rounds >= (least + 127) / 128)
    if size == 36 { #expect(rounds == 15) }
  }

  @Test func aChecksumAloneIsFinished() throws {
    let pair = try SegmentsTests.pair(batchPackets: 4)
    for isTCP in [true, false] {
      var flow = SegmentsTests.flow(99, isTCP: isTCP)
      flow.trafficClass = 1
      var packet = TunPacket(flow, segmentByteCount: 1)
      packet.offload = PacketOffload(
        segmentation: .none, needsChecksum: true, checksumStart: 20,
        checksumOffset: isTCP ? 16 : 6, segmentByteCount: 0)
      packet.segments = [flow.bytes]
      check(pair, [packet])
    }
  }

  @Test func packetsOfAllKindsShareABatchInOrder() throws {
    let pair = try SegmentsTests.pair(batchPackets: 6)
    var malformed = TunPacket(SegmentsTests.flow(500), segmentByteCount: 100)
    malformed.offload.checksumStart = 24
    let nowhere = TestPacket.ipv4(from: TunnelPair.addressOfA, to: ipv4(8, 8, 8, 8))
    let many = TunPacket(SegmentsTests.flow(720), segmentByteCount: 36)
    let few = TunPacket(SegmentsTests.flow(300, isTCP: false), segmentByteCount: 200)
    var outputs = 0
    pair.a.inspect = { outputs += $0.outputCount }
    let packets = [
      TunPacket(SegmentsTests.single(1)), many, malformed, TunPacket(nowhere), few,
      TunPacket(SegmentsTests.single(2)),
    ]
    let sent = pair.a.send(packets, at: pair.now)
    let expected = [packets[0], many, few, packets[5]].flatMap(\.segments)
    #expect(sent.count == 1 + 20 + 2 + 1)
    #expect(outputs == sent.count + 1)
    #expect(pair.carryToB(sent) == expected)
    #expect(pair.a.replies.count == 1)
    #expect(pair.a.count(.malformedInner) == 1)
  }

  // MARK: Refusals

  @Test func offloadsThatDoNotFitAreMalformed() throws {
    let pair = try SegmentsTests.pair(batchPackets: 16)
    let good = TunPacket(SegmentsTests.flow(500), segmentByteCount: 100)
    var bad = [TunPacket](repeating: good, count: 7)
    bad[0].offload.checksumStart = 0
    bad[1].offload.checksumOffset = 6
    bad[2].offload.segmentByteCount = 0
    bad[3].offload.segmentation = .tcpIPv6
    bad[4].offload.segmentation = .udp
    bad[5].offload.needsChecksum = false
    bad[6].bytes.removeLast()
    var whole = good
    whole.offload.segmentation = .none
    for (start, offset) in [(0, 16), (20, 1), (20, 539), (600, 0), (19, 16)] {
      whole.offload.checksumStart = start
      whole.offload.checksumOffset = offset
      bad.append(whole)
    }
    let counter = pair.a.state(pair.peerOfA).keypairs.current.sendCounter
    #expect(pair.a.send(bad, at: pair.now).isEmpty)
    #expect(pair.a.count(.malformedInner) == UInt64(bad.count))
    #expect(pair.a.state(pair.peerOfA).keypairs.current.sendCounter == counter)
    check(pair, [good])
  }

  /// R33 limits what is sent, not what the kernel delivers at once.
  @Test func theLimitIsOnSegments() throws {
    var limits = Limits.roomy
    limits.maximumMTU = 1420
    let pair = try TunnelPair(limits: limits)
    pair.connect()
    let fits = TunPacket(SegmentsTests.flow(9000), segmentByteCount: 1380)
    let tooLarge = TunPacket(SegmentsTests.flow(9000), segmentByteCount: 1381)
    #expect(pair.carryToB(pair.a.send([fits], at: pair.now)) == fits.segments)
    #expect(pair.a.count(.tooLarge) == 0)
    #expect(pair.a.send([tooLarge], at: pair.now).isEmpty)
    #expect(pair.a.count(.tooLarge) == 1)
  }

  /// Whitepaper 6.2: a packet to be segmented needs counters for all its segments.
  @Test func theLastCountersAreNotOverrun() throws {
    let pair = try SegmentsTests.pair(batchPackets: 16)
    let peer = pair.a.tunnel.peer(pair.peerOfA)!
    let left = { WireGuard.rejectAfterMessages &- peer.pointee.keypairs.current.sendCounter }
    // Six counters are left.
    _ = peer.pointee.keypairs.reserveCounters(Int(bitPattern: UInt(left() - 6)))
    let five = TunPacket(SegmentsTests.flow(500), segmentByteCount: 100)
    #expect(pair.a.send([five], at: pair.now).count == 5)
    #expect(left() == 1)
    let two = TunPacket(SegmentsTests.flow(200), segmentByteCount: 100)
    #expect(pair.a.send([two], at: pair.now).isEmpty)
    #expect(left() == 1)
    #expect(pair.a.count(.staged) == 3)
  }

  // MARK: Without a session

  @Test func aPacketWithoutASessionIsStagedInSegments() throws {
    let pair = try TunnelPair()
    let packet = TunPacket(SegmentsTests.flow(3000), segmentByteCount: 1000)
    pair.carryToB(pair.a.send([packet, TunPacket(SegmentsTests.single(7))], at: pair.now))
    #expect(pair.a.count(.staged) == 4)
    #expect(pair.a.count(.droppedFromStaging) == 0)
    #expect(pair.a.freeStagingSlots == 40 - 4)
    pair.exchange()
    #expect(pair.b.delivered == packet.segments + [SegmentsTests.single(7)])
    #expect(pair.a.freeStagingSlots == 40)
  }

  @Test func theNewestSegmentsStayStaged() throws {
    let pair = try TunnelPair()
    let packet = TunPacket(SegmentsTests.flow(1000), segmentByteCount: 100)
    pair.carryToB(pair.a.send([packet], at: pair.now))
    #expect(pair.a.count(.staged) == 10)
    #expect(pair.a.count(.droppedFromStaging) == 6)
    pair.exchange()
    #expect(pair.b.delivered == packet.segments.suffix(4))
  }

  /// Segments stay behind staged packets, although there is a session.
  @Test func segmentsDoNotOvertakeStagedPackets() throws {
    var limits = Limits.roomy
    limits.batchPackets = 2
    limits.stagedPacketsPerPeer = 12
    let pair = try TunnelPair(limits: limits)
    pair.sendFromA((1...3).map { SegmentsTests.single($0) })
    pair.carryToB(pair.a.settle(at: pair.now, wall: pair.wall))
    pair.carryToA(pair.b.settle(at: pair.now, wall: pair.wall))
    pair.carryToB(pair.a.advance(at: pair.now, wall: pair.wall))
    let packet = TunPacket(SegmentsTests.flow(900), segmentByteCount: 100)
    #expect(pair.a.send([packet], at: pair.now).isEmpty)
    pair.exchange()
    #expect(pair.b.delivered == (1...3).map { SegmentsTests.single($0) } + packet.segments)
  }

  @Test(arguments: [true, false], [true, false])
  func anUnreachablePacketIsQuotedByItsFirstSegment(isIPv4: Bool, isTCP: Bool) throws {
    let pair = try TunnelPair()
    for size in [100, 1000] {
      var flow = SegmentsTests.flow(5000, isIPv4: isIPv4, isTCP: isTCP)
      flow.destination = 9
      let packet = TunPacket(flow, segmentByteCount: size)
      pair.a.replies = []
      #expect(pair.a.send([packet], at: pair.now).isEmpty)
      let reply = try #require(pair.a.replies.first)
      let quoted = Array(reply.dropFirst(isIPv4 ? 28 : 48))
      // An IPv4 error may be shortened to 576 bytes.
      let whole = min(packet.segments[0].count, isIPv4 ? 548 : 1232)
      #expect(quoted == Array(packet.segments[0].prefix(whole)))
    }
    #expect(pair.a.count(.noPeerForDestination) == 2)
  }
}
