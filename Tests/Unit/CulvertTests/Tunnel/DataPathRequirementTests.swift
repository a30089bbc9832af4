import Testing

@testable import Culvert

/// What a session accepts, and what happens to everything else.
@Suite struct DataPathRequirementTests {
  @Test func R1_truncatedDatagramIsCountedAndReceivingGoesOn() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.forget()
    let sent = pair.a.send([pair.packetFromA([1]), pair.packetFromA([2])], at: pair.now)
    let packets = pair.b.receive(
      [
        Arrival(sent[0].bytes, from: pair.a.endpoint, isTruncated: true),
        Arrival(sent[1].bytes, from: pair.a.endpoint),
      ], at: pair.now)
    #expect(packets == [pair.packetFromA([2])])
    #expect(pair.b.count(.truncated) == 1)
    // The truncated datagram left no trace: sent whole, its counter is still new.
    #expect(pair.carryToB([sent[0]]) == [pair.packetFromA([1])])
  }

  @Test func R2_innerSourceMustMapToTheSendingPeer() throws {
    let pair = try TunnelPair()
    let third = TunnelNode(seed: 9, endpoint: TunnelPair.elsewhere)
    let wide = try #require(IPPrefix(ipv4(10, 1, 0, 0), length: 16))
    let narrow = try #require(IPPrefix(ipv4(10, 1, 2, 0), length: 24))
    try pair.b.addPeer(pair.a.publicKey, allowed: [wide])
    try pair.b.addPeer(third.publicKey, allowed: [narrow])
    pair.connect()
    pair.forget()
    let to = TunnelPair.addressOfB
    let packet = { (source: IPAddress) in TestPacket.ipv4(from: source, to: to) }
    // The first belongs to a by the wide prefix, the second to another peer by the narrower one,
    // the third to nobody.
    pair.sendFromA([
      packet(ipv4(10, 1, 3, 3)), packet(ipv4(10, 1, 2, 3)), packet(ipv4(10, 9, 9, 9)),
    ])
    pair.sendFromA([
      TestPacket.ipv6(from: ipv6(0xfd00 << 48, 1), to: TunnelPair.address6OfB),
      TestPacket.ipv6(from: ipv6(0xfd00 << 48, 7), to: TunnelPair.address6OfB),
    ])
    #expect(
      pair.b.delivered == [
        packet(ipv4(10, 1, 3, 3)),
        TestPacket.ipv6(from: ipv6(0xfd00 << 48, 1), to: TunnelPair.address6OfB),
      ])
    #expect(pair.b.count(.sourceNotAllowed) == 3)
  }

  @Test func R7_plaintextIsPaddedTo16ButNeverBeyondTheMTU() throws {
    let pair = try TunnelPair()
    pair.connect()
    // MTU, bytes of the packet, bytes of padded plaintext.
    let cases = [
      (1420, 1419, 1420), (1420, 1420, 1420), (1420, 1405, 1408), (1420, 1408, 1408),
      (1420, 20, 32), (1420, 1430, 1430), (0, 1419, 1424), (0, 1424, 1424), (0, 21, 32),
      (68, 65, 68), (1279, 1279, 1279), (65_535, 65_475, 65_488), (65_475, 65_475, 65_475),
      (65_475, 65_470, 65_472),
      (1500, 1489, 1500),
    ]
    for (mtu, byteCount, padded) in cases {
      pair.a.tunnel.setMTU(mtu)
      // Previous content of the buffer must not show in the padding.
      pair.a.outbound.bytes.initializeMemory(as: UInt8.self, repeating: 0xff)
      let packet = pair.packetFromA([UInt8](repeating: 0xee, count: byteCount - 20))
      let sent = pair.a.send([packet], at: pair.now)
      #expect(sent.map(\.bytes.count) == [padded + 32], "MTU \(mtu), packet \(byteCount)")
      var padding: [UInt8] = []
      let arrival = Arrival(sent[0].bytes, from: pair.a.endpoint)
      let delivered = pair.b.receive([arrival], at: pair.now) {
        let text = pair.b.inbound.text(0)
        padding = (byteCount..<padded).map { text.byte($0) }
      }
      #expect(padding.allSatisfy { $0 == 0 })
      #expect(delivered == [packet])
    }
  }

  @Test func R8_peerRoamsOnlyAfterTagAndReplayCheck() throws {
    let pair = try TunnelPair()
    pair.connect()
    let home = pair.a.endpoint
    let endpoint = { pair.b.status(of: pair.peerOfB)?.endpoint }
    let sent = pair.a.send([pair.packetFromA([1]), pair.packetFromA([2])], at: pair.now)
    var forged = sent[0].bytes
    forged[forged.count - 1] ^= 1
    pair.b.receive([Arrival(forged, from: TunnelPair.elsewhere)], at: pair.now)
    #expect(endpoint() == home)
    #expect(pair.b.count(.badTag) == 1)
    pair.carryToB([sent[0]])
    pair.b.receive([Arrival(sent[0].bytes, from: TunnelPair.elsewhere)], at: pair.now)
    #expect(endpoint() == home)
    #expect(pair.b.count(.replayed) == 1)
    pair.b.receive([Arrival(sent[1].bytes, from: TunnelPair.elsewhere)], at: pair.now)
    #expect(endpoint() == TunnelPair.elsewhere)
    // The answer is sent there.
    let answer = pair.b.send([pair.packetFromB()], at: pair.now)
    #expect(answer.map(\.path.endpoint) == [TunnelPair.elsewhere])
  }

  /// A pair, and what the routing table says about the local address of `b` for each interface.
  struct Sources {
    let pair: TunnelPair
    var verdicts: [UInt32: SourceVerdict] = [:]

    init() throws {
      pair = try TunnelPair()
      pair.connect()
    }

    func path(_ last: UInt8, interface: UInt32) -> Path {
      Path(
        endpoint: pair.a.endpoint, source: ipv4(192, 0, 2, last), interface: interface)
    }

    /// A datagram from `a` by way of `path`.
    func arrive(_ path: Path) {
      for datagram in pair.a.send([pair.packetFromA()], at: pair.now) {
        var arrival = Arrival(datagram.bytes, from: path.endpoint)
        arrival.path = path
        pair.b.receive([arrival], at: pair.now)
      }
    }

    /// Looks up all routes that must be looked up; the paths asked for.
    func check() -> [Path] {
      var paths: [Path] = []
      var visits = 10_000
      while let next = pair.b.tunnel.nextUncheckedSource(visits: &visits) {
        paths.append(next.path)
        pair.b.tunnel.settleSource(of: next.peer, as: verdicts[next.path.interface] ?? .needed)
      }
      expect(!pair.b.tunnel.hasUncheckedSources)
      return paths
    }

    /// The path of the next datagram from `b`.
    func answer() -> [Path] { pair.b.send([pair.packetFromB()], at: pair.now).map(\.path) }
  }

  /// The route has moved away from interface 3; a datagram in flight to it changes nothing.
  @Test func R40_aRefusedSourceStaysAwayUntilRoutesChange() throws {
    var sources = try Sources()
    sources.verdicts = [3: .refused]
    let old = sources.path(7, interface: 3)
    #expect(sources.check().isEmpty)
    sources.arrive(old)
    #expect(sources.answer() == [old])
    #expect(sources.check() == [old])
    #expect(sources.answer() == [Path(to: old.endpoint)])
    sources.arrive(old)
    expect(!sources.pair.b.tunnel.hasUncheckedSources)
    #expect(sources.answer() == [Path(to: old.endpoint)])
    // By another interface the choice is the peer's again, and is checked once.
    let other = sources.path(8, interface: 4)
    sources.arrive(other)
    sources.arrive(other)
    #expect(sources.check() == [other])
    #expect(sources.answer() == [other])
    // News of the network: everything is checked again, and interface 3 may be right now.
    sources.pair.b.tunnel.recheckSources()
    #expect(sources.check() == [other])
    sources.arrive(old)
    #expect(sources.answer() == [old])
  }

  /// An address that the routing table chooses anyway is not named, so that datagrams follow a
  /// route that moves without any look-up.
  @Test func R40_anImpliedSourceIsNotNamed() throws {
    var sources = try Sources()
    sources.verdicts = [3: .implied]
    let usual = sources.path(7, interface: 3)
    sources.arrive(usual)
    #expect(sources.check() == [usual])
    #expect(sources.answer() == [Path(to: usual.endpoint)])
    sources.arrive(usual)
    #expect(sources.check().isEmpty)
    // Another address of the same interface is named.
    let second = sources.path(8, interface: 3)
    sources.verdicts = [3: .needed]
    sources.arrive(second)
    #expect(sources.check() == [second])
    #expect(sources.answer() == [second])
    // The peer uses the first one again. Then routes change, and it must be named from here on.
    sources.arrive(usual)
    #expect(sources.answer() == [Path(to: usual.endpoint)])
    sources.pair.b.tunnel.recheckSources()
    #expect(sources.check() == [usual])
    #expect(sources.answer() == [usual])
    // Unless the route leaves by another interface.
    sources.verdicts = [3: .refused]
    sources.pair.b.tunnel.recheckSources()
    #expect(sources.check() == [usual])
    #expect(sources.answer() == [Path(to: usual.endpoint)])
  }

  /// The answer to an initiation is not sent with a source that the routing table refuses.
  @Test func R40_aResponseIsCheckedBeforeItIsSent() throws {
    let pair = try TunnelPair()
    let initiation = try #require(pair.initiationFromA())
    var arrival = Arrival(initiation.bytes, from: pair.a.endpoint)
    arrival.path = Path(
      endpoint: pair.a.endpoint, source: ipv4(192, 0, 2, 7), interface: 3)
    pair.b.receive([arrival], at: pair.now)
    pair.b.outbound.reset()
    pair.b.tunnel.runTimers(into: &pair.b.outbound, at: pair.now, wall: pair.wall)
    var asked: [Path] = []
    pair.b.tunnel.checkSources(of: &pair.b.outbound) {
      asked.append($0)
      return .refused
    }
    #expect(asked == [arrival.path])
    let hasOutput = pair.b.outbound.seal()
    #expect(hasOutput)
    guard case .datagram(_, let path, _) = pair.b.outbound.output(0) else {
      Issue.record("no response")
      return
    }
    #expect(path == Path(to: pair.a.endpoint))
    pair.b.tunnel.emit(&pair.b.outbound, at: pair.now)
  }

  @Test func R8_peerDoesNotRoamOnACookieReplyOrAReplayedInitiation() throws {
    let pair = try TunnelPair()
    let initiation = try #require(pair.initiationFromA())
    pair.b.tunnel.loadEnd = pair.now.advanced(by: nanosecondsPerSecond)
    pair.carryToB([initiation])
    let replies = pair.b.settle(at: pair.now, wall: pair.wall)
    #expect(replies.map(\.type) == [3])
    pair.a.receive([Arrival(replies[0].bytes, from: TunnelPair.elsewhere)], at: pair.now)
    #expect(pair.a.settle(at: pair.now, wall: pair.wall).isEmpty)
    #expect(pair.a.count(.cookieAccepted) == 1)
    #expect(pair.a.status(of: pair.peerOfA)?.endpoint == pair.b.endpoint)

    pair.skip(2 * nanosecondsPerSecond)
    pair.b.receive([Arrival(initiation.bytes, from: pair.a.endpoint)], at: pair.now)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).map(\.type) == [2])
    // Late enough that it is refused for its timestamp, not for the limit of 50 a second.
    pair.skip(nanosecondsPerSecond)
    pair.b.receive([Arrival(initiation.bytes, from: TunnelPair.elsewhere)], at: pair.now)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).isEmpty)
    #expect(pair.b.status(of: pair.peerOfB)?.endpoint == pair.a.endpoint)
  }

  @Test func R8_peerRoamsOnAResponse() throws {
    let pair = try TunnelPair()
    pair.carryToB([try #require(pair.initiationFromA())])
    let response = try #require(pair.b.settle(at: pair.now, wall: pair.wall).first)
    #expect(response.type == 2)
    let path = Path(endpoint: TunnelPair.elsewhere, source: pair.a.endpoint.address, interface: 3)
    var forged = Arrival(response.bytes, from: TunnelPair.elsewhere)
    forged.bytes[50] ^= 1
    forged.bytes = TunnelPair.withMAC1(forged.bytes, for: pair.a.publicKey)
    pair.a.receive([forged], at: pair.now)
    #expect(pair.a.settle(at: pair.now, wall: pair.wall).isEmpty)
    #expect(pair.a.status(of: pair.peerOfA)?.endpoint == pair.b.endpoint)
    var arrival = Arrival(response.bytes, from: TunnelPair.elsewhere)
    arrival.path = path
    pair.a.receive([arrival], at: pair.now)
    // The session is confirmed where the response came from.
    let confirmation = pair.a.settle(at: pair.now, wall: pair.wall)
    #expect(confirmation.map(\.isKeepalive) == [true])
    #expect(confirmation.map(\.path) == [path])
    #expect(pair.a.status(of: pair.peerOfA)?.endpoint == TunnelPair.elsewhere)
  }

  @Test func R13_noPlaintextIsUsedBeforeItsTagIsVerified() throws {
    let pair = try TunnelPair()
    pair.connect()
    let packet = pair.packetFromA([UInt8](repeating: 0x5a, count: 40))
    let sent = try #require(pair.a.send([packet], at: pair.now).first)
    let before = pair.b.status(of: pair.peerOfB)
    // Every byte of counter, ciphertext and tag. With a change elsewhere, no session would be
    // found.
    for index in 8..<sent.bytes.count {
      var forged = sent.bytes
      forged[index] ^= 0x80
      var text: [UInt8] = []
      let delivered = pair.b.receive(
        [Arrival(forged, from: TunnelPair.elsewhere)], at: pair.now
      ) {
        #expect(pair.b.inbound.packets[0].kind == .sealed)
        // The place of the decrypted packet.
        let start = pair.b.inbound.texts.baseAddress! + BatchLayout.headroom
        text = (0..<packet.count).map { start.byte($0) }
      }
      #expect(delivered.isEmpty)
      // The cipher has left no plaintext.
      #expect(text == [UInt8](repeating: 0, count: packet.count))
    }
    #expect(pair.b.count(.badTag) == UInt64(sent.bytes.count - 8))
    let after = pair.b.status(of: pair.peerOfB)
    #expect(after?.receivedByteCount == before?.receivedByteCount)
    #expect(after?.endpoint == pair.a.endpoint)
    // None of the forged counters was recorded as received.
    #expect(pair.carryToB([sent]) == [packet])
  }

  @Test func R14_innerLengthsAreValidatedAndPaddingIsTrimmed() throws {
    let pair = try TunnelPair()
    pair.connect()
    let packet = pair.packetFromA([1, 2, 3])
    let packet6 = TestPacket.ipv6(
      from: TunnelPair.address6OfA, to: TunnelPair.address6OfB, payload: [4, 5])
    for whole in [packet, packet6] {
      for padding in [0, 1, 9, 300] {
        let arrival = pair.sealAsA(whole + [UInt8](repeating: 0xaa, count: padding))
        #expect(pair.b.receive([arrival], at: pair.now) == [whole])
      }
    }
    var longer = packet
    longer[3] += 1
    var shorterThanHeader = packet
    shorterThanHeader[3] = 19
    var badHeader = packet
    badHeader[0] = 0x44
    var headerBeyond = packet
    headerBeyond[0] = 0x4f
    var longer6 = packet6
    longer6[5] += 1
    var version = packet
    version[0] = 0x55
    let bad: [[UInt8]] = [
      longer, shorterThanHeader, badHeader, headerBeyond, longer6, version, [0x45], [0x60],
      Array(packet.prefix(19)), Array(packet6.prefix(39)), [0], [UInt8](repeating: 0, count: 64),
    ]
    let before = pair.b.count(.malformedInner)
    for text in bad {
      #expect(pair.b.receive([pair.sealAsA(text)], at: pair.now).isEmpty)
    }
    #expect(pair.b.count(.malformedInner) == before + UInt64(bad.count))
    // The outbound direction has the same check.
    for text in bad { #expect(pair.a.send([text], at: pair.now).isEmpty) }
    #expect(pair.a.count(.malformedInner) == UInt64(bad.count))
  }

  @Test func R30_reservedBytesMustBeZeroAndLengthsExact() throws {
    let pair = try TunnelPair()
    let initiation = try #require(pair.initiationFromA()).bytes
    pair.b.receive([Arrival(initiation, from: pair.a.endpoint)], at: pair.now)
    let response = try #require(pair.b.settle(at: pair.now, wall: pair.wall).first).bytes
    pair.a.receive([Arrival(response, from: pair.b.endpoint)], at: pair.now)
    let keepalive = try #require(pair.a.settle(at: pair.now, wall: pair.wall).first).bytes
    let cookie = [UInt8](repeating: 0, count: 64).enumerated().map { $0.0 == 0 ? 3 : $0.1 }
    var bad: [[UInt8]] = [[], [1], [4, 0, 0, 0]]
    for whole in [initiation, response, keepalive, cookie] {
      for index in 1...3 {
        var copy = whole
        copy[index] = 1
        bad.append(copy)
      }
      bad.append(whole.dropLast())
      if whole[0] != 4 { bad.append(whole + [0]) }
    }
    for type: UInt8 in [0, 5, 255] { bad.append([type] + initiation.dropFirst()) }
    for receiver in [pair.a, pair.b] {
      let before = receiver.count(.malformedMessage)
      let received = receiver.status(of: receiver.firstPeer)
      receiver.receive(bad.map { Arrival($0, from: TunnelPair.elsewhere) }, at: pair.now)
      #expect(receiver.count(.malformedMessage) == before + UInt64(bad.count))
      #expect(receiver.freeHandshakeSlots == receiver.limits.handshakeRing)
      let after = receiver.status(of: receiver.firstPeer)
      #expect(after?.receivedByteCount == received?.receivedByteCount)
    }
    #expect(pair.carryToB([]).isEmpty)
  }

  @Test func R36_receivedBytesCountWholeMessagesAndHandshakes() throws {
    let pair = try TunnelPair()
    let packet = pair.packetFromA([1])
    pair.sendFromA([packet])
    pair.exchange()
    let statusOfA = try #require(pair.a.status(of: pair.peerOfA))
    let statusOfB = try #require(pair.b.status(of: pair.peerOfB))
    // 21 bytes are padded to 32, with 32 of header and tag.
    #expect(statusOfB.receivedByteCount == 148 + 64)
    #expect(statusOfB.sentByteCount == 92)
    #expect(statusOfA.receivedByteCount == 92)
    #expect(statusOfA.sentByteCount == 148 + 64)
    // The passive keepalive.
    pair.wait(seconds: 11)
    let laterOfA = try #require(pair.a.status(of: pair.peerOfA))
    let laterOfB = try #require(pair.b.status(of: pair.peerOfB))
    #expect(laterOfA.receivedByteCount == 92 + 32)
    #expect(laterOfB.sentByteCount == 92 + 32)
  }

  @Test func R38_packetWithIPv4OptionsIsRouted() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.forget()
    for count in [4, 12, 40] {
      let packet = TestPacket.ipv4(
        from: TunnelPair.addressOfA, to: TunnelPair.addressOfB, payload: [1, 2, 3],
        options: [UInt8](repeating: 1, count: count))
      #expect(pair.sendFromA([packet]) == [packet])
    }
  }
}
