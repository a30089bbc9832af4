import Testing

@testable import Culvert

/// Settings that change while traffic flows.
@Suite struct TunnelConfigurationTests {
  @Test func aNewPrivateKeyEndsSendingAndOpensANewSession() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.forget()
    let late = pair.b.send([pair.packetFromB([1]), pair.packetFromB([2])], at: pair.now)
    let key = [UInt8](repeating: 0x51, count: 32)
    pair.a.setPrivateKey(key)
    // Packets in flight still arrive; nothing is sent on the old session.
    #expect(pair.carryToA([late[0]]).count == 1)
    #expect(pair.a.send([pair.packetFromA([3])], at: pair.now).isEmpty)
    let initiation = pair.a.settle(at: pair.now, wall: pair.wall)
    #expect(initiation.map(\.type) == [1])
    pair.carryToB(initiation)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).filter { $0.type == 2 }.isEmpty)
    #expect(pair.b.count(.unknownPeer) == 1)
    try pair.b.addPeer(
      pair.a.publicKey, allowed: [#require(IPPrefix(TunnelPair.addressOfA, length: 32))])
    pair.wait(seconds: 6)
    #expect(pair.b.delivered == [pair.packetFromA([3])])
  }

  /// The responder's new session becomes current after the key has changed. It may not send either.
  @Test func aNewPrivateKeyAlsoEndsSendingOnAnUnconfirmedSession() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.wait(seconds: 60)
    pair.carryToB([try #require(pair.initiationFromA())])
    pair.carryToA(pair.b.settle(at: pair.now, wall: pair.wall))
    let next = pair.b.state(pair.peerOfB).keypairs.next.localIndex
    #expect(next != 0)
    pair.b.setPrivateKey([UInt8](repeating: 0x51, count: 32))
    let confirmation = pair.a.settle(at: pair.now, wall: pair.wall)
    #expect(confirmation.map(\.isKeepalive) == [true])
    pair.carryToB(confirmation)
    #expect(pair.b.state(pair.peerOfB).keypairs.current.localIndex == next)
    // Received, but nothing is sent with the old identity: an initiation with the new one comes
    // first.
    #expect(pair.sendFromA([pair.packetFromA([1])]) == [pair.packetFromA([1])])
    #expect(pair.b.send([pair.packetFromB([2])], at: pair.now).isEmpty)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).map(\.type) == [1])
  }

  /// UAPI clients may set the peers first. The private key starts what had to wait for it.
  @Test func R59_thePrivateKeySetLastStartsHandshakesAtOnce() throws {
    let pair = try TunnelPair()
    pair.a.setPrivateKey([UInt8](repeating: 0, count: 32))
    let prefix = try #require(IPPrefix(ipv4(10, 0, 0, 3), length: 32))
    let third = TunnelNode(seed: 9, endpoint: TunnelPair.elsewhere)
    let id = try pair.a.addPeer(third.publicKey, allowed: [prefix], endpoint: third.endpoint)
    pair.a.tunnel.setPersistentKeepalive(25, of: id, at: pair.now)
    pair.a.send([pair.packetFromA()], at: pair.now)
    #expect(pair.a.settle(at: pair.now, wall: pair.wall).isEmpty)
    pair.skip(nanosecondsPerSecond)
    pair.a.setPrivateKey([UInt8](repeating: 0x41, count: 32), at: pair.now)
    let sent = pair.a.settle(at: pair.now, wall: pair.wall)
    #expect(sent.map(\.type) == [1, 1])
    #expect(Set(sent.map(\.path.endpoint)) == [pair.b.endpoint, third.endpoint])
  }

  @Test func theSamePrivateKeyAgainChangesNothing() throws {
    let pair = try TunnelPair()
    pair.connect()
    // The key as configured, which is not clamped, and the key as stored.
    #expect(pair.a.privateKey[0] & 7 != 0 || pair.a.privateKey[31] & 0xc0 != 0x40)
    let kept = pair.a.bytes(at: pair.a.tunnel.identity.privateKey)
    for key in [pair.a.privateKey, kept] {
      pair.a.setPrivateKey(key)
      #expect(pair.a.send([pair.packetFromA([1])], at: pair.now).count == 1)
    }
  }

  @Test func aPeerWithTheDevicesOwnKeyIsDroppedWhenTheKeyIsSet() throws {
    let pair = try TunnelPair()
    let other = TunnelNode(seed: 77, endpoint: TunnelPair.elsewhere)
    let prefix = try #require(IPPrefix(ipv4(10, 0, 0, 7), length: 32))
    let id = try pair.a.addPeer(other.publicKey, allowed: [prefix])
    pair.a.setPrivateKey(other.privateKey)
    #expect(pair.a.publicKey == other.publicKey)
    #expect(pair.a.status(of: id) == nil)
    expect(pair.a.tunnel.peerCount == 1)
    expect(pair.a.tunnel.allowedIPs.route(ipv4(10, 0, 0, 7)) == nil)
  }

  @Test func anAllowedIPMovesBetweenPeersInMidSession() throws {
    let pair = try TunnelPair()
    let third = TunnelNode(seed: 9, endpoint: TunnelPair.elsewhere)
    pair.connect()
    pair.forget()
    let prefix = try #require(IPPrefix(TunnelPair.addressOfB, length: 32))
    let mine = try #require(IPPrefix(TunnelPair.addressOfA, length: 32))
    let id = try pair.a.addPeer(third.publicKey, allowed: [prefix], endpoint: third.endpoint)
    // Outbound packets go to the new owner, which has no session yet.
    #expect(pair.a.send([pair.packetFromA([1])], at: pair.now).isEmpty)
    #expect(
      pair.a.settle(at: pair.now, wall: pair.wall).map(\.path.endpoint) == [third.endpoint])
    // The old owner may not use it as a source any more, though its session lives.
    #expect(pair.sendFromB([pair.packetFromB([2])]).isEmpty)
    #expect(pair.a.count(.sourceNotAllowed) == 1)
    let packet6 = TestPacket.ipv6(from: TunnelPair.address6OfB, to: TunnelPair.address6OfA)
    #expect(pair.sendFromB([packet6]) == [packet6])
    // The prefix moves back: the new owner is removed, and the old one gets it again.
    pair.a.tunnel.removePeer(id)
    #expect(pair.sendFromB([pair.packetFromB([3])]).isEmpty)
    try pair.a.addPeer(pair.b.publicKey, allowed: [prefix])
    #expect(pair.sendFromB([pair.packetFromB([4])]).count == 1)
    #expect(mine.length == 32)
  }

  /// The kernel reports no scope for other addresses, and wg(8) of musl systems takes none.
  @Test func R60_onlyAddressesThatNeedAScopeKeepIt() throws {
    let pair = try TunnelPair()
    let low: UInt64 = 1
    for (high, needsScope) in [
      (0xfe80, true), (0xfebf, true), (0xff02, true), (0xff11, true), (0xfec0, false), (0, false),
      (0x2001, false), (0xff0e, false),
    ] as [(UInt64, Bool)] {
      let address = IPAddress(ipv6High: high << 48, low: low)
      pair.a.tunnel.setEndpoint(Endpoint(address: address, port: 5, scope: 3), of: pair.peerOfA)
      let scope: UInt32 = needsScope ? 3 : 0
      #expect(pair.a.status(of: pair.peerOfA)?.endpoint?.scope == scope, "\(high)")
    }
  }

  /// Also after a datagram has arrived from it, which is no change of the endpoint.
  @Test func R60_aMappedAddressIsShownAsGiven() throws {
    func text(_ endpoint: Endpoint?) throws -> String {
      let endpoint = try #require(endpoint)
      return withUnsafeTemporaryAllocation(byteCount: 64, alignment: 1) { buffer in
        var writer = ByteWriter(buffer)
        AddressText.append(endpoint, to: &writer)
        return String(decoding: writer.written, as: UTF8.self)
      }
    }
    let pair = try TunnelPair()
    pair.connect()
    let plain = try #require(pair.a.status(of: pair.peerOfA)?.endpoint)
    let shown = try text(plain)
    var given = plain
    given.isMapped = true
    #expect(given == plain && given.hashValue == plain.hashValue)
    pair.a.tunnel.setEndpoint(given, of: pair.peerOfA)
    pair.sendFromB([pair.packetFromB()])
    let host = shown.prefix(while: { $0 != ":" })
    let mapped = "[::ffff:\(host)]" + shown.dropFirst(host.count)
    #expect(try text(pair.a.status(of: pair.peerOfA)?.endpoint) == mapped)
    pair.a.tunnel.setEndpoint(plain, of: pair.peerOfA)
    #expect(try text(pair.a.status(of: pair.peerOfA)?.endpoint) == shown)
    pair.a.tunnel.setEndpoint(given, of: pair.peerOfA)
    pair.b.endpoint = Endpoint(address: ipv4(192, 0, 2, 7), port: 7)
    pair.sendFromB([pair.packetFromB()])
    #expect(try text(pair.a.status(of: pair.peerOfA)?.endpoint) == "192.0.2.7:7")
  }

  @Test func aPeerRemovedBetweenPlanAndEmitIsLeftAlone() throws {
    let pair = try TunnelPair()
    pair.connect()
    let key = pair.b.publicKey
    var replacement = PeerID.none
    let sent = pair.a.send([pair.packetFromA([1])], at: pair.now) {
      pair.a.tunnel.removePeer(pair.peerOfA)
      // Another peer takes the place: the batch must not touch it.
      replacement = (try? pair.a.tunnel.addPeer(Key(word0: 1, word1: 2, word2: 3, word3: 4)))!
    }
    #expect(sent.count == 1)
    #expect(replacement.index == pair.peerOfA.index)
    #expect(replacement.generation != pair.peerOfA.generation)
    #expect(pair.a.status(of: replacement)?.sentByteCount == 0)
    #expect(pair.a.nextDeadline(at: pair.now) == .never)
    #expect(pair.a.count(.sent) == 3)
    #expect(key == pair.b.publicKey)
  }

  @Test func aPeerRemovedBetweenAcceptAndDeliverGetsNothingDelivered() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.forget()
    let sent = pair.a.send([pair.packetFromA([1])], at: pair.now)
    let arrival = Arrival(sent[0].bytes, from: TunnelPair.elsewhere)
    var replacement = PeerID.none
    let delivered = pair.b.receive([arrival], at: pair.now) {
      let key = pair.a.publicKey
      pair.b.tunnel.removePeer(pair.peerOfB)
      // Even the same peer, added again, has no session any more.
      replacement = (try? pair.b.tunnel.addPeer(key))!
    }
    #expect(delivered.isEmpty)
    #expect(pair.b.count(.peerRemoved) == 1)
    #expect(replacement.index == pair.peerOfB.index)
    #expect(pair.b.status(of: replacement)?.receivedByteCount == 0)
    #expect(pair.b.status(of: replacement)?.endpoint == nil)
  }

  @Test func aRemovedPeerGivesEverythingBack() throws {
    let pair = try TunnelPair()
    pair.a.tunnel.setPersistentKeepalive(25, of: pair.peerOfA, at: pair.now)
    pair.a.send([pair.packetFromA([1]), pair.packetFromA([2])], at: pair.now)
    _ = pair.a.settle(at: pair.now, wall: pair.wall)
    #expect(pair.a.freeStagingSlots == pair.a.limits.stagingSlots - 2)
    #expect(pair.a.indexCount == 1)
    pair.a.tunnel.removePeer(pair.peerOfA)
    #expect(pair.a.freeStagingSlots == pair.a.limits.stagingSlots)
    #expect(pair.a.indexCount == 0)
    #expect(pair.a.nextDeadline(at: pair.now) == .never)
    #expect(pair.a.send([pair.packetFromA([3])], at: pair.now).isEmpty)
    #expect(pair.a.count(.noPeerForDestination) == 1)
    // A second removal does nothing.
    pair.a.tunnel.removePeer(pair.peerOfA)
    expect(pair.a.tunnel.peerCount == 0)
  }

  @Test func aSessionErasedBetweenAcceptAndDeliverIsOver() throws {
    let pair = try TunnelPair()
    pair.connect()
    let sent = pair.a.send([pair.packetFromA([1])], at: pair.now)
    let delivered = pair.b.receive([Arrival(sent[0].bytes, from: pair.a.endpoint)], at: pair.now) {
      pair.b.tunnel.setUp(false, at: pair.now)
    }
    #expect(delivered.isEmpty)
    #expect(pair.b.count(.expiredSession) == 1)
  }

  @Test func aFullPeerTableAndFullAllowedIPsAreNamedErrors() throws {
    let node = TunnelNode(
      seed: 3, endpoint: TunnelPair.elsewhere, limits: .shrunken(peers: 2, allowedIPs: 2))
    let key = { (word: UInt64) in Key(word0: word, word1: 9, word2: 9, word3: 9) }
    let first = try node.addPeer(key(1), allowed: [])
    _ = try node.addPeer(key(2), allowed: [])
    #expect(throws: ConfigurationError.self) { try node.addPeer(key(3), allowed: []) }
    #expect(try node.addPeer(key(1), allowed: []) == first)
    let prefix = { (byte: UInt8) in IPPrefix(ipv4(10, 0, byte, 0), length: 24)! }
    try node.addPeer(key(1), allowed: [prefix(1), prefix(2)])
    #expect(throws: ConfigurationError.self) {
      try node.tunnel.stageAllowedIP(prefix(3), add: true)
    }
    node.tunnel.abandonAllowedIPs()
    expect(node.tunnel.allowedIPs.route(ipv4(10, 0, 2, 2)) == first.index)
    node.tunnel.removeAllPeers()
    expect(node.tunnel.peerCount == 0)
    expect(node.tunnel.allowedIPs.route(ipv4(10, 0, 2, 2)) == nil)
  }

  @Test func goingDownSilencesAndGoingUpResumes() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.loses = { $0.type == 2 }
    pair.skip(200 * nanosecondsPerSecond)
    pair.sendFromA([pair.packetFromA([1])])
    pair.carryToB([try #require(pair.initiationFromA())])
    pair.b.tunnel.setUp(false, at: pair.now)
    #expect(pair.b.nextDeadline(at: pair.now) == .never)
    #expect(pair.b.freeHandshakeSlots == pair.b.limits.handshakeRing)
    pair.a.tunnel.setUp(false, at: pair.now)
    #expect(pair.a.freeStagingSlots == pair.a.limits.stagingSlots)
    #expect(pair.a.nextDeadline(at: pair.now) == .never)
    #expect(pair.a.advance(at: pair.now, wall: pair.wall).isEmpty)
    pair.loses = { _ in false }
    pair.a.tunnel.setUp(true, at: pair.now)
    pair.b.tunnel.setUp(true, at: pair.now)
    pair.sendFromA([pair.packetFromA([2])])
    pair.exchange()
    #expect(pair.b.delivered.last == pair.packetFromA([2]))
  }
}
