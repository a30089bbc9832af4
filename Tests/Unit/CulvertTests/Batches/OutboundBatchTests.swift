import Testing

@testable import Culvert

/// Runs of datagrams for one call, and the results of sending.
@Suite struct OutboundBatchTests {
  /// Node a, with sessions to two peers: b, and one at 10.0.0.3.
  private final class Star {
    let pair: TunnelPair
    let third: TunnelNode
    let peerOfThird: PeerID

    init(batchPackets: Int) throws {
      pair = try SegmentsTests.pair(batchPackets: batchPackets, stride: 256)
      third = TunnelNode(seed: 9, endpoint: TunnelPair.elsewhere)
      peerOfThird = try pair.a.addPeer(
        third.publicKey, allowed: [#require(IPPrefix(ipv4(10, 0, 0, 3), length: 32))],
        endpoint: third.endpoint)
      try third.addPeer(
        pair.a.publicKey, allowed: [#require(IPPrefix(TunnelPair.addressOfA, length: 32))],
        endpoint: pair.a.endpoint)
      pair.a.send([Star.packet(to: 3, 20)], at: pair.now)
      for _ in 0..<4 {
        let out = pair.a.settle(at: pair.now, wall: pair.wall)
        third.receive(out.map { Arrival($0.bytes, from: pair.a.endpoint) }, at: pair.now)
        let back = third.settle(at: pair.now, wall: pair.wall)
        pair.a.receive(back.map { Arrival($0.bytes, from: third.endpoint) }, at: pair.now)
      }
      #expect(third.delivered.count == 1)
    }

    static func packet(to host: UInt8, _ byteCount: Int, trafficClass: UInt8 = 0) -> [UInt8] {
      TestPacket.ipv4(
        from: TunnelPair.addressOfA, to: ipv4(10, 0, 0, host),
        payload: [UInt8](repeating: 1, count: byteCount), trafficClass: trafficClass)
    }
  }

  // MARK: Runs

  /// Whether one call could send these, checked the slow way.
  private static func isOneSend(
    _ outputs: [BatchOutputs.Datagram], isUniform: Bool, segmentLimit: UInt16
  ) -> Bool {
    let head = outputs[0]
    if outputs.count == 1 { return true }
    let isAlike = outputs.allSatisfy {
      ($0.kind == .data || $0.kind == .keepalive) && $0.session == head.session
        && $0.trafficClass == head.trafficClass
    }
    guard isAlike, outputs.count <= 64 else { return false }
    guard isUniform else { return true }
    let total = outputs.map { Int($0.byteCount) }.reduce(0, +)
    var end = head.start
    for output in outputs {
      if output.start != end { return false }
      end = output.start + Int(output.byteCount)
    }
    return total <= 65_487 && head.byteCount < UInt32(segmentLimit)
      && outputs.dropLast().allSatisfy { $0.byteCount == head.byteCount }
      && outputs[outputs.count - 1].byteCount <= head.byteCount
  }

  private func checkRuns(_ batch: inout OutboundBatch) -> [Int: Int] {
    let outputs = (0..<batch.outputs.count).map { batch.outputs[$0] }
    var lengths: [Int: Int] = [:]
    for index in outputs.indices {
      let limit = batch.sessions[outputs[index].session].segmentLimit
      for isUniform in [true, false] {
        let most = (1...outputs.count - index).last {
          OutboundBatchTests.isOneSend(
            Array(outputs[index..<index + $0]), isUniform: isUniform, segmentLimit: limit)
        }
        let run = batch.runLength(from: index, isUniform: isUniform)
        #expect(run == most, "datagram \(index), uniform: \(isUniform)")
        if isUniform { lengths[run, default: 0] += 1 }
      }
    }
    return lengths
  }

  @Test func runsAreAsLongAsTheKernelTakesThem() throws {
    let star = try Star(batchPackets: 200)
    let a = star.pair.a
    var random = SeededGenerator(seed: 3)
    var lengths: [Int: Int] = [:]
    a.inspect = { lengths.merge(self.checkRuns(&$0)) { $0 + $1 } }
    for round in 0..<40 {
      let limits: [UInt16] = [.max, .max, 1000, 100]
      a.tunnel.peer(star.pair.peerOfA)!.pointee.segmentLimit = limits[round % 4]
      let packets = (0..<Int.random(in: 1...12, using: &random)).map { _ -> TunPacket in
        let host: UInt8 = Int.random(in: 0..<5, using: &random) == 0 ? 3 : 2
        if Bool.random(using: &random) {
          return TunPacket(
            Star.packet(
              to: host, [0, 16, 100, 1000].randomElement(using: &random)!,
              trafficClass: Int.random(in: 0..<8, using: &random) == 0 ? 2 : 0))
        }
        var flow = FlowPacket(destination: host)
        let size = [36, 500, 1368].randomElement(using: &random)!
        let most = min(100 * size, 60_000)
        flow.payload = [UInt8](repeating: 9, count: Int.random(in: 1...most, using: &random))
        return TunPacket(flow, segmentByteCount: size)
      }
      a.send(packets, at: star.pair.now)
    }
    // Runs of one datagram, of two, and of as many as possible.
    #expect(lengths[1, default: 0] > 10 && lengths[2, default: 0] > 10)
    #expect(lengths[64, default: 0] > 10 && lengths.keys.max() == 64)
  }

  /// 45 datagrams of 1452 bytes are 65,340 bytes; one more exceeds the limit of a send.
  @Test func aRunIsNoLongerThanASend() throws {
    let pair = try SegmentsTests.pair(batchPackets: 128)
    var runs: [Int] = []
    pair.a.inspect = { runs.append($0.runLength(from: 0, isUniform: true)) }
    let flow = SegmentsTests.flow(1380 * 46)
    pair.a.send([TunPacket(flow, segmentByteCount: 1380)], at: pair.now)
    // A datagram of the largest size is sent alone, even if an empty one follows.
    pair.a.tunnel.setMTU(65_475)
    let largest = TestPacket.ipv4(
      from: TunnelPair.addressOfA, to: TunnelPair.addressOfB,
      payload: [UInt8](repeating: 0, count: 65_455))
    pair.a.send([TunPacket(largest), TunPacket(SegmentsTests.single(1))], at: pair.now)
    #expect(runs == [45, 1])
  }

  @Test func messagesAndRepliesAreRunsOfTheirOwn() throws {
    let pair = try SegmentsTests.pair(batchPackets: 16)
    var kinds: [[Int]] = []
    pair.a.inspect = { batch in
      kinds.append((0..<batch.outputCount).map { batch.runLength(from: $0, isUniform: false) })
    }
    let nowhere = TestPacket.ipv4(from: TunnelPair.addressOfA, to: ipv4(8, 8, 8, 8))
    let one = SegmentsTests.single(1)
    pair.a.send([one, one, nowhere, nowhere, one, one, one], at: pair.now)
    #expect(kinds == [[2, 1, 1, 1, 3, 2, 1]])
  }

  // MARK: After sealing

  @Test func eachSessionIsToldWhatBecameOfItsDatagrams() throws {
    // Rounds of 4: datagrams of earlier rounds count as well.
    let star = try Star(batchPackets: 4)
    let a = star.pair.a
    let before = (
      a.count(.sent), a.count(.sendFailed), a.status(of: star.pair.peerOfA)!.sentByteCount,
      a.status(of: star.peerOfThird)!.sentByteCount
    )
    var failed = 0
    a.inspect = { batch in
      for index in 0..<batch.outputCount where batch.outputs[index].byteCount == 100 + 44 {
        // A second report changes nothing.
        batch.didFail(index)
        batch.didFail(index)
        failed += 1
      }
    }
    var flow = SegmentsTests.flow(750)
    flow.tcpOptions = []
    let packets = [
      // Seven of 100 and one of 50 bytes of payload: 140 and 90 bytes, 176 and 128 on the wire.
      TunPacket(flow, segmentByteCount: 100),
      // 112 of plaintext, 144 on the wire.
      TunPacket(Star.packet(to: 2, 92)), TunPacket(Star.packet(to: 3, 92)),
      TunPacket(Star.packet(to: 3, 12)),
    ]
    a.send(packets, at: star.pair.now)
    #expect(failed == 2)
    #expect(a.count(.sent) == before.0 + 9)
    #expect(a.count(.sendFailed) == before.1 + 2)
    let after = a.status(of: star.pair.peerOfA)!.sentByteCount
    #expect(after == before.2 + 7 * 176 + 128)
    #expect(a.status(of: star.peerOfThird)!.sentByteCount == before.3 + 64)
  }

  @Test func emitCountsARoundThatNoOtherFollowed() throws {
    let pair = try SegmentsTests.pair(batchPackets: 4)
    let before = (pair.a.count(.sent), pair.a.status(of: pair.peerOfA)!.sentByteCount)
    let packet = TunPacket(SegmentsTests.flow(600), segmentByteCount: 100)
    pair.a.outbound.reset()
    pair.a.outbound.room(for: packet.bytes.count)?.copyBytes(from: packet.bytes)
    pair.a.outbound.append(byteCount: packet.bytes.count, offload: packet.offload)
    pair.a.tunnel.plan(&pair.a.outbound, at: pair.now)
    let isSealed = pair.a.outbound.seal()
    #expect(isSealed && pair.a.outbound.outputCount == 4)
    pair.a.outbound.didFail(3)
    pair.a.tunnel.emit(&pair.a.outbound, at: pair.now)
    #expect(pair.a.count(.sent) == before.0 + 3)
    #expect(pair.a.count(.sendFailed) == 1)
    #expect(pair.a.status(of: pair.peerOfA)!.sentByteCount == before.1 + 3 * 176)
    // They are counted only once.
    pair.a.tunnel.emit(&pair.a.outbound, at: pair.now)
    #expect(pair.a.outbound.outputCount == 0)
  }

  @Test func aFailedBatchDoesNotCountAsAnswer() throws {
    let pair = try SegmentsTests.pair(batchPackets: 4)
    pair.wait(seconds: 20)
    #expect(!pair.a.state(pair.peerOfA).timers.newHandshake.isSet)
    let packet = TunPacket(SegmentsTests.flow(600), segmentByteCount: 100)
    pair.a.refuses = { _ in true }
    pair.a.send([packet], at: pair.now)
    #expect(!pair.a.state(pair.peerOfA).timers.newHandshake.isSet)
    // One sent datagram of many is enough.
    pair.a.refuses = { $0 != 1 }
    pair.a.send([packet], at: pair.now)
    #expect(pair.a.state(pair.peerOfA).timers.newHandshake.isSet)
  }

  // MARK: What the kernel refuses

  /// The run lengths for a packet with ten segments to b and one with five to the other peer.
  private func runs(_ star: Star, refusing size: Int? = nil) -> [Int] {
    var runs: [Int] = []
    star.pair.a.inspect = { batch in
      for index in [0, 10] {
        runs.append(batch.runLength(from: index, isUniform: true))
        if index == 0, size != nil { batch.didRefuseSegments(index) }
      }
      if size != nil { runs.append(batch.runLength(from: 1, isUniform: true)) }
    }
    defer { star.pair.a.inspect = { _ in } }
    var other = SegmentsTests.flow(500)
    other.destination = 3
    star.pair.a.send(
      [
        TunPacket(SegmentsTests.flow(size.map { $0 * 10 } ?? 1000), segmentByteCount: size ?? 100),
        TunPacket(other, segmentByteCount: 100),
      ], at: star.pair.now)
    return runs
  }

  @Test func aRefusalHoldsForThatPeerAndSuchSizes() throws {
    let star = try Star(batchPackets: 64)
    #expect(runs(star) == [10, 5])
    // The refusal holds from then on, in this batch and the next, also for larger segments.
    #expect(runs(star, refusing: 100) == [10, 5, 1])
    #expect(star.pair.a.state(star.pair.peerOfA).segmentLimit == 176)
    #expect(star.pair.a.state(star.peerOfThird).segmentLimit == .max)
    #expect(runs(star) == [1, 5])
    // Smaller ones may be sent together, until those are refused too.
    #expect(runs(star, refusing: 84) == [10, 5, 1])
    #expect(star.pair.a.state(star.pair.peerOfA).segmentLimit == 160)
  }

  @Test func aRefusalIsForgottenWithTheWay() throws {
    for way in 0..<4 {
      let star = try Star(batchPackets: 64)
      let pair = star.pair
      _ = runs(star, refusing: 100)
      #expect(runs(star)[0] == 1)
      switch way {
      case 0:
        // The same path, within the pause: nothing changes.
        pair.sendFromB([pair.packetFromB()])
        pair.a.tunnel.setEndpoint(pair.b.endpoint, of: pair.peerOfA)
        #expect(runs(star)[0] == 1)
        continue
      case 1:
        pair.b.endpoint = Endpoint(address: ipv4(192, 0, 2, 7), port: 7)
        pair.sendFromB([pair.packetFromB()])
      case 2:
        pair.a.tunnel.setEndpoint(
          Endpoint(address: ipv4(192, 0, 2, 8), port: 7), of: pair.peerOfA)
      default:
        pair.b.endpoint = Endpoint(address: ipv4(192, 0, 2, 9), port: 7)
        pair.skip(121 * nanosecondsPerSecond)
        let peer = pair.b.tunnel.peer(pair.peerOfB)!
        peer.pointee.timers.wantInitiation(at: pair.now)
        pair.b.tunnel.reschedule(&peer.pointee)
        // Without the keepalive that is also due: a handshake is enough.
        let sent = pair.b.settle(at: pair.now, wall: pair.wall).filter { $0.type == 1 }
        #expect(sent.count == 1)
        pair.carryToA(sent)
        _ = pair.a.settle(at: pair.now, wall: pair.wall)
      }
      #expect(pair.a.status(of: pair.peerOfA)?.endpoint?.port == 7)
      #expect(runs(star)[0] == 10, "way \(way)")
    }
  }

  /// The pause doubles while the kernel refuses, and starts again after segments have passed.
  @Test func R65_segmentsAreTriedAgainAfterAPause() throws {
    let star = try Star(batchPackets: 64)
    for pause in [1, 2, 4, 8, 8] {
      #expect(runs(star, refusing: 100) == [10, 5, 1], "before the pause of \(pause) s")
      star.pair.now = star.pair.now.advanced(by: UInt64(pause) * nanosecondsPerSecond)
      #expect(runs(star) == [1, 5], "pause of \(pause) s")
      star.pair.now = star.pair.now.advanced(by: nanosecondsPerSecond)
    }
    // The MTU has grown again.
    #expect(runs(star) == [10, 5])
    star.pair.now = star.pair.now.advanced(by: 20 * nanosecondsPerSecond)
    #expect(runs(star, refusing: 100) == [10, 5, 1])
    star.pair.now = star.pair.now.advanced(by: 2 * nanosecondsPerSecond)
    #expect(runs(star) == [10, 5])
  }

  /// The peer roams while the batch is being sent: the result is about the old path.
  @Test func aRefusalOnTheOldWayIsNotRemembered() throws {
    let pair = try SegmentsTests.pair(batchPackets: 16)
    let moved = Endpoint(address: ipv4(192, 0, 2, 8), port: 7)
    pair.a.inspect = {
      $0.didRefuseSegments(0)
      $0.didLoseSource(0)
    }
    let packet = TunPacket(SegmentsTests.flow(600), segmentByteCount: 100)
    pair.a.send([packet], at: pair.now) { [a = pair.a, id = pair.peerOfA] in
      a.tunnel.setEndpoint(moved, of: id)
      a.tunnel.peer(id)!.pointee.path!.source = TunnelPair.addressOfA
    }
    #expect(pair.a.state(pair.peerOfA).segmentLimit == .max)
    #expect(pair.a.state(pair.peerOfA).path?.source == TunnelPair.addressOfA)
  }

  @Test func aLostSourceIsLeftOutForTheRestOfTheBatch() throws {
    let star = try Star(batchPackets: 4)
    let peer = star.pair.a.tunnel.peer(star.pair.peerOfA)!
    let other = star.pair.a.tunnel.peer(star.peerOfThird)!
    for peer in [peer, other] {
      peer.pointee.path!.source = ipv4(198, 51, 100, 1)
      peer.pointee.path!.interface = 3
    }
    var rounds = 0
    star.pair.a.inspect = { batch in
      rounds += 1
      if rounds == 1 { batch.didLoseSource(1) }
    }
    var flow = SegmentsTests.flow(300)
    flow.destination = 3
    let sent = star.pair.a.send(
      [
        TunPacket(SegmentsTests.flow(600), segmentByteCount: 100),
        TunPacket(flow, segmentByteCount: 100),
      ], at: star.pair.now)
    let sources = sent.map(\.path.source.isUnspecified)
    #expect(sources == [true, true, true, true, true, true, false, false, false])
    #expect(peer.pointee.path == Path(to: star.pair.b.endpoint))
    #expect(other.pointee.path?.interface == 3)
  }
}
