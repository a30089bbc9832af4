import Testing

@testable import Culvert

/// A hub with many peers, and floods of handshake messages.
@Suite struct HubTests {
  /// A message with a valid mac1 for b and nothing else, from a source that never asks twice.
  private func flood(_ pair: TunnelPair, _ number: Int) -> Arrival {
    var message = [UInt8](repeating: 0, count: WireGuard.initiationByteCount)
    message[0] = 1
    message[4] = UInt8(truncatingIfNeeded: number)
    message[5] = UInt8(truncatingIfNeeded: number >> 8)
    return Arrival(
      TunnelPair.withMAC1(message, for: pair.b.publicKey), from: TunnelPair.elsewhere)
  }

  /// An initiation by a with a cookie of b, which is under load from now on.
  private func initiationWithCookie(_ pair: TunnelPair) throws -> Arrival {
    pair.b.tunnel.loadEnd = pair.now.advanced(by: nanosecondsPerSecond)
    pair.carryToB([try #require(pair.initiationFromA())])
    pair.carryToA(pair.b.settle(at: pair.now, wall: pair.wall))
    _ = pair.a.settle(at: pair.now, wall: pair.wall)
    pair.skip(6 * nanosecondsPerSecond)
    pair.b.tunnel.loadEnd = pair.now.advanced(by: nanosecondsPerSecond)
    let initiation = try #require(pair.initiationFromA())
    #expect(initiation.bytes.suffix(16).contains { $0 != 0 })
    return Arrival(initiation.bytes, from: pair.a.endpoint)
  }

  @Test func R47_aSweepOf2000SilentPeersSendsAFewInitiationsPerTurn() throws {
    var limits = Limits.roomy
    limits.peers = 2001
    let pair = try TunnelPair(limits: limits)
    pair.connect()
    for number in 0..<2000 {
      let key = Key(fillingFrom: UInt8(truncatingIfNeeded: number), UInt8(number >> 8))
      let id = try pair.a.addPeer(key, allowed: [], endpoint: TunnelPair.elsewhere)
      let peer = pair.a.tunnel.peer(id)!
      peer.pointee.timers.wantInitiation(at: pair.now)
      pair.a.tunnel.reschedule(&peer.pointee)
    }
    // The live peer's keepalive is due after all of them.
    pair.skip(nanosecondsPerMillisecond)
    let live = pair.a.tunnel.peer(pair.peerOfA)!
    live.pointee.timers.wantKeepalive(at: pair.now)
    pair.a.tunnel.reschedule(&live.pointee)
    var (sent, turns, keepaliveTurn) = (0, 0, 0)
    while pair.a.nextDeadline(at: pair.now).isDue(at: pair.now), turns < 1000 {
      turns += 1
      let emissions = pair.a.advance(at: pair.now, wall: pair.wall)
      let initiations = emissions.count { $0.type == 1 }
      expect(initiations <= Policy.handshakesPerTurn)
      sent += initiations
      if emissions.contains(where: { $0.type == 4 }) { keepaliveTurn = turns }
    }
    #expect(sent == 2000)
    #expect(keepaliveTurn > 0 && keepaliveTurn <= 10)
    // The second attempts are due five seconds and up to a third later.
    let end = pair.now.advanced(by: 6 * nanosecondsPerSecond)
    var again = 0
    while let due = pair.a.nextDeadline(at: pair.now).instant, due <= end {
      if due > pair.now { pair.skip(due.since(pair.now)) }
      let emissions = pair.a.advance(at: pair.now, wall: pair.wall)
      let initiations = emissions.count { $0.type == 1 }
      expect(initiations <= Policy.handshakesPerTurn)
      again += initiations
    }
    #expect(again == 2000)
    expect(pair.a.tunnel.initiations.count == 0)
  }

  @Test func R47_aPeerThatIsRemovedGetsNoInitiation() throws {
    let pair = try TunnelPair()
    let peer = pair.a.tunnel.peer(pair.peerOfA)!
    peer.pointee.timers.wantInitiation(at: pair.now)
    pair.a.tunnel.initiations.lower(pair.peerOfA.index, to: Deadline(pair.now))
    pair.a.tunnel.removePeer(pair.peerOfA)
    expect(pair.a.tunnel.initiations.count == 0)
    #expect(pair.a.settle(at: pair.now, wall: pair.wall).isEmpty)
  }

  @Test func R47_receivedInitiationsAreBoundedPerTurn() throws {
    let pair = try TunnelPair()
    let initiation = try #require(pair.initiationFromA())
    let arrival = Arrival(initiation.bytes, from: pair.a.endpoint)
    // One fewer than load.
    pair.b.receive([Arrival](repeating: arrival, count: 7), at: pair.now)
    _ = pair.b.advance(at: pair.now, wall: pair.wall)
    #expect(pair.b.count(.handshakeAccepted) + pair.b.count(.handshakeReplayed) == 4)
    expect(pair.b.tunnel.queuedHandshakes == 3)
  }

  /// Each storm takes two attempts of most clients: the first brings a cookie, or finds no slot.
  @Test func R47_R50_aStormOf1000ClientsIsServedAFewPerTurn() throws {
    let storm = try ReconnectStorm(clients: 1000, ring: 512)
    storm.connect()
    for _ in 0..<2 {
      #expect(storm.run(seconds: 12))
      #expect(storm.sessions == 1000)
    }
    #expect(storm.mostAgreements == Policy.handshakesPerTurn)
    #expect(storm.mostMessages <= Policy.messagesPerTurn)
    #expect(storm.asked > 100)
    #expect(storm.answered == storm.asked)
    #expect(storm.isAtRest)
  }

  @Test func R50_aMessageWithACookieTakesTheSlotOfOneWithout() throws {
    let pair = try TunnelPair()
    let proven = try initiationWithCookie(pair)
    // The ring has 64 slots.
    pair.b.receive((0..<100).map { flood(pair, $0) }, at: pair.now)
    #expect(pair.b.freeHandshakeSlots == 0)
    #expect(pair.b.count(.handshakeRingFull) == 36)
    pair.b.receive([proven], at: pair.now)
    #expect(pair.b.count(.handshakeRingFull) == 36)
    #expect(pair.b.count(.handshakeEvicted) == 1)
    // It is served in the next turn, although 63 others are older.
    let replies = pair.b.advance(at: pair.now, wall: pair.wall)
    #expect(replies.first?.type == 2)
    #expect(pair.b.count(.handshakeAccepted) == 1)
  }

  @Test func R50_aFloodWithoutCookiesCostsNoHashWhenThereIsNoSlot() throws {
    let pair = try TunnelPair()
    _ = try initiationWithCookie(pair)
    pair.b.receive((0..<64).map { flood(pair, $0) }, at: pair.now)
    var forged = flood(pair, 1).bytes
    forged[120] ^= 1
    let full = pair.b.count(.handshakeRingFull)
    pair.b.receive([Arrival(forged, from: TunnelPair.elsewhere)], at: pair.now)
    // Its mac1 is not looked at.
    #expect(pair.b.count(.badMAC) == 0)
    #expect(pair.b.count(.handshakeRingFull) == full + 1)
    // This drop prolongs the load too.
    expect(pair.b.tunnel.isUnderLoad(at: pair.now.advanced(by: nanosecondsPerSecond - 1)))
  }

  @Test func R50_theEndpointOfAPeerTakesASlotToWaitForACookie() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.skip(120 * nanosecondsPerSecond)
    pair.b.tunnel.loadEnd = pair.now.advanced(by: nanosecondsPerSecond)
    pair.b.receive((0..<64).map { flood(pair, $0) }, at: pair.now)
    let renewal = try #require(pair.initiationFromA()).bytes
    #expect(renewal.suffix(16).allSatisfy { $0 == 0 })
    // A forged message, and one from elsewhere, take no slot.
    var forged = renewal
    forged[20] ^= 1
    pair.b.receive([Arrival(forged, from: pair.a.endpoint)], at: pair.now)
    pair.b.receive([Arrival(renewal, from: TunnelPair.elsewhere)], at: pair.now)
    #expect(pair.b.count(.badMAC) == 1)
    #expect(pair.b.count(.handshakeRingFull) == 1)
    #expect(pair.b.count(.handshakeEvicted) == 0)
    pair.b.receive([Arrival(renewal, from: pair.a.endpoint)], at: pair.now)
    #expect(pair.b.count(.handshakeEvicted) == 1)
    #expect(pair.b.freeHandshakeSlots == 0)
    // Another one in the same second takes no slot.
    pair.b.receive([Arrival(renewal, from: pair.a.endpoint)], at: pair.now)
    #expect(pair.b.count(.handshakeEvicted) == 1)
    #expect(pair.b.count(.handshakeRingFull) == 2)
    // It is served in its turn, after those that were there before it.
    var replies: [Emission] = []
    for _ in 0..<8 {
      replies += pair.b.advance(at: pair.now, wall: pair.wall).filter { $0.type == 3 }
      pair.skip(Policy.cookieInterval)
    }
    #expect(replies.count == 64)
    #expect(replies.last?.path.endpoint == pair.a.endpoint)
    pair.carryToA(replies)
    _ = pair.a.settle(at: pair.now, wall: pair.wall)
    #expect(pair.a.count(.cookieAccepted) == 1)
  }

  @Test func R50_onlyKeyAgreementsCountAgainstTheirLimit() throws {
    var limits = Limits.roomy
    limits.handshakeRing = 256
    limits.batchPackets = 128
    let pair = try TunnelPair(limits: limits)
    _ = try initiationWithCookie(pair)
    pair.b.receive((0..<200).map { flood(pair, $0) }, at: pair.now)
    // More than the four handshakes of a turn, but not without end.
    let replies = pair.b.advance(at: pair.now, wall: pair.wall)
    #expect(replies.map(\.type) == [UInt8](repeating: 3, count: Policy.messagesPerTurn))
    // The next ones wait for a few milliseconds.
    #expect(pair.b.advance(at: pair.now, wall: pair.wall).isEmpty)
    expect(!pair.b.nextDeadline(at: pair.now).isDue(at: pair.now))
    pair.skip(Policy.cookieInterval)
    #expect(pair.b.advance(at: pair.now, wall: pair.wall).count == Policy.messagesPerTurn)
  }

  @Test func R50_aSourceWithACookiePaysBeforeItTakesASlot() throws {
    let pair = try TunnelPair()
    let proven = try initiationWithCookie(pair)
    pair.b.receive([Arrival](repeating: proven, count: 30), at: pair.now)
    expect(pair.b.tunnel.queuedHandshakes == Int(Policy.handshakeBurstPerSource))
    #expect(pair.b.count(.rateLimited) == 30 - Policy.handshakeBurstPerSource)
  }

  @Test func R50_aCookieReplyTakesASlotOnlyIfThePeerWaitsForOne() throws {
    let pair = try TunnelPair()
    pair.connect()
    func reply(_ index: UInt32) -> Arrival {
      var message = [UInt8](repeating: 7, count: WireGuard.cookieReplyByteCount)
      message.replaceSubrange(0..<4, with: [3, 0, 0, 0])
      for byte in 0..<4 { message[4 + byte] = UInt8(truncatingIfNeeded: index >> (8 * byte)) }
      return Arrival(message, from: pair.b.endpoint)
    }
    let session = pair.a.state(pair.peerOfA).keypairs.current.localIndex
    pair.a.receive([reply(session)], at: pair.now)
    expect(pair.a.tunnel.queuedHandshakes == 0)
    #expect(pair.a.count(.cookieRefused) == 1)
    pair.skip(6 * nanosecondsPerSecond)
    _ = try #require(pair.initiationFromA())
    pair.a.receive([reply(pair.a.state(pair.peerOfA).handshake.localIndex)], at: pair.now)
    expect(pair.a.tunnel.queuedHandshakes == 1)
    // It is forged, so it changes nothing.
    _ = pair.a.settle(at: pair.now, wall: pair.wall)
    #expect(pair.a.count(.cookieRefused) == 2)
  }
}

extension Key {
  /// A key of zeros except for two bytes, which no peer has.
  fileprivate init(fillingFrom first: UInt8, _ second: UInt8) {
    var bytes = [UInt8](repeating: 0, count: 32)
    bytes[0] = first
    bytes[1] = second
    bytes[2] = 9
    self = bytes.withUnsafeBytes { Key(at: $0.baseAddress!) }
  }
}
