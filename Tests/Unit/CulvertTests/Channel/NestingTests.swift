import Testing

@testable import Culvert

private let families: [IPAddress.Family] = [.ipv4, .ipv6]

/// Nested tunnels between two processes with equally many hops.
@Suite struct NestingTests {
  private func bytes(_ count: Int, seed: UInt64) -> [UInt8] {
    var random = SeededGenerator(seed: seed)
    return random.bytes(count)
  }

  // MARK: Handshakes

  /// The first packet waits in the inner tunnel, and its handshake in the outer tunnel; only the
  /// outer tunnel is visible on the network.
  @Test(arguments: families) func handshakesGoThroughTheOuterTunnel(
    family: IPAddress.Family
  ) throws {
    let pair = try TunnelPair(hops: 2, families: [family])
    let packet = TunnelPair.packet([1, 2, 3])
    pair.sendFromA([packet])
    #expect(pair.a.innermost.count(.staged) == 1 && pair.sentByA.isEmpty)
    // The inner initiation is staged in the outer tunnel, which first needs its own handshake.
    pair.carryToB(pair.a.settle(at: pair.now, wall: pair.wall))
    #expect(pair.sentByA.map(\.type) == [1] && pair.a.outermost.count(.staged) == 1)
    pair.exchange()
    #expect(pair.b.delivered == [packet])
    // An initiation and a response on the network; all else is transport data.
    #expect(pair.sentByA.map(\.type).filter { $0 != 4 } == [1])
    #expect(pair.sentByB.map(\.type).filter { $0 != 4 } == [2])
    for hop in 0..<2 {
      #expect(pair.a.hops[hop].count(.handshakeAccepted) == 1)
      #expect(pair.b.hops[hop].count(.handshakeAccepted) == 1)
      #expect(pair.a.hops[hop].count(.badTag) == 0 && pair.b.hops[hop].count(.badTag) == 0)
    }
    // The answer needs no further handshakes.
    let answer = TunnelPair.packet([4, 5], fromA: false)
    #expect(pair.sendFromB([answer]) == [answer])
    #expect(
      pair.a.hops[0].channelCount(.received) >= 2 && pair.b.hops[0].channelCount(.received) >= 2)
    // Handshakes are marked as the kernel marks them, but on the inner packet: only ECN is visible
    // outside.
    #expect(pair.sentByA.filter { $0.type == 4 }.allSatisfy { $0.trafficClass == 0 })
  }

  @Test(arguments: [2, 3, 4]) func anyNumberOfHops(hops: Int) throws {
    let pair = try TunnelPair(hops: hops, families: [.ipv6, .ipv4, .ipv6], strides: [0, 256, 64])
    pair.connect()
    pair.forget()
    for (index, byteCount) in [0, 1, 100, 1200, 1300, 1400, 3000].enumerated() {
      for family in families {
        let packet = TunnelPair.packet(bytes(byteCount, seed: UInt64(index)), family)
        #expect(pair.sendFromA([packet]) == [packet], "\(byteCount) bytes")
        let answer = TunnelPair.packet(
          bytes(byteCount, seed: UInt64(index)), family, fromA: false)
        #expect(pair.sendFromB([answer]) == [answer], "\(byteCount) bytes")
      }
    }
    // Rekeying works through all hops.
    pair.a.innermost.tunnel.setPersistentKeepalive(
      25, of: pair.a.innermost.firstPeer, at: pair.now)
    pair.wait(seconds: 400)
    let last = TunnelPair.packet([9])
    #expect(pair.sendFromA([last]) == [last])
    for hop in pair.a.hops { #expect(hop.count(.handshakeAccepted) >= 3) }
  }

  /// Packets staged in the outer tunnel are copies, since the inner batch is reused meanwhile.
  @Test func stagedPacketsAreCopies() throws {
    let pair = try TunnelPair(hops: 2)
    pair.connect()
    pair.forget()
    // The outer session ends, the inner one continues. Some time must pass first, or it would be
    // too soon for another handshake.
    pair.skip(6 * nanosecondsPerSecond)
    for node in [pair.a, pair.b] {
      node.outermost.tunnel.setUp(false, at: pair.now)
      node.outermost.tunnel.setUp(true, at: pair.now)
    }
    let packets = (0..<3).map { TunnelPair.packet(bytes(900, seed: $0)) }
    let before = pair.a.outermost.count(.staged)
    for packet in packets {
      pair.sendFromA([packet])
      // Overwrite both batches, as the next packets would.
      pair.a.innermost.outbound.outputs.bytes.initializeMemory(as: UInt8.self, repeating: 0xdd)
      pair.a.outermost.outbound.bytes.initializeMemory(as: UInt8.self, repeating: 0xdd)
    }
    #expect(pair.a.outermost.count(.staged) == before + 3 && pair.b.delivered.isEmpty)
    pair.exchange()
    #expect(pair.b.delivered == packets)
  }

  /// The outer peer never answers: the inner tunnel gives up as it would over a network.
  @Test func anOuterTunnelWithoutAnswerIsALostNetwork() throws {
    let pair = try TunnelPair(hops: 2)
    pair.loses = { _ in true }
    pair.sendFromA([TunnelPair.packet([1])])
    pair.wait(seconds: 200)
    #expect(pair.b.delivered.isEmpty)
    // Host unreachable, for the program's packet.
    #expect(pair.a.replies.count == 1 && pair.a.innermost.count(.peerUnreachable) == 1)
    pair.loses = { _ in false }
    pair.sendFromA([TunnelPair.packet([2])])
    pair.wait(seconds: 20)
    #expect(pair.b.delivered == [TunnelPair.packet([2])])
  }

  // MARK: Packets

  /// Every size around the largest unfragmented one, in both families of packet and datagram, with
  /// every cipher.
  @Test(arguments: families, [[0], [64], [256], [512], [512, 64], [256, 0]])
  func packetsOfAllSizes(outer: IPAddress.Family, strides: [Int]) throws {
    let pair = try TunnelPair(hops: 2, families: [outer], strides: strides)
    pair.connect()
    pair.forget()
    let overhead = 32 + (outer == .ipv4 ? 28 : 48)
    for family in families {
      let header = family == .ipv4 ? 20 : 40
      let edge = 1420 - overhead - header
      let sizes = Array(0...17) + Array(edge - 18...edge + 18) + [1400, 2800, 5000, 8000]
      let packets = sizes.map { TunnelPair.packet(bytes($0, seed: UInt64($0)), family) }
      #expect(pair.sendFromA(packets) == packets)
      let answers = sizes.map {
        TunnelPair.packet(bytes($0, seed: UInt64($0)), family, fromA: false)
      }
      #expect(pair.sendFromB(answers) == answers)
    }
    for hop in Array(pair.a.hops) + Array(pair.b.hops) {
      #expect(hop.count(.badTag) == 0 && hop.count(.malformedInner) == 0)
    }
    #expect(pair.b.hops[0].fragmentCount(.reassembled) > 10)
  }

  /// The largest packet there is, in 48 fragments, each way.
  @Test(arguments: families) func theLargestPackets(outer: IPAddress.Family) throws {
    let pair = try TunnelPair(hops: 2, families: [outer], strides: [512])
    pair.connect()
    pair.forget()
    // The largest UDP payload of IPv4, less the inner tunnel's 32 bytes: 65,475.
    let packet = TunnelPair.packet(bytes(65_455, seed: 1))
    #expect(packet.count == 65_475)
    #expect(pair.sendFromA([packet]) == [packet])
    let answer = TunnelPair.packet(bytes(65_455, seed: 2), fromA: false)
    #expect(pair.sendFromB([answer]) == [answer])
  }

  /// The traffic class of a packet, inside and outside (RFC 6040).
  @Test(arguments: families) func congestionMarksCrossBothTunnels(
    outer: IPAddress.Family
  ) throws {
    let pair = try TunnelPair(hops: 2, families: [outer])
    pair.connect()
    pair.forget()
    for byteCount in [100, 3000] {
      for mark: UInt8 in [0, 1, 2, 3] {
        pair.sentByA = []
        let packet = TunnelPair.packet(
          bytes(byteCount, seed: 1), trafficClass: 0xb8 | mark)
        var emissions = pair.a.send([packet], at: pair.now)
        #expect(emissions.allSatisfy { $0.trafficClass == mark })
        // The network marks one of the datagrams.
        emissions[0].trafficClass = 3
        let delivered = pair.carryToB(emissions)
        // A packet that cannot be marked passes as it is, as the kernel does it (R68).
        let expected = mark == 0 ? 0xb8 : 0xbb as UInt8
        #expect(
          delivered == [TunnelPair.packet(bytes(byteCount, seed: 1), trafficClass: expected)])
      }
    }
  }

  // MARK: Rounds

  /// More segments, inner datagrams and fragments than any batch holds.
  @Test(arguments: [2, 3]) func moreThanABatchHolds(hops: Int) throws {
    let pair = try TunnelPair(
      hops: hops, families: [.ipv6, .ipv4], limits: .narrow, strides: [256, 64])
    pair.connect()
    pair.forget()
    var flow = FlowPacket(source: 1, destination: 2)
    flow.payload = bytes(1380 * 30 + 7, seed: 5)
    var model = PacketModel(flow.bytes)!
    // The addresses of the two ends inside the innermost tunnel.
    model.bytes.replaceSubrange(12..<20, with: [10, 0, 0, 1, 10, 0, 0, 2])
    model.updateChecksums()
    model.leaveChecksum()
    let packet = TunPacket(model, flow.offload(segmentByteCount: 1380))
    #expect(packet.segments.count == 31)
    let emissions = pair.a.send([packet], at: pair.now)
    // Each in two fragments at least.
    #expect(emissions.count >= 61)
    #expect(pair.carryToB(emissions) == packet.segments)
    // Many small packets at once.
    let packets = (0..<100).map { TunnelPair.packet(bytes(Int($0) * 7, seed: $0)) }
    #expect(pair.sendFromA(packets) == packets)
  }

  /// In any order, duplicated, or interleaved: each complete datagram is delivered.
  @Test(arguments: families, 0..<6 as Range<UInt64>)
  func anyOrder(outer: IPAddress.Family, seed: UInt64) throws {
    let pair = try TunnelPair(hops: 2, families: [outer], strides: [256])
    pair.connect()
    pair.forget()
    var random = SeededGenerator(seed: seed)
    let packets = (0..<20).map {
      TunnelPair.packet(bytes(Int.random(in: 0...4000, using: &random), seed: $0))
    }
    var emissions = pair.a.send(packets, at: pair.now)
    emissions += emissions
    emissions.shuffle(using: &random)
    let delivered = pair.carryToB(emissions)
    #expect(delivered.count == 20 && Set(delivered) == Set(packets))
  }

  /// At most half of the slots are lent before they are released, so the other fragments of a batch
  /// find slots.
  @Test func aBatchOfFragments() throws {
    var limits = Limits.nested
    limits.batchPackets = 128
    limits.batchByteCount = 512 * 1024
    let pair = try TunnelPair(hops: 2, limits: limits)
    pair.connect()
    pair.forget()
    let packets = (0..<60).map { TunnelPair.packet(bytes(1500, seed: $0)) }
    let emissions = pair.a.send(packets, at: pair.now)
    #expect(emissions.count == 120)
    // First all first fragments, then all others: 60 slots are in use when the first datagram is
    // complete.
    let sorted = emissions.enumerated().sorted { $0.offset % 2 < $1.offset % 2 }.map(\.element)
    #expect(pair.carryToB(sorted) == packets)
    #expect(pair.b.hops[0].fragmentCount(.noSlot) == 0)
    #expect(pair.b.hops[0].fragmentCount(.evicted) == 0)
  }

  // MARK: Refusals

  /// A channel that cannot send counts as a failed send of the inner tunnel.
  @Test func whatCannotBeSentIsCounted() throws {
    let pair = try TunnelPair(hops: 2)
    pair.connect()
    pair.forget()
    let inner = pair.a.innermost
    let (sent, failed) = (inner.count(.sent), inner.count(.sendFailed))
    pair.a.hops[0].channel.close()
    #expect(pair.a.send([TunnelPair.packet([1]), TunnelPair.packet([2])], at: pair.now).isEmpty)
    #expect(inner.count(.sent) == sent && inner.count(.sendFailed) == failed + 2)
    #expect(pair.a.hops[0].channelCount(.closed) == 2)
    pair.a.hops[0].channel.open(firstPort: 51_820)
    let packet = TunnelPair.packet([3])
    #expect(pair.sendFromA([packet]) == [packet])
    // A peer endpoint of a family for which the channel has no address.
    let peer = inner.firstPeer
    inner.tunnel.setEndpoint(
      Endpoint(address: TunnelPair.address(1, 2, .ipv6), port: 51_820), of: peer)
    #expect(pair.sendFromA([packet]) == [packet])
    // One of two in a batch: the other is sent.
    inner.tunnel.setEndpoint(
      Endpoint(address: TunnelPair.address(1, 2, .ipv4), port: 51_820), of: peer)
    pair.a.hops[0].channel.forbidsFragmentation = true
    let packets = [1500, 10].map { TunnelPair.packet(bytes($0, seed: 1)) }
    #expect(pair.sendFromA(packets) == [packets[1]])
    #expect(inner.count(.sendFailed) == failed + 3)
    #expect(pair.a.hops[0].channelCount(.tooLarge) == 1)
  }

  /// The outer tunnel's ICMP errors about packets that it cannot route are not delivered to the
  /// inner one.
  @Test func outerErrorsAreNobodys() throws {
    let pair = try TunnelPair(hops: 2)
    let peer = pair.a.innermost.firstPeer
    pair.a.innermost.tunnel.setEndpoint(
      Endpoint(address: ipv4(8, 8, 8, 8), port: 1), of: peer)
    pair.sendFromA([TunnelPair.packet([1])])
    pair.exchange()
    #expect(pair.sentByA.isEmpty && pair.a.replies.isEmpty)
    #expect(pair.a.outermost.count(.noPeerForDestination) == 1)
  }

  /// The inner peer roams to another port of the channel, as it does over a network (R8).
  @Test func R8_roamingInsideATunnel() throws {
    let pair = try TunnelPair(hops: 2)
    pair.connect()
    pair.forget()
    pair.a.hops[0].channel.open(firstPort: 40_000, count: 2)
    let packet = TunnelPair.packet([1])
    #expect(pair.sendFromA([packet]) == [packet])
    let peer = pair.b.innermost.firstPeer
    #expect(
      pair.b.innermost.tunnel.status(of: peer)?.endpoint
        == Endpoint(address: TunnelPair.address(1, 1, .ipv4), port: 40_000))
    let answer = TunnelPair.packet([2], fromA: false)
    #expect(pair.sendFromB([answer]) == [answer])
  }

  // MARK: Incomplete datagrams

  /// The remaining fragments never arrive: after 30 s (IPv4) or 60 s (IPv6) the sender gets one
  /// ICMP error, through the outer tunnel (F9).
  @Test(arguments: families) func F9_expiryIsToldThroughTheTunnel(
    outer: IPAddress.Family
  ) throws {
    let pair = try TunnelPair(hops: 2, families: [outer])
    pair.connect()
    pair.forget()
    let emissions = pair.a.send([TunnelPair.packet(bytes(3000, seed: 1))], at: pair.now)
    #expect(emissions.count == 3)
    #expect(pair.carryToB(Array(emissions[..<2])).isEmpty)
    expect(pair.b.hops[0].channel.reassembler.incompleteCount == 1)
    let before = pair.a.hops[0].channelCount(.notOurs)
    pair.wait(seconds: outer == .ipv4 ? 29 : 59)
    #expect(pair.b.hops[0].fragmentCount(.timeExceededSent) == 0)
    pair.wait(seconds: 31)
    #expect(pair.b.hops[0].fragmentCount(.timeExceededSent) == 1)
    // The other end has received it: an ICMP message that is not about reachability.
    #expect(pair.a.hops[0].channelCount(.notOurs) == before + 1)
    expect(!pair.b.hops[0].channel.nextDeadline.isSet)
    let packet = TunnelPair.packet([1])
    #expect(pair.sendFromA([packet]) == [packet])
  }

  /// Removing the outer peer also removes its fragments; a new peer with the same key in the same
  /// place is another sender (F10).
  @Test func F10_removedPeersTakeTheirFragmentsAlong() throws {
    let pair = try TunnelPair(hops: 2)
    pair.connect()
    pair.forget()
    let emissions = pair.a.send([TunnelPair.packet(bytes(3000, seed: 1))], at: pair.now)
    pair.carryToB(Array(emissions[..<2]))
    expect(pair.b.hops[0].channel.reassembler.incompleteCount == 1)
    let outer = pair.b.outermost
    let peer = outer.firstPeer
    let sender = peer.sender
    expect(outer.tunnel.hasSender(sender))
    // The removal of another peer does not affect them.
    let other = try outer.addPeer(Key(word0: 1, word1: 2, word2: 3, word3: 4), allowed: [])
    expect(outer.tunnel.hasSender(other.sender) && other.sender != sender)
    outer.tunnel.removePeer(other)
    pair.exchange()
    expect(pair.b.hops[0].channel.reassembler.incompleteCount == 1)
    expect(!outer.tunnel.hasSender(other.sender))
    outer.tunnel.removePeer(peer)
    expect(!outer.tunnel.hasSender(sender))
    pair.exchange()
    expect(pair.b.hops[0].channel.reassembler.incompleteCount == 0)
    #expect(pair.b.hops[0].fragmentCount(.removed) == 1)
    let again = try outer.addPeer(
      pair.a.outermost.publicKey, allowed: TunnelPair.prefixes(1, 1),
      endpoint: TunnelPair.network(1))
    expect(again.index == peer.index && again.sender != sender)
    expect(outer.tunnel.hasSender(again.sender) && !outer.tunnel.hasSender(sender))
  }

  /// An address moves from one outer peer to another: their fragments are never combined (F8).
  @Test func F8_outerPeersAreToldApart() throws {
    let b = TunnelNode(hops: 2, seed: 1, endpoint: TunnelPair.network(1))
    b.hops[0].channel.setAddress(TunnelPair.address(1, 1, .ipv4))
    let (now, wall) = (Instant(nanoseconds: 1_000), WallTime(seconds: 1, nanoseconds: 0))
    let prefix = TunnelPair.prefixes(1, 2)[0]
    let nodes = try [UInt8(2), 3].map { host in
      let node = TunnelNode(seed: UInt64(host), endpoint: TunnelPair.network(host))
      try node.addPeer(
        b.outermost.publicKey, allowed: TunnelPair.prefixes(1, 1), endpoint: b.endpoint)
      return node
    }
    let send = { (index: Int, packet: [UInt8]) in
      var out = nodes[index].send([packet], at: now)
      for _ in 0..<4 {
        out += nodes[index].settle(at: now, wall: wall)
        b.receive(out.map { Arrival($0.bytes, from: nodes[index].endpoint) }, at: now)
        let back = b.settle(at: now, wall: wall)
        nodes[index].receive(back.map { Arrival($0.bytes, from: b.endpoint) }, at: now)
        out = []
      }
    }
    var model = ChannelPacket(
      source: prefix.address, destination: TunnelPair.address(1, 1, .ipv4))
    model.payload = bytes(100, seed: 1)
    let fragments = model.fragments(56)
    try b.outermost.addPeer(nodes[0].publicKey, allowed: [prefix])
    send(0, fragments[0])
    expect(b.hops[0].channel.reassembler.incompleteCount == 1)
    try b.outermost.addPeer(nodes[1].publicKey, allowed: [prefix])
    send(1, fragments[1])
    expect(b.hops[0].channel.reassembler.incompleteCount == 2)
    #expect(b.hops[0].channelCount(.received) == 0)
    send(1, fragments[0])
    #expect(b.hops[0].channelCount(.received) == 1)
  }
}
