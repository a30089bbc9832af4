import Testing

@testable import Culvert

/// ICMP errors about packets that cannot be sent, and ECN marks of the outer header.
@Suite struct UnreachableTests {
  private func isHostUnreachable(_ reply: [UInt8], about packet: [UInt8]) -> Bool {
    if reply[0] >> 4 == 4 {
      return reply[9] == 1 && reply[20] == 3 && reply[21] == 1
        && Array(reply[16..<20]) == Array(packet[12..<16])
        && Array(reply.dropFirst(28)) == packet
    }
    return reply[6] == 58 && reply[40] == 1 && reply[41] == 3
      && Array(reply[24..<40]) == Array(packet[8..<24]) && Array(reply.dropFirst(48)) == packet
  }

  @Test func packetsWithoutAPeerOrAnEndpointAreAnswered() throws {
    let pair = try TunnelPair()
    let third = TunnelNode(seed: 9, endpoint: TunnelPair.elsewhere)
    try pair.a.addPeer(
      third.publicKey,
      allowed: [
        #require(IPPrefix(ipv4(10, 0, 0, 3), length: 32)),
        #require(IPPrefix(ipv6(0xfd00 << 48, 3), length: 128)),
      ])
    let source = TunnelPair.addressOfA
    let source6 = TunnelPair.address6OfA
    let packets = [
      TestPacket.ipv4(from: source, to: ipv4(8, 8, 8, 8), payload: [1, 2, 3]),
      TestPacket.ipv6(from: source6, to: ipv6(0x2001 << 48, 8), payload: [1, 2]),
      TestPacket.ipv4(from: source, to: ipv4(10, 0, 0, 3), payload: [4]),
      TestPacket.ipv6(from: source6, to: ipv6(0xfd00 << 48, 3), payload: [5]),
    ]
    #expect(pair.a.send(packets, at: pair.now).isEmpty)
    #expect(pair.a.count(.noPeerForDestination) == 2)
    #expect(pair.a.count(.noEndpoint) == 2)
    #expect(pair.a.replies.count == 4)
    for (reply, packet) in zip(pair.a.replies, packets) {
      #expect(isHostUnreachable(reply, about: packet))
    }
    // Nothing is staged for a peer that cannot be reached.
    #expect(pair.a.freeStagingSlots == pair.a.limits.stagingSlots)
  }

  /// No error is written before a packet outside the batch: those bytes are another tunnel's
  /// datagram, which is still to be sealed.
  @Test func aPacketThatStandsElsewhereIsNotAnswered() throws {
    let pair = try TunnelPair()
    let packets = [
      TestPacket.ipv4(from: TunnelPair.addressOfA, to: ipv4(8, 8, 8, 8), payload: [1, 2, 3]),
      TestPacket.ipv6(from: TunnelPair.address6OfA, to: ipv6(0x2001 << 48, 8), payload: [1, 2]),
    ]
    for packet in packets {
      let memory =
        [UInt8](repeating: 0xa5, count: 256) + packet + [UInt8](repeating: 0xa5, count: 512)
      var after = memory
      after.withUnsafeMutableBytes {
        pair.a.outbound.reset()
        pair.a.outbound.append(at: $0.baseAddress! + 256, byteCount: packet.count)
        pair.a.tunnel.plan(&pair.a.outbound, at: pair.now)
        let hasOutputs = pair.a.outbound.seal()
        #expect(!hasOutputs)
        pair.a.tunnel.emit(&pair.a.outbound, at: pair.now)
        pair.a.outbound.reset()
      }
      #expect(after == memory)
    }
    #expect(pair.a.count(.noPeerForDestination) == 2)
  }

  // MARK: Loops

  /// The datagram as the kernel writes it to the TUN if the route to the endpoint leads there.
  private func looped(_ datagram: Emission, from port: UInt16 = 40_000) -> ChannelPacket {
    var packet = ChannelPacket(
      source: TunnelPair.addressOfA, destination: datagram.path.endpoint.address)
    packet.sourcePort = port
    packet.destinationPort = datagram.path.endpoint.port
    packet.payload = datagram.bytes
    return packet
  }

  /// b has 0.0.0.0/0 and ::/0, and its endpoint is within.
  private func loopingPair(_ endpoint: IPAddress) throws -> TunnelPair {
    let pair = try TunnelPair()
    for prefix in [IPPrefix(ipv4(0, 0, 0, 0), length: 0), IPPrefix(ipv6(0, 0), length: 0)] {
      try pair.a.tunnel.stageAllowedIP(#require(prefix), add: true)
    }
    pair.a.tunnel.commitAllowedIPs(to: pair.peerOfA)
    pair.connect()
    pair.a.tunnel.setEndpoint(Endpoint(address: endpoint, port: 51_820), of: pair.peerOfA)
    while pair.a.tunnel.nextEvent() != nil {}
    return pair
  }

  private func loopEvents(_ node: TunnelNode) -> Int {
    var count = 0
    while let event = node.tunnel.nextEvent() { count += event.kind == .routingLoop ? 1 : 0 }
    return count
  }

  @Test(arguments: [ipv4(192, 0, 2, 2), ipv6(0x2001_0db8 << 32, 2)])
  func R66_ourOwnDatagramsAreNotTunnelled(endpoint: IPAddress) throws {
    let pair = try loopingPair(endpoint)
    let sent = try #require(pair.a.send([pair.packetFromA()], at: pair.now).first)
    var packet = looped(sent)
    if endpoint.family == .ipv6 { packet.source = TunnelPair.address6OfA }
    for _ in 0..<3 { #expect(pair.a.send([packet.bytes], at: pair.now).isEmpty) }
    // A datagram that exceeds the TUN's MTU arrives in fragments: the first shows what it is.
    packet.payload += [UInt8](repeating: 0, count: 1400)
    #expect(pair.a.send([packet.fragments(1200)[0]], at: pair.now).isEmpty)
    #expect(pair.a.count(.routingLoop) == 4)
    #expect(pair.a.replies.isEmpty)
    // One line in the log.
    #expect(loopEvents(pair.a) == 1)
    // Another endpoint, and a loop again: another line.
    pair.a.tunnel.setEndpoint(TunnelPair.elsewhere, of: pair.peerOfA)
    let other = try #require(pair.a.send([pair.packetFromA()], at: pair.now).first)
    #expect(pair.a.send([looped(other).bytes], at: pair.now).isEmpty)
    #expect(loopEvents(pair.a) == 1)
  }

  @Test func R66_ourOwnInitiationsAreNotStaged() throws {
    let pair = try loopingPair(ipv4(192, 0, 2, 2))
    let initiation = try #require(pair.initiationFromA())
    pair.a.send([looped(initiation).bytes], at: pair.now)
    #expect(pair.a.count(.routingLoop) == 1)
    #expect(pair.a.freeStagingSlots == pair.a.limits.stagingSlots)
  }

  /// Another host may use the same server through this tunnel, with its own WireGuard.
  @Test func R66_datagramsOfOthersToTheEndpointPass() throws {
    let pair = try loopingPair(ipv4(192, 0, 2, 2))
    let sent = try #require(pair.a.send([pair.packetFromA()], at: pair.now).first)
    var others: [ChannelPacket] = []
    var other = looped(sent)
    other.payload[4] ^= 1
    others.append(other)
    other = looped(sent)
    other.destinationPort = 53
    others.append(other)
    other = looped(sent)
    other.payload[0] = 5
    others.append(other)
    other = looped(sent)
    other.payload = Array(other.payload.prefix(7))
    others.append(other)
    other = looped(sent)
    other.destination = ipv4(192, 0, 2, 99)
    others.append(other)
    other = looped(sent)
    other.other = (6, other.transport)
    others.append(other)
    // The bytes of the whole datagram are still in the buffer when a part of it follows.
    #expect(pair.a.send([looped(sent).bytes], at: pair.now).isEmpty)
    var part = looped(sent)
    part.payload = Array(part.payload.prefix(7))
    #expect(pair.a.send([part.bytes], at: pair.now).count == 1)
    #expect(pair.a.count(.routingLoop) == 1 && loopEvents(pair.a) == 1)
    #expect(pair.a.send(others.map(\.bytes), at: pair.now).count == others.count)
    #expect(pair.a.count(.routingLoop) == 1 && loopEvents(pair.a) == 0)
  }

  @Test func answersAreLimitedTo100ASecondAnd20InABurst() throws {
    let pair = try TunnelPair()
    let packet = TestPacket.ipv4(from: TunnelPair.addressOfA, to: ipv4(8, 8, 8, 8))
    pair.a.send([[UInt8]](repeating: packet, count: 50), at: pair.now)
    #expect(pair.a.replies.count == 20)
    #expect(pair.a.count(.noPeerForDestination) == 50)
    pair.skip(10 * nanosecondsPerMillisecond)
    pair.a.send([packet, packet], at: pair.now)
    #expect(pair.a.replies.count == 21)
    pair.skip(nanosecondsPerSecond)
    pair.a.send([[UInt8]](repeating: packet, count: 50), at: pair.now)
    #expect(pair.a.replies.count == 41)
  }

  /// RFC 6040, figure 4, except that Not-ECT in CE passes; the DSCP is not copied outside.
  @Test func R68_congestionMarksCrossTheTunnel() throws {
    let pair = try TunnelPair()
    pair.connect()
    let dscp: UInt8 = 0xb8
    for inner: UInt8 in 0...3 {
      let sent = pair.a.send([pair.packetFromA([1], trafficClass: dscp | inner)], at: pair.now)
      #expect(sent.map(\.trafficClass) == [inner])
    }
    let table: [[UInt8]] = [[0, 0, 0, 0], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]]
    for inner: UInt8 in 0...3 {
      for outer: UInt8 in 0...3 {
        let packet = pair.packetFromA([1], trafficClass: dscp | inner)
        let packet6 = TestPacket.ipv6(
          from: TunnelPair.address6OfA, to: TunnelPair.address6OfB, trafficClass: dscp | inner)
        let sent = pair.a.send([packet, packet6], at: pair.now)
        let delivered = pair.b.receive(
          sent.map { Arrival($0.bytes, from: pair.a.endpoint, trafficClass: 0xfc | outer) },
          at: pair.now)
        let mark = table[Int(inner)][Int(outer)]
        #expect(
          delivered == [
            pair.packetFromA([1], trafficClass: dscp | mark),
            TestPacket.ipv6(
              from: TunnelPair.address6OfA, to: TunnelPair.address6OfB,
              trafficClass: dscp | mark),
          ])
      }
    }
  }

  @Test func handshakeMessagesAreMarkedAF41() throws {
    let pair = try TunnelPair()
    let packet = pair.packetFromA([1], trafficClass: 2)
    pair.a.send([packet], at: pair.now)
    pair.b.tunnel.loadEnd = pair.now.advanced(by: 1)
    pair.exchange()
    pair.wait(seconds: 6)
    let handshakes = (pair.sentByA + pair.sentByB).filter { $0.type != 4 }
    #expect(Set(handshakes.map(\.type)) == [1, 2, 3])
    #expect(handshakes.allSatisfy { $0.trafficClass == 0x88 })
    // A staged packet keeps its mark, a keepalive has none.
    #expect(pair.sentByA.filter { $0.type == 4 }.map(\.trafficClass) == [2])
    pair.wait(seconds: 11)
    #expect(pair.sentByB.last?.isKeepalive == true && pair.sentByB.last?.trafficClass == 0)
  }
}
