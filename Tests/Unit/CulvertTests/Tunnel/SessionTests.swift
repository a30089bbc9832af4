import Testing

@testable import Culvert

/// The life of sessions between two tunnels: renewal, rotation, expiry, configuration.
@Suite struct SessionTests {
  @Test func theInitiatorAloneRenewsAfter120SecondsWithoutLoss() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.forget()
    let start = pair.now
    var times: [UInt64] = []
    for second in 1...300 as ClosedRange<UInt64> {
      let fromA = pair.packetFromA([UInt8(second & 0xff), 1])
      let fromB = pair.packetFromB([UInt8(second & 0xff), 2])
      let before = pair.sentByA.filter { $0.type == 1 }.count
      pair.sendFromA([fromA])
      pair.sendFromB([fromB])
      pair.exchange()
      if pair.sentByA.filter({ $0.type == 1 }).count > before {
        times.append(pair.now.since(start) / nanosecondsPerSecond)
      }
      #expect(pair.b.delivered == [fromA] && pair.a.delivered == [fromB])
      pair.a.delivered = []
      pair.b.delivered = []
      pair.wait(seconds: 1)
    }
    #expect(times == [120, 240])
    #expect(pair.sentByB.filter { $0.type == 1 }.isEmpty)
  }

  @Test func theInitiatorRenewsOnReceivingAfter165Seconds() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.forget()
    // a sends nothing before 165 s, it only receives.
    pair.skip(164 * nanosecondsPerSecond)
    pair.sendFromB([pair.packetFromB([1])])
    #expect(pair.a.settle(at: pair.now, wall: pair.wall).filter { $0.type == 1 }.isEmpty)
    pair.skip(nanosecondsPerSecond)
    pair.sendFromB([pair.packetFromB([2]), pair.packetFromB([3])])
    #expect(pair.a.settle(at: pair.now, wall: pair.wall).filter { $0.type == 1 }.count == 1)
    // It renews only once.
    pair.skip(5 * nanosecondsPerSecond)
    pair.a.tunnel.peer(pair.peerOfA)!.pointee.timers.forgetInitiation()
    pair.sendFromB([pair.packetFromB([4])])
    expect(!pair.a.state(pair.peerOfA).timers.wantsInitiation)
  }

  @Test func eachSessionIsRenewedOnReceiving() throws {
    let pair = try TunnelPair()
    pair.connect()
    for round in 1...3 {
      let session = pair.a.state(pair.peerOfA).keypairs.current.localIndex
      pair.forget()
      pair.skip(165 * nanosecondsPerSecond)
      #expect(pair.sendFromB([pair.packetFromB([UInt8(round)])]).count == 1)
      pair.exchange()
      #expect(pair.sentByA.filter { $0.type == 1 }.count == 1, "round \(round)")
      #expect(pair.a.state(pair.peerOfA).keypairs.current.localIndex != session)
    }
  }

  @Test func theResponderDoesNotRenewByTime() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.forget()
    pair.skip(170 * nanosecondsPerSecond)
    pair.sendFromB([pair.packetFromB([1])])
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).isEmpty)
    // Neither end sends on a session that is 180 s old.
    pair.skip(10 * nanosecondsPerSecond)
    #expect(pair.b.send([pair.packetFromB([2])], at: pair.now).isEmpty)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).map(\.type) == [1])
  }

  @Test func nothingIsReceivedOnASessionOf180Seconds() throws {
    let pair = try TunnelPair()
    pair.connect()
    let sent = pair.a.send([pair.packetFromA([1]), pair.packetFromA([2])], at: pair.now)
    // b's session is as old as its response, which was sent at once.
    pair.skip(180 * nanosecondsPerSecond - 1)
    #expect(pair.carryToB([sent[0]]).count == 1)
    pair.skip(1)
    #expect(pair.carryToB([sent[1]]).isEmpty)
    #expect(pair.b.count(.expiredSession) == 1)
  }

  @Test func aSessionIsConfirmedByItsFirstPacketAndTheOldOneStillReceived() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.skip(60 * nanosecondsPerSecond)
    let late = pair.a.send([pair.packetFromA([1]), pair.packetFromA([2])], at: pair.now)
    let old = pair.b.state(pair.peerOfB).keypairs.current.localIndex
    pair.carryToB([try #require(pair.initiationFromA())])
    let response = pair.b.settle(at: pair.now, wall: pair.wall)
    var keypairs = pair.b.state(pair.peerOfB).keypairs
    #expect(keypairs.current.localIndex == old && keypairs.next.exists)
    #expect(!keypairs.previous.exists)
    // b continues to send on the old session; its packets do not confirm the new one.
    #expect(pair.sendFromB([pair.packetFromB([9])]).count == 1)
    #expect(pair.carryToB([late[0]]).count == 1)
    #expect(pair.b.state(pair.peerOfB).keypairs.current.localIndex == old)
    let next = keypairs.next.localIndex
    pair.carryToA(response)
    let confirmation = pair.a.settle(at: pair.now, wall: pair.wall)
    #expect(confirmation.map(\.isKeepalive) == [true])
    pair.carryToB(confirmation)
    keypairs = pair.b.state(pair.peerOfB).keypairs
    #expect(keypairs.current.localIndex == next && keypairs.previous.localIndex == old)
    #expect(!keypairs.next.exists)
    #expect(pair.carryToB([late[1]]) == [pair.packetFromA([2])])
    #expect(pair.b.indexCount == 2 && pair.a.indexCount == 2)
  }

  @Test func theReplayWindowIs8192Wide() throws {
    let pair = try TunnelPair()
    pair.connect()
    let peer = pair.a.tunnel.peer(pair.peerOfA)!
    let sent = { (counter: UInt64) -> Emission in
      peer.pointee.keypairs.setSendCounterForTesting(counter)
      return pair.a.send([pair.packetFromA([UInt8(counter & 0xff)])], at: pair.now)[0]
    }
    let (first, second, last) = (sent(1000), sent(1001), sent(1001 + 8191))
    #expect(pair.carryToB([last]).count == 1)
    #expect(pair.carryToB([first]).isEmpty)
    #expect(pair.carryToB([second]).count == 1)
    #expect(pair.carryToB([second, last]).isEmpty)
    #expect(pair.b.count(.replayed) == 3)
  }

  @Test func keysAreZeroedAfter540SecondsAndThenNothingWakes() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.wait(seconds: 530)
    #expect(pair.a.state(pair.peerOfA).keypairs.current.exists)
    #expect(pair.a.indexCount == 1 && pair.b.indexCount == 1)
    pair.wait(seconds: 11)
    for (node, id) in [(pair.a, pair.peerOfA), (pair.b, pair.peerOfB)] {
      #expect(!node.state(id).keypairs.current.exists)
      #expect(node.indexCount == 0)
      #expect(node.nextDeadline(at: pair.now) == .never)
    }
    pair.sendFromB([pair.packetFromB([1])])
    pair.exchange()
    #expect(pair.a.delivered.last == pair.packetFromB([1]))
  }

  @Test func aPersistentKeepaliveGoesOutEachInterval() throws {
    let pair = try TunnelPair()
    pair.a.tunnel.setPersistentKeepalive(25, of: pair.peerOfA, at: pair.now)
    pair.exchange()
    // Switching it on has opened a session.
    #expect(pair.sentByA.map(\.type) == [1, 4])
    pair.forget()
    pair.wait(seconds: 101)
    #expect(pair.sentByA.filter(\.isKeepalive).count == 4)
    #expect(pair.sentByB.isEmpty)
    pair.a.tunnel.setPersistentKeepalive(0, of: pair.peerOfA, at: pair.now)
    pair.forget()
    pair.wait(seconds: 100)
    #expect(pair.sentByA.isEmpty)
    // Data postpones it; setting the tunnel up sends one at once.
    pair.a.tunnel.setPersistentKeepalive(25, of: pair.peerOfA, at: pair.now)
    pair.exchange()
    // b would reject two initiations at the same time.
    pair.skip(nanosecondsPerSecond)
    pair.a.tunnel.setUp(false, at: pair.now)
    pair.a.tunnel.setUp(true, at: pair.now)
    pair.forget()
    pair.exchange()
    #expect(pair.sentByA.map(\.type) == [1, 4])
    pair.wait(seconds: 20)
    pair.sendFromA([pair.packetFromA()])
    pair.forget()
    // Received packets postpone it too: b's passive keepalive after 10 s.
    pair.wait(seconds: 34)
    #expect(pair.sentByA.isEmpty)
    pair.wait(seconds: 1)
    #expect(pair.sentByA.map(\.isKeepalive) == [true])
  }

  /// As in the kernel, only switching it on sends one at once. Another interval applies from the
  /// next keepalive on.
  @Test func anotherIntervalOfAPersistentKeepaliveSendsNothingAtOnce() throws {
    let pair = try TunnelPair()
    pair.a.tunnel.setPersistentKeepalive(25, of: pair.peerOfA, at: pair.now)
    pair.exchange()
    pair.wait(seconds: 10)
    pair.forget()
    for seconds in [40, 40, 20, 60] as [UInt16] {
      pair.a.tunnel.setPersistentKeepalive(seconds, of: pair.peerOfA, at: pair.now)
      pair.exchange()
      #expect(pair.sentByA.isEmpty, "\(seconds) s")
    }
    pair.wait(seconds: 14)
    #expect(pair.sentByA.isEmpty)
    // 25 s after the handshake, then after 60 s.
    pair.wait(seconds: 1)
    #expect(pair.sentByA.map(\.isKeepalive) == [true])
    pair.wait(seconds: 59)
    #expect(pair.sentByA.count == 1)
    pair.wait(seconds: 1)
    #expect(pair.sentByA.map(\.isKeepalive) == [true, true])
  }

  @Test func aPersistentKeepaliveFindsAPeerThatComesBack() throws {
    let pair = try TunnelPair()
    pair.loses = { _ in true }
    pair.a.tunnel.setPersistentKeepalive(25, of: pair.peerOfA, at: pair.now)
    pair.wait(seconds: 1000)
    pair.loses = { _ in false }
    pair.wait(seconds: 31)
    #expect(pair.a.state(pair.peerOfA).keypairs.current.exists)
  }

  @Test func silenceAfterDataStartsANewHandshake() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.wait(seconds: 30)
    pair.forget()
    pair.loses = { _ in true }
    pair.sendFromA([pair.packetFromA([1])])
    pair.wait(seconds: 14)
    #expect(pair.sentByA.filter { $0.type == 1 }.isEmpty)
    pair.wait(seconds: 2)
    #expect(pair.sentByA.filter { $0.type == 1 }.count == 1)
  }

  /// The silence may mean that the local address is no longer valid: the routing table chooses it.
  @Test func silenceAfterDataForgetsTheLocalAddress() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.wait(seconds: 30)
    pair.loses = { _ in true }
    let path = Path(endpoint: pair.b.endpoint, source: pair.a.endpoint.address, interface: 3)
    var arrival = Arrival(
      try #require(pair.b.send([pair.packetFromB()], at: pair.now).first).bytes,
      from: pair.b.endpoint)
    arrival.path = path
    #expect(pair.a.receive([arrival], at: pair.now).count == 1)
    pair.forget()
    pair.sendFromA([pair.packetFromA()])
    #expect(pair.sentByA.map(\.path) == [path])
    pair.wait(seconds: 14)
    #expect(pair.a.state(pair.peerOfA).path == path)
    pair.forget()
    pair.wait(seconds: 2)
    #expect(pair.sentByA.map(\.type) == [1])
    #expect(pair.sentByA.map(\.path) == [Path(to: pair.b.endpoint)])
  }

  @Test func simultaneousInitiationsConverge() throws {
    for seed in 1...8 as ClosedRange<UInt64> {
      let pair = try TunnelPair(seed: seed)
      _ = pair.a.send([pair.packetFromA([1])], at: pair.now)
      _ = pair.b.send([pair.packetFromB([2])], at: pair.now)
      let fromA = pair.a.settle(at: pair.now, wall: pair.wall)
      let fromB = pair.b.settle(at: pair.now, wall: pair.wall)
      #expect(fromA.map(\.type) == [1] && fromB.map(\.type) == [1])
      pair.carryToB(fromA)
      pair.carryToA(fromB)
      _ = pair.a.settle(at: pair.now, wall: pair.wall)
      _ = pair.b.settle(at: pair.now, wall: pair.wall)
      // Each has answered, and dropped its own initiation and its index.
      #expect(pair.a.indexCount == 1 && pair.b.indexCount == 1)
      // One of them tries again, up to 2 s after the rekey timeout.
      pair.wait(seconds: 8)
      #expect(pair.b.delivered == [pair.packetFromA([1])])
      #expect(pair.a.delivered == [pair.packetFromB([2])])
      let current = pair.a.state(pair.peerOfA).keypairs.current
      let other = pair.b.state(pair.peerOfB).keypairs.current
      #expect(current.remoteIndex == other.localIndex && current.localIndex == other.remoteIndex)
    }
  }
}
