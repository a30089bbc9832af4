import Testing

@testable import Culvert

/// Which handshake messages are answered, when, and how often.
@Suite struct HandshakeRequirementTests {
  @Test func R5_anEighthOfTheRingMeansLoadForASecondLonger() throws {
    let pair = try TunnelPair()
    let initiation = try #require(pair.initiationFromA())
    let arrival = Arrival(initiation.bytes, from: pair.a.endpoint)
    // The ring has 64 slots.
    pair.b.receive([Arrival](repeating: arrival, count: 7), at: pair.now)
    expect(!pair.b.tunnel.isUnderLoad(at: pair.now))
    pair.b.receive([arrival], at: pair.now)
    expect(pair.b.tunnel.isUnderLoad(at: pair.now))
    expect(
      pair.b.tunnel.isUnderLoad(at: pair.now.advanced(by: nanosecondsPerSecond - 1)))
    expect(!pair.b.tunnel.isUnderLoad(at: pair.now.advanced(by: nanosecondsPerSecond)))
    let replies = pair.b.settle(at: pair.now, wall: pair.wall)
    #expect(replies.map(\.type) == [UInt8](repeating: 3, count: 8))
    #expect(replies.allSatisfy { $0.path.endpoint == pair.a.endpoint })
    #expect(pair.b.count(.cookieDemanded) == 8)
    #expect(pair.b.count(.handshakeAccepted) == 0)
  }

  @Test func R5_underLoadACookieIsDemandedAndThenSourcesAreLimited() throws {
    let pair = try TunnelPair()
    let load = { pair.b.tunnel.loadEnd = pair.now.advanced(by: nanosecondsPerSecond) }
    load()
    pair.carryToB([try #require(pair.initiationFromA())])
    pair.carryToA(pair.b.settle(at: pair.now, wall: pair.wall))
    _ = pair.a.settle(at: pair.now, wall: pair.wall)
    #expect(pair.a.count(.cookieAccepted) == 1)

    pair.skip(6 * nanosecondsPerSecond)
    load()
    let initiation = try #require(pair.initiationFromA())
    #expect(initiation.bytes.suffix(16).contains { $0 != 0 })
    // From another address the cookie is invalid (R4).
    pair.b.receive([Arrival(initiation.bytes, from: TunnelPair.elsewhere)], at: pair.now)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).map(\.type) == [3])
    let arrival = Arrival(initiation.bytes, from: pair.a.endpoint)
    pair.b.receive([arrival], at: pair.now)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).map(\.type) == [2])
    // A burst of five is allowed; that was the first.
    pair.b.receive([Arrival](repeating: arrival, count: 6), at: pair.now)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).isEmpty)
    #expect(pair.b.count(.handshakeReplayed) == 4)
    #expect(pair.b.count(.rateLimited) == 2)
    // One more after a twentieth of a second.
    pair.skip(50 * nanosecondsPerMillisecond)
    load()
    pair.b.receive([arrival, arrival], at: pair.now)
    _ = pair.b.settle(at: pair.now, wall: pair.wall)
    #expect(pair.b.count(.handshakeReplayed) == 5)
    #expect(pair.b.count(.rateLimited) == 3)
  }

  @Test func R5_aFullRingDropsAndIsLoad() throws {
    let pair = try TunnelPair(limits: .shrunken())
    let initiation = try #require(pair.initiationFromA())
    let arrival = Arrival(initiation.bytes, from: TunnelPair.elsewhere)
    pair.b.receive([Arrival](repeating: arrival, count: 11), at: pair.now)
    #expect(pair.b.count(.handshakeQueued) == 8)
    #expect(pair.b.count(.handshakeRingFull) == 3)
    expect(pair.b.tunnel.isUnderLoad(at: pair.now))
    // Cookie replies are paced: at most one turn of them in four milliseconds.
    for _ in 0..<8 {
      _ = pair.b.settle(at: pair.now, wall: pair.wall)
      pair.skip(nanosecondsPerMillisecond)
    }
    #expect(pair.b.freeHandshakeSlots == 8)
  }

  @Test func R49_aRingThatStaysFullProlongsTheLoad() throws {
    let pair = try TunnelPair()
    let initiation = try #require(pair.initiationFromA())
    let arrival = Arrival(initiation.bytes, from: pair.a.endpoint)
    // The ring has 64 slots. Nobody serves it for two seconds.
    pair.b.receive([Arrival](repeating: arrival, count: 12), at: pair.now)
    pair.skip(2 * nanosecondsPerSecond)
    expect(!pair.b.tunnel.isUnderLoad(at: pair.now))
    let replies = pair.b.settle(at: pair.now, wall: pair.wall)
    #expect(replies.map(\.type) == [UInt8](repeating: 3, count: 12))
    #expect(pair.b.count(.cookieDemanded) == 12)
  }

  /// The kernel's WireGuard sets `last_sent_handshake` for responses too.
  @Test func R51_noInitiationFollowsOurResponse() throws {
    let pair = try TunnelPair()
    pair.carryToB([try #require(pair.initiationFromA())])
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).map(\.type) == [2])
    // The response is lost. b has a packet for a, but no session that it may use.
    #expect(pair.b.send([pair.packetFromB()], at: pair.now).isEmpty)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).isEmpty)
    pair.skip(WireGuard.rekeyTimeout - 1)
    #expect(pair.b.send([pair.packetFromB()], at: pair.now).isEmpty)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).isEmpty)
    pair.skip(1)
    #expect(pair.b.send([pair.packetFromB()], at: pair.now).isEmpty)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).map(\.type) == [1])
  }

  /// Although nothing else is sent, the packet does not wait for ever.
  @Test func R51_aPacketStagedAfterOurResponseHasATimer() throws {
    let pair = try TunnelPair()
    pair.carryToB([try #require(pair.initiationFromA())])
    _ = pair.b.settle(at: pair.now, wall: pair.wall)
    pair.b.send([pair.packetFromB()], at: pair.now)
    _ = pair.b.settle(at: pair.now, wall: pair.wall)
    let due = try #require(pair.b.nextDeadline(at: pair.now).instant).since(pair.now)
    // The initiator may retry first.
    expect(due >= WireGuard.rekeyTimeout)
    expect(due <= WireGuard.rekeyTimeout + Policy.overruledInitiationDelay)
    pair.skip(due)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).map(\.type) == [1])
  }

  @Test func R6_receiverIndicesAreRandomUniqueAnd32Bit() throws {
    let pair = try TunnelPair()
    var indices: [UInt32] = []
    for _ in 0..<64 {
      pair.skip(6 * nanosecondsPerSecond)
      let initiation = try #require(pair.initiationFromA())
      let index = initiation.bytes[4..<8].reversed().reduce(0) { $0 << 8 | UInt32($1) }
      indices.append(index)
      expect(pair.a.tunnel.indices.find(index)?.kind == IndexKind.handshake.rawValue)
      // The previous index has been freed.
      #expect(pair.a.indexCount == 1)
    }
    #expect(Set(indices).count == 64)
    #expect(!indices.contains(0))
    for shift in stride(from: UInt32(0), to: 32, by: 8) {
      #expect(Set(indices.map { $0 >> shift & 0xff }).count > 32)
    }
    // Another tunnel draws other indices.
    let other = try TunnelPair(seed: 2)
    let first = try #require(other.initiationFromA())
    #expect(!indices.contains(first.bytes[4..<8].reversed().reduce(0) { $0 << 8 | UInt32($1) }))
  }

  @Test(arguments: [250, 4000] as [UInt64])
  func R18_aLateResponseIsAccepted(milliseconds: UInt64) throws {
    let pair = try TunnelPair()
    let first = pair.a.send([pair.packetFromA([7])], at: pair.now)
    #expect(first.isEmpty)
    pair.carryToB(pair.a.settle(at: pair.now, wall: pair.wall))
    let response = pair.b.settle(at: pair.now, wall: pair.wall)
    pair.skip(milliseconds * nanosecondsPerMillisecond)
    pair.carryToA(response)
    pair.exchange()
    #expect(pair.a.count(.handshakeAccepted) == 1)
    #expect(pair.b.delivered == [pair.packetFromA([7])])
  }

  @Test func R18_aResponseToAReplacedInitiationIsNot() throws {
    let pair = try TunnelPair()
    _ = pair.a.send([pair.packetFromA([7])], at: pair.now)
    pair.carryToB(pair.a.settle(at: pair.now, wall: pair.wall))
    let response = pair.b.settle(at: pair.now, wall: pair.wall)
    pair.skip(6 * nanosecondsPerSecond)
    let second = pair.a.settle(at: pair.now, wall: pair.wall)
    #expect(second.map(\.type) == [1])
    pair.carryToA(response)
    _ = pair.a.settle(at: pair.now, wall: pair.wall)
    #expect(pair.a.count(.unknownReceiver) == 1)
    pair.carryToB(second)
    pair.exchange()
    #expect(pair.b.delivered == [pair.packetFromA([7])])
  }

  @Test func R26_aChangedPresharedKeyKeepsTheSessionAndReachesTheNextHandshake() throws {
    let pair = try TunnelPair()
    pair.connect()
    let key = [UInt8](repeating: 0x77, count: 32)
    let session = pair.a.state(pair.peerOfA).keypairs.current.localIndex
    pair.a.setPresharedKey(key, of: pair.peerOfA)
    #expect(pair.sendFromA([pair.packetFromA([1])]) == [pair.packetFromA([1])])
    #expect(pair.sendFromB([pair.packetFromB([1])]) == [pair.packetFromB([1])])
    #expect(pair.a.state(pair.peerOfA).keypairs.current.localIndex == session)
    // b does not know it yet: the next handshake fails.
    pair.skip(130 * nanosecondsPerSecond)
    pair.sendFromA([pair.packetFromA([2])])
    pair.exchange()
    #expect(pair.a.count(.handshakeFailed) == 1)
    #expect(pair.a.state(pair.peerOfA).keypairs.current.localIndex == session)
    pair.b.setPresharedKey(key, of: pair.peerOfB)
    pair.wait(seconds: 6)
    #expect(pair.a.count(.handshakeAccepted) == 2)
    #expect(pair.a.state(pair.peerOfA).keypairs.current.localIndex != session)
    #expect(pair.sendFromB([pair.packetFromB([3])]) == [pair.packetFromB([3])])
  }

  @Test func R32_aReplayedInitiationIsDropped() throws {
    let pair = try TunnelPair()
    let first = try #require(pair.initiationFromA())
    pair.skip(nanosecondsPerSecond)
    let second = try #require(pair.initiationFromA())
    pair.carryToB([second])
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).map(\.type) == [2])
    pair.skip(nanosecondsPerSecond)
    // The same timestamp, and one older than the greatest seen.
    pair.carryToB([second, first])
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).isEmpty)
    #expect(pair.b.count(.handshakeReplayed) == 2)
    // A wall clock that goes back does not lock a out: its timestamps still increase.
    pair.wall.seconds -= 1_000_000
    pair.carryToB([try #require(pair.initiationFromA())])
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).map(\.type) == [2])
  }

  @Test func R32_moreThan50InitiationsASecondAreDropped() throws {
    let pair = try TunnelPair()
    pair.carryToB([try #require(pair.initiationFromA())])
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).count == 1)
    pair.skip(19 * nanosecondsPerMillisecond)
    pair.carryToB([try #require(pair.initiationFromA())])
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).isEmpty)
    #expect(pair.b.count(.rateLimited) == 1)
    pair.skip(nanosecondsPerMillisecond)
    pair.carryToB([try #require(pair.initiationFromA())])
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).count == 1)
  }

  @Test func R35_everyBitOfAMACCounts() throws {
    let pair = try TunnelPair()
    let initiation = try #require(pair.initiationFromA())
    for bit in 0..<128 {
      var forged = initiation.bytes
      forged[116 + bit / 8] ^= 1 << (bit % 8)
      pair.b.receive([Arrival(forged, from: pair.a.endpoint)], at: pair.now)
    }
    #expect(pair.b.count(.badMAC) == 128)
    #expect(pair.b.count(.handshakeQueued) == 0)
  }
}
