import Testing

@testable import Culvert

/// Retries, keepalives, limits of a session, and clocks that misbehave.
@Suite struct TimerRequirementTests {
  @Test func R3_countersAre64BitAndEndBeforeTheirLimit() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.wait(seconds: 20)
    pair.forget()
    let setCounter = { (counter: UInt64) in
      pair.a.tunnel.peer(pair.peerOfA)!.pointee.keypairs.setSendCounterForTesting(counter)
    }
    setCounter(1 << 33)
    #expect(pair.sendFromA([pair.packetFromA([1])]) == [pair.packetFromA([1])])
    #expect(pair.sentByA.map(\.counter) == [1 << 33])
    // Counters are used up to the limit; the remaining packets wait for a new session.
    setCounter(WireGuard.rejectAfterMessages - 2)
    let packets = (2...6).map { pair.packetFromA([$0]) }
    let sent = pair.a.send(packets, at: pair.now)
    #expect(
      sent.map(\.counter) == [
        WireGuard.rejectAfterMessages - 2, WireGuard.rejectAfterMessages - 1,
      ])
    pair.carryToB(sent)
    #expect(pair.b.delivered.count == 3)
    pair.exchange()
    #expect(pair.sentByA.filter { $0.type == 1 }.count == 1)
    #expect(pair.b.delivered == [pair.packetFromA([1])] + packets)
    #expect(pair.a.state(pair.peerOfA).keypairs.current.sendCounter == 3)
  }

  @Test func R3_aSessionIsRenewedAfter2To60Messages() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.wait(seconds: 20)
    pair.forget()
    // Either end renews the session; here it is the responder.
    let peer = pair.b.tunnel.peer(pair.peerOfB)!
    peer.pointee.keypairs.setSendCounterForTesting(WireGuard.rekeyAfterMessages - 1)
    pair.sendFromB([pair.packetFromB()])
    pair.exchange()
    #expect(pair.sentByB.filter { $0.type == 1 }.isEmpty)
    pair.sendFromB([pair.packetFromB()])
    pair.exchange()
    #expect(pair.sentByB.filter { $0.type == 1 }.count == 1)
  }

  @Test func R16_aKeepaliveNeverTriggersAKeepalive() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.forget()
    pair.wait(seconds: 100)
    #expect(pair.sentByB.count == 1)
    #expect(pair.sentByB.first?.isKeepalive == true)
    #expect(pair.sentByA.isEmpty)
  }

  @Test func R16_thePassiveTimerRunsFromTheFirstReceivedData() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.wait(seconds: 30)
    pair.forget()
    let start = pair.now
    var keepalives: [UInt64] = []
    for second in 1...25 as ClosedRange<UInt64> {
      if second % 3 == 1 { pair.sendFromA([pair.packetFromA()]) }
      pair.wait(seconds: 1)
      if !pair.sentByB.isEmpty { keepalives.append(second) }
      pair.sentByB = []
    }
    #expect(pair.now.since(start) == 25 * nanosecondsPerSecond)
    // Data at 0, 3, 6, 9, 12 ... s: a keepalive is due 10 s after the data at 0 s, then after that
    // at 12 s.
    #expect(keepalives == [10, 22])
  }

  @Test func R17_everyRetryHasJitterAndThe18thIsTheLast() throws {
    let pair = try TunnelPair()
    pair.loses = { _ in true }
    var times: [Instant] = []
    pair.sendFromA([pair.packetFromA([1])])
    for _ in 0..<3000 {
      let before = pair.sentByA.count
      pair.exchange()
      if pair.sentByA.count > before { times.append(pair.now) }
      guard let due = pair.a.nextDeadline(at: pair.now).instant else { break }
      pair.skip(due.since(pair.now))
    }
    #expect(pair.sentByA.map(\.type) == [UInt8](repeating: 1, count: 18))
    let gaps = zip(times.dropFirst(), times).map { $0.since($1) }
    #expect(gaps.allSatisfy { (5_000_000_000..<5_334_000_000).contains($0) })
    #expect(Set(gaps).count > 10)
    #expect((gaps.max() ?? 0) - (gaps.min() ?? 0) > 100_000_000)
    // After giving up, the program gets an ICMP error, and nothing is staged.
    #expect(pair.a.replies.count == 1)
    let reply = try #require(pair.a.replies.first)
    #expect(reply[9] == 1 && reply[20] == 3 && reply[21] == 1)
    #expect(pair.a.count(.peerUnreachable) == 1)
    #expect(pair.a.freeStagingSlots == pair.a.limits.stagingSlots)
    #expect(pair.a.nextDeadline(at: pair.now) == .never)
    // Traffic starts it again.
    pair.loses = { _ in false }
    pair.sendFromA([pair.packetFromA([2])])
    pair.exchange()
    #expect(pair.b.delivered == [pair.packetFromA([2])])
  }

  @Test func R17_triesEndAlsoWhereAnOldSessionIsStillThere() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.wait(seconds: 125)
    pair.forget()
    pair.loses = { _ in true }
    pair.sendFromA([pair.packetFromA([1])])
    pair.wait(seconds: 400)
    // The first try is sent at once, since the session is older than 120 s. After 15 s without an
    // answer (whitepaper 6.5) the count starts again with the retry that is then due: 3 and 17
    // tries.
    #expect(pair.sentByA.filter { $0.type == 1 }.count == 20)
  }

  /// Data arrives shortly before the last try goes unanswered: after that, a sends nothing at all.
  @Test func R17_afterGivingUpNoKeepaliveIsSent() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.wait(seconds: 20)
    pair.forget()
    pair.loses = { $0.type != 4 }
    pair.carryToB([try #require(pair.initiationFromA())])
    let initiations = { pair.sentByA.filter { $0.type == 1 }.count }
    for _ in 0..<100 where initiations() < 18 { pair.wait(seconds: 1) }
    #expect(initiations() == 18)
    pair.wait(seconds: 2)
    #expect(pair.sendFromB([pair.packetFromB()]).count == 1)
    #expect(pair.a.state(pair.peerOfA).timers.sendKeepalive.isSet)
    pair.wait(seconds: 4)
    #expect(!pair.a.state(pair.peerOfA).timers.retransmitHandshake.isSet)
    #expect(initiations() == 18)
    #expect(!pair.a.state(pair.peerOfA).timers.sendKeepalive.isSet)
    pair.forget()
    pair.wait(seconds: 8)
    #expect(pair.sentByA.isEmpty)
  }

  @Test func R17_retriesGoOnAfterANewPrivateKey() throws {
    let pair = try TunnelPair()
    pair.loses = { _ in true }
    pair.sendFromA([pair.packetFromA([1])])
    pair.exchange()
    pair.forget()
    // The staged packet is not lost: an initiation with the new key is sent at once (R59), and the
    // retries go on.
    pair.a.setPrivateKey([UInt8](repeating: 0x42, count: 32))
    pair.wait(seconds: 4)
    #expect(pair.sentByA.map(\.type) == [1])
    pair.wait(seconds: 2)
    #expect(pair.sentByA.map(\.type) == [1, 1])
  }

  @Test func R24_aClockThatJumpsBackNeverTraps() throws {
    let pair = try TunnelPair()
    pair.connect()
    let start = pair.now
    for nanoseconds in [UInt64(0), 1, 500 * nanosecondsPerSecond, .max - 1, .max] {
      pair.now = Instant(nanoseconds: nanoseconds)
      pair.wall = WallTime(seconds: nanoseconds, nanoseconds: .max)
      pair.sendFromA([pair.packetFromA([1])])
      pair.sendFromB([pair.packetFromB([1])])
      _ = pair.a.advance(at: pair.now, wall: pair.wall)
      _ = pair.b.advance(at: pair.now, wall: pair.wall)
    }
    // With the clock back at the present, the tunnel works.
    pair.now = start
    pair.wall = WallTime(seconds: 1_800_000_000, nanoseconds: 0)
    let peers = [(pair.a, pair.peerOfA), (pair.b, pair.peerOfB)]
    for (node, id) in peers {
      node.tunnel.setUp(false, at: start)
      node.tunnel.setUp(true, at: start)
      node.tunnel.removePeer(id)
    }
    #expect(pair.a.indexCount == 0)
  }

  @Test(arguments: [0, 68, 1279, 1280, 65_535])
  func R24_noMTUTraps(mtu: Int) throws {
    let pair = try TunnelPair()
    pair.a.tunnel.setMTU(mtu)
    pair.b.tunnel.setMTU(mtu)
    pair.connect()
    for byteCount in [20, 67, 68, 69, 1278, 1279, 1280, 1281, 9000, 65_475] {
      let packet = pair.packetFromA([UInt8](repeating: 3, count: byteCount - 20))
      #expect(pair.sendFromA([packet]) == [packet])
    }
    // The same sizes with staged packets, since there is no session.
    pair.a.tunnel.setUp(false, at: pair.now)
    pair.a.tunnel.setUp(true, at: pair.now)
    pair.forget()
    for byteCount in [20, 69, 1281, 65_475] {
      let packet = pair.packetFromA([UInt8](repeating: 4, count: byteCount - 20))
      pair.sendFromA([packet])
      pair.skip(6 * nanosecondsPerSecond)
      pair.exchange()
      #expect(pair.b.delivered.last == packet)
    }
    pair.a.tunnel.setMTU(-1)
    expect(pair.a.tunnel.mtu == 0)
  }
}
