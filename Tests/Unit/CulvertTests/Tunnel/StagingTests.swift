import Testing

@testable import Culvert

/// Packets that cannot be sent at once, and full batches.
@Suite struct StagingTests {
  private func packet(_ number: UInt8, byteCount: Int = 60) -> [UInt8] {
    TestPacket.ipv4(
      from: TunnelPair.addressOfA, to: TunnelPair.addressOfB,
      payload: [number] + [UInt8](repeating: 0xcc, count: byteCount - 21))
  }

  @Test func theOldestStagedPacketGoesFirst() throws {
    let pair = try TunnelPair()
    let packets = (0..<7).map { packet($0) }
    pair.sendFromA(packets)
    #expect(pair.a.count(.staged) == 7)
    #expect(pair.a.count(.droppedFromStaging) == 3)
    pair.exchange()
    #expect(pair.b.delivered == Array(packets.suffix(4)))
    #expect(pair.a.freeStagingSlots == pair.a.limits.stagingSlots)
  }

  @Test func onePeerCannotTakeAnothersStagingSlots() throws {
    // 4 slots for all; a jumbo packet needs more than a peer's share of 2 packets.
    let pair = try TunnelPair(limits: .shrunken())
    let third = TunnelNode(seed: 9, endpoint: TunnelPair.elsewhere)
    try pair.a.addPeer(
      third.publicKey, allowed: [#require(IPPrefix(ipv4(10, 0, 0, 3), length: 32))],
      endpoint: third.endpoint)
    pair.sendFromA((0..<10).map { packet($0) })
    #expect(pair.a.freeStagingSlots == 2)
    let toThird = TestPacket.ipv4(from: TunnelPair.addressOfA, to: ipv4(10, 0, 0, 3))
    pair.a.send([toThird, toThird, toThird], at: pair.now)
    #expect(pair.a.freeStagingSlots == 0)
    // Handshakes have their own pool and continue; in such a small ring each message counts as
    // load, so both ends ask for cookies first.
    pair.wait(seconds: 20)
    #expect(pair.b.delivered == [packet(8), packet(9)])
  }

  /// Eight silent peers fill the pool, which has room for their shares only.
  @Test func R52_silentPeersDoNotStarveOthers() throws {
    var limits = Limits.roomy
    limits.peers = 16
    limits.stagedPacketsPerPeer = 4
    limits.stagingSlots = 32
    let pair = try TunnelPair(limits: limits)
    for host: UInt8 in 11...18 {
      let silent = TunnelNode(seed: UInt64(host), endpoint: TunnelPair.elsewhere)
      try pair.a.addPeer(
        silent.publicKey, allowed: [#require(IPPrefix(ipv4(10, 0, 0, host), length: 32))],
        endpoint: silent.endpoint)
      let packet = TestPacket.ipv4(from: TunnelPair.addressOfA, to: ipv4(10, 0, 0, host))
      pair.a.send([packet, packet, packet, packet, packet], at: pair.now)
    }
    #expect(pair.a.freeStagingSlots == 0)
    #expect(pair.a.count(.droppedFromStaging) == 8)
    let packets = (0..<4).map { packet($0) }
    pair.sendFromA(packets)
    // Four of the silent peers have lost one packet each.
    #expect(pair.a.count(.droppedFromStaging) == 12)
    #expect(pair.a.freeStagingSlots == 0)
    pair.exchange()
    #expect(pair.b.delivered == packets)
  }

  @Test func R52_packetsOfARemovedPeerAreCounted() throws {
    let pair = try TunnelPair()
    pair.sendFromA([packet(1), packet(2), packet(3)])
    pair.a.tunnel.removePeer(pair.peerOfA)
    #expect(pair.a.count(.droppedFromStaging) == 3)
    #expect(pair.a.freeStagingSlots == pair.a.limits.stagingSlots)
  }

  @Test func R52_packetsOfAnInterfaceThatGoesDownAreCounted() throws {
    let pair = try TunnelPair()
    pair.sendFromA([packet(1), packet(2)])
    pair.a.tunnel.setUp(false, at: pair.now)
    #expect(pair.a.count(.droppedFromStaging) == 2)
    #expect(pair.a.freeStagingSlots == pair.a.limits.stagingSlots)
  }

  @Test func aJumboPacketTakesSeveralSlotsAndComesOutWhole() throws {
    let pair = try TunnelPair()
    let jumbo = packet(1, byteCount: 9000)
    let largest = packet(2, byteCount: 65_475)
    pair.sendFromA([packet(0), jumbo])
    #expect(pair.a.freeStagingSlots == 40 - 1 - 5)
    pair.sendFromA([packet(3)])
    pair.exchange()
    #expect(pair.b.delivered == [packet(0), jumbo, packet(3)])
    pair.a.tunnel.setUp(false, at: pair.now)
    pair.a.tunnel.setUp(true, at: pair.now)
    pair.forget()
    // The largest packet needs all of a peer's slots, so the others are dropped.
    pair.sendFromA([packet(4), largest])
    #expect(pair.a.freeStagingSlots == 40 - 33)
    pair.skip(6 * nanosecondsPerSecond)
    pair.exchange()
    #expect(pair.b.delivered == [largest])
    #expect(pair.a.freeStagingSlots == 40)
  }

  @Test func aPoolThatIsTooSmallDropsAndTells() throws {
    let pair = try TunnelPair(limits: .shrunken())
    pair.sendFromA([packet(1, byteCount: 65_475)])
    #expect(pair.a.count(.droppedFromStaging) == 1)
    #expect(pair.a.freeStagingSlots == 4)
    // A handshake was requested all the same.
    pair.exchange()
    #expect(pair.a.count(.handshakeQueued) > 0)
  }

  @Test func stagedPacketsKeepTheirOrderBeforeNewOnes() throws {
    var limits = Limits.roomy
    limits.batchPackets = 2
    let pair = try TunnelPair(limits: limits)
    pair.sendFromA([packet(1), packet(2), packet(3)])
    pair.carryToB(pair.a.settle(at: pair.now, wall: pair.wall))
    pair.carryToA(pair.b.settle(at: pair.now, wall: pair.wall))
    // The first run of the control path completes the session and sends two of the three; the new
    // packet stays behind the third, although it could be sent.
    pair.carryToB(pair.a.advance(at: pair.now, wall: pair.wall))
    #expect(pair.b.delivered == [packet(1), packet(2)])
    pair.sendFromA([packet(4)])
    pair.exchange()
    #expect(pair.b.delivered == [packet(1), packet(2), packet(3), packet(4)])
  }

  @Test func moreStagedPacketsThanABatchHoldsAreSentInSeveral() throws {
    var limits = Limits.roomy
    limits.stagedPacketsPerPeer = 40
    limits.batchPackets = 4
    let pair = try TunnelPair(limits: limits)
    let packets = (0..<40).map { packet($0) }
    pair.sendFromA(packets)
    #expect(pair.a.freeStagingSlots == 0)
    pair.exchange()
    #expect(pair.b.delivered == packets)
    #expect(pair.b.count(.delivered) == 40)
    #expect(pair.a.freeStagingSlots == 40)
  }

  @Test func aFullBatchGivesNoRoom() throws {
    let node = TunnelNode(seed: 1, endpoint: TunnelPair.elsewhere, limits: .shrunken())
    node.outbound.reset()
    var count = 0
    while node.outbound.room(for: 100) != nil {
      node.outbound.append(byteCount: 100)
      count += 1
    }
    #expect(count == 4)
    // The limit in bytes: two of the largest fit into 160 KiB, and an empty one after them.
    node.outbound.reset()
    for _ in 0..<2 {
      expect(node.outbound.room(for: 65_475) != nil)
      node.outbound.append(byteCount: 65_475)
    }
    expect(node.outbound.room(for: 65_475) == nil)
    expect(node.outbound.room(for: 0) != nil)
    node.inbound.reset()
    count = 0
    while node.inbound.room != nil {
      node.inbound.append(
        byteCount: 65_535, from: Path(to: TunnelPair.elsewhere), trafficClass: 0,
        isTruncated: false)
      count += 1
    }
    #expect(count == 2)
    node.tunnel.accept(&node.inbound, at: Instant(nanoseconds: 1))
    #expect(node.count(.malformedMessage) == 2)
  }

  @Test func whatTheKernelRefusesIsCountedAndNotTakenForSent() throws {
    let pair = try TunnelPair()
    pair.connect()
    pair.wait(seconds: 60)
    let before = pair.a.status(of: pair.peerOfA)?.sentByteCount
    pair.a.refuses = { $0 == 0 }
    let sent = pair.a.send([packet(1), packet(2)], at: pair.now)
    #expect(sent.count == 1)
    #expect(pair.a.count(.sendFailed) == 1)
    #expect(pair.a.status(of: pair.peerOfA)?.sentByteCount == (before ?? 0) + 64 + 32)
    // Its counter is never reused: no nonce is used twice.
    #expect(pair.carryToB(sent) == [packet(2)])
  }

  @Test func aLostLocalAddressIsForgotten() throws {
    let pair = try TunnelPair()
    pair.connect()
    let peer = pair.a.tunnel.peer(pair.peerOfA)!
    peer.pointee.path = Path(to: pair.b.endpoint)
    peer.pointee.path?.source = ipv4(198, 51, 100, 1)
    peer.pointee.path?.interface = 3
    pair.a.outbound.reset()
    pair.a.outbound.room(for: 60)?.copyBytes(from: packet(1))
    pair.a.outbound.append(byteCount: 60)
    pair.a.tunnel.plan(&pair.a.outbound, at: pair.now)
    let isSealed = pair.a.outbound.seal()
    #expect(isSealed)
    pair.a.outbound.didLoseSource(0)
    pair.a.tunnel.emit(&pair.a.outbound, at: pair.now)
    #expect(peer.pointee.path == Path(to: pair.b.endpoint))
  }
}

/// Chains of slots against arrays of packets; two peers share the pool.
@Suite struct StagedPacketsTests {
  private static let slots = 12
  private static let lengths = [
    0, 1, 20, 2039, 2040, 2041, 4080, 4081, 9000, 2040 * 12, 2040 * 12 + 1,
  ]

  @Test(arguments: Array(1...8) as [UInt64])
  func chainsAreArrays(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let memory = TestArena(byteCount: 1 << 16)
    let pool = BufferPool(
      carvingFrom: &memory.arena, slots: StagedPacketsTests.slots,
      slotByteCount: Limits.stagingSlotByteCount, owner: "staging")
    pool.prepare()
    var chains = [StagedPackets(), StagedPackets()]
    var models: [[[UInt8]]] = [[], []]
    for step in 0..<800 {
      let which = Int(generator.next() % 2)
      switch generator.next() % 8 {
      case 0..<5:
        let lengths = StagedPacketsTests.lengths
        let length = lengths[Int(generator.next() % UInt64(lengths.count))]
        let packet = [UInt8](repeating: UInt8(truncatingIfNeeded: step), count: length)
        let fits = max(1, (length + 2039) / 2040) <= pool.freeCount
        #expect(chains[which].push(packet, byteCount: length, into: pool) == fits)
        if fits { models[which].append(packet) }
      case 5, 6:
        guard let length = chains[which].oldestByteCount(in: pool) else {
          #expect(models[which].isEmpty)
          break
        }
        var packet = [UInt8](repeating: 0xff, count: length)
        packet.withUnsafeMutableBytes { bytes in
          // An empty array has no address, and an empty packet is a keepalive.
          var nothing: UInt8 = 0
          withUnsafeMutableBytes(of: &nothing) {
            chains[which].pop(into: bytes.baseAddress ?? $0.baseAddress!, from: pool)
          }
        }
        #expect(packet == models[which].removeFirst())
      default:
        if generator.next() % 4 == 0 {
          chains[which].dropAll(from: pool)
          models[which] = []
        } else {
          chains[which].dropOldest(from: pool)
          if !models[which].isEmpty { models[which].removeFirst() }
        }
      }
      check(chains, models, pool)
    }
    withExtendedLifetime(memory) {}
  }

  private func check(_ chains: [StagedPackets], _ models: [[[UInt8]]], _ pool: BufferPool) {
    var held = 0
    for (chain, model) in zip(chains, models) {
      #expect(Int(chain.packetCount) == model.count && chain.isEmpty == model.isEmpty)
      #expect(chain.oldestByteCount(in: pool) == model.first?.count)
      let slots = model.reduce(0) { $0 + StagedPackets.slots(for: $1.count) }
      #expect(chain.heldSlots == slots)
      held += slots
    }
    #expect(pool.freeCount == StagedPacketsTests.slots - held)
  }
}
