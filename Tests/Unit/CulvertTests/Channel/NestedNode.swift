import Testing

@testable import Culvert

/// One tunnel of several nested ones, with its batches.
final class NestedHop {
  var tunnel: Tunnel
  var outbound: OutboundBatch
  var inbound: InboundBatch

  init(
    carvingFrom arena: inout Arena, limits: Limits, secrets: consuming TunnelSecrets, seed: UInt64
  ) {
    var tunnel = Tunnel(carvingFrom: &arena, limits: limits, secrets: secrets)
    outbound = tunnel.makeOutboundBatch(carvingFrom: &arena)
    inbound = tunnel.makeInboundBatch(carvingFrom: &arena)
    tunnel.start(entropy: .seeded(seed))
    var generator = SeededGenerator(seed: seed ^ 0x6b65_7973)
    generator.bytes(WireGuard.keyByteCount).withUnsafeBytes {
      tunnel.setPrivateKey($0.baseAddress!)
    }
    tunnel.setUp(true, at: Instant(nanoseconds: 0))
    self.tunnel = tunnel
  }

  var publicKey: Key { tunnel.publicKey! }
  var firstPeer: PeerID { tunnel.firstPeer ?? .none }

  func count(_ verdict: Verdict) -> UInt64 { tunnel.counters[verdict] }

  @discardableResult
  func addPeer(_ key: Key, allowed: [IPPrefix], endpoint: Endpoint? = nil) throws -> PeerID {
    let id = try tunnel.addPeer(key)
    for prefix in allowed { try tunnel.stageAllowedIP(prefix, add: true) }
    tunnel.commitAllowedIPs(to: id)
    if let endpoint { tunnel.setEndpoint(endpoint, of: id) }
    return id
  }
}

/// The socket of one hop inside the tunnel around it.
final class NestedChannel {
  var channel: DatagramChannel

  init(carvingFrom arena: inout Arena, limits: Limits, seed: UInt64) {
    channel = DatagramChannel(carvingFrom: &arena, limits: limits)
    channel.start(seed: seed)
    channel.open(firstPort: 51_820)
  }

  func count(_ verdict: DatagramVerdict) -> UInt64 { channel.counters[verdict] }
  func fragmentCount(_ verdict: FragmentVerdict) -> UInt64 { channel.reassembler.counters[verdict] }
}

/// A process with tunnels inside tunnels, the innermost first, driven as `Nesting` says.
final class NestedNode {
  let memory: TestArena
  let hops: [NestedHop]
  /// That at index i is between the hops i and i + 1.
  let channels: [NestedChannel]
  /// Where the network finds the outermost.
  let endpoint: Endpoint
  /// ICMP errors written back into the TUN.
  var replies: [[UInt8]] = []
  private var seenRemovals: [UInt64]
  /// Whatever happens between two steps, as another thread would do it.
  var betweenSteps: () -> Void = {}

  init(hops count: Int, seed: UInt64, endpoint: Endpoint, limits: Limits = .nested) {
    _ = Sodium.start()
    let regions = 64 * (limits.reassembledByteCount + 2048)
    let memory = TestArena(byteCount: count * ((2 << 20) + 4 * limits.batchByteCount + regions))
    // The secrets of all come first; a move-only value finds no place in an array.
    let secrets = UnsafeMutablePointer<TunnelSecrets>.allocate(capacity: count)
    for hop in 0..<count {
      (secrets + hop).initialize(to: TunnelSecrets(carvingFrom: &memory.arena, limits: limits))
    }
    memory.arena.endSecrets()
    hops = (0..<count).map {
      NestedHop(
        carvingFrom: &memory.arena, limits: limits, secrets: (secrets + $0).move(),
        seed: seed &* 16 &+ UInt64($0))
    }
    secrets.deallocate()
    channels = (0..<count - 1).map {
      NestedChannel(carvingFrom: &memory.arena, limits: limits, seed: seed &+ UInt64($0))
    }
    for hop in hops.dropLast() {
      hop.outbound.leaveRoom(forHeaders: DatagramChannel.headroom)
      hop.outbound.reset()
    }
    memory.arena.seal()
    seenRemovals = [UInt64](repeating: 0, count: count)
    self.memory = memory
    self.endpoint = endpoint
  }

  var innermost: NestedHop { hops[0] }
  var outermost: NestedHop { hops[hops.count - 1] }

  /// Of each hop its own, as the ciphers are to work together whatever they are.
  func setCiphers(_ strides: [Int]) {
    for (index, hop) in hops.enumerated() {
      let stride = strides[index % strides.count]
      hop.tunnel.cipher = stride == 0 ? .whole : .composed(stride: stride)
    }
  }

  // MARK: Outward

  /// Packets that a program writes, in as many batches as they need.
  @discardableResult
  func send(_ packets: [TunPacket], at now: Instant) -> [Emission] {
    var emissions: [Emission] = []
    var next = 0
    while next < packets.count {
      innermost.outbound.reset()
      while next < packets.count, let room = innermost.outbound.room(for: packets[next].bytes.count)
      {
        room.copyBytes(from: packets[next].bytes)
        innermost.outbound.append(
          byteCount: packets[next].bytes.count, offload: packets[next].offload)
        next += 1
      }
      innermost.tunnel.plan(&innermost.outbound, at: now)
      finish(0, &emissions, at: now)
    }
    return emissions
  }

  @discardableResult
  func send(_ packets: [[UInt8]], at now: Instant) -> [Emission] {
    send(packets.map { TunPacket($0) }, at: now)
  }

  /// Seals and sends what is planned in a hop's batch.
  private func finish(_ hop: Int, _ emissions: inout [Emission], at now: Instant) {
    let inner = hops[hop]
    while inner.outbound.seal() {
      for index in 0..<inner.outbound.outputCount {
        switch inner.outbound.output(index) {
        case .reply(let bytes): if hop == 0 { replies.append([UInt8](bytes)) }
        case .datagram(let bytes, let path, let trafficClass):
          guard hop == hops.count - 1 else { continue }
          emissions.append(
            Emission(bytes: [UInt8](bytes), path: path, trafficClass: trafficClass))
        }
      }
      if hop < hops.count - 1 { carryOutward(hop, &emissions, at: now) }
    }
    inner.tunnel.emit(&inner.outbound, at: now)
    inner.outbound.reset()
  }

  private func carryOutward(_ hop: Int, _ emissions: inout [Emission], at now: Instant) {
    let (inner, outer) = (hops[hop], hops[hop + 1])
    var next = 0
    while next < inner.outbound.outputCount {
      outer.outbound.reset()
      let before = next
      next = channels[hop].channel.wrap(
        from: &inner.outbound, at: next, into: &outer.outbound, at: now)
      guard next > before else {
        Issue.record("an empty batch has no room for a datagram")
        return
      }
      betweenSteps()
      outer.tunnel.plan(&outer.outbound, at: now)
      finish(hop + 1, &emissions, at: now)
    }
  }

  // MARK: Inward

  /// Datagrams that come from the network, in as many batches as they need.
  /// - Returns: what the innermost tunnel has delivered.
  @discardableResult
  func receive(_ arrivals: [Arrival], at now: Instant) -> [[UInt8]] {
    var packets: [[UInt8]] = []
    var next = 0
    while next < arrivals.count {
      outermost.inbound.reset()
      while next < arrivals.count, let room = outermost.inbound.room {
        let arrival = arrivals[next]
        room.copyBytes(from: arrival.bytes)
        outermost.inbound.append(
          byteCount: arrival.bytes.count, from: arrival.path, trafficClass: arrival.trafficClass,
          isTruncated: arrival.isTruncated, segmentByteCount: arrival.segmentByteCount)
        next += 1
      }
      open(hops.count - 1, &packets, at: now)
    }
    return packets
  }

  /// Opens what a hop's batch holds, and hands it on.
  private func open(_ hop: Int, _ packets: inout [[UInt8]], at now: Instant) {
    let outer = hops[hop]
    outer.tunnel.accept(&outer.inbound, at: now)
    outer.inbound.open()
    betweenSteps()
    outer.tunnel.deliver(&outer.inbound, at: now)
    if hop == 0 {
      for index in 0..<outer.inbound.count {
        if let packet = outer.inbound.delivered(index) { packets.append([UInt8](packet)) }
      }
    } else {
      carryInward(hop, &packets, at: now)
    }
    outer.inbound.reset()
  }

  private func carryInward(_ hop: Int, _ packets: inout [[UInt8]], at now: Instant) {
    let channel = channels[hop - 1]
    var next = 0
    while next < hops[hop].inbound.count {
      hops[hop - 1].inbound.reset()
      let before = next
      next = channel.channel.unwrap(
        from: hops[hop].inbound, at: next, into: &hops[hop - 1].inbound, at: now)
      guard next > before else {
        Issue.record("an empty batch has no room for a datagram")
        return
      }
      open(hop - 1, &packets, at: now)
      channel.channel.release()
      expect(channel.channel.lentCount == 0 && channel.channel.reassembler.completedCount == 0)
    }
  }

  // MARK: Control

  func nextDeadline(at now: Instant) -> Deadline {
    var next = Deadline.never
    for hop in hops { next = min(next, hop.tunnel.nextDeadline(at: now)) }
    for channel in channels { next = min(next, channel.channel.nextDeadline) }
    return next
  }

  /// Turns of every control path until nothing is due.
  func settle(at now: Instant, wall: WallTime) -> [Emission] {
    var emissions: [Emission] = []
    for _ in 0..<256 {
      forgetRemovedSenders()
      guard nextDeadline(at: now).isDue(at: now) else { return emissions }
      for (index, hop) in hops.enumerated() where hop.tunnel.nextDeadline(at: now).isDue(at: now) {
        hop.outbound.reset()
        hop.tunnel.runTimers(into: &hop.outbound, at: now, wall: wall)
        finish(index, &emissions, at: now)
      }
      for (index, channel) in channels.enumerated()
      where channel.channel.nextDeadline.isDue(at: now) {
        let outer = hops[index + 1]
        outer.outbound.reset()
        channel.channel.expireFragments(into: &outer.outbound, at: now)
        outer.tunnel.plan(&outer.outbound, at: now)
        finish(index + 1, &emissions, at: now)
      }
    }
    Issue.record("the control paths do not come to rest")
    return emissions
  }

  /// A peer that is gone takes its fragments along (F10).
  private func forgetRemovedSenders() {
    for hop in hops.indices.dropFirst() where hops[hop].tunnel.removals != seenRemovals[hop] {
      seenRemovals[hop] = hops[hop].tunnel.removals
      let outer = hops[hop]
      channels[hop - 1].channel.reassembler.removeAll(fromSenders: { !outer.tunnel.hasSender($0) })
    }
  }
}

extension Limits {
  /// `roomy`, and fragments of anything that its batches hold.
  static var nested: Limits {
    var limits = Limits.roomy
    limits.batchPackets = 64
    return limits
  }

  /// Batches so small that every round has a next one.
  static var narrow: Limits {
    var limits = Limits.roomy
    limits.batchPackets = 7
    limits.batchByteCount = 80 * 1024
    limits.stagedPacketsPerPeer = 8
    return limits
  }
}
