/// Two ends without a network in between: the datagrams that one seals are copied to the other. The
/// ends share their batches, so that they fit into the memory of the smallest board.
struct Loopback: ~Copyable {
  /// The end that opens the sessions.
  static let initiator = 0
  static let responder = 1

  private let ends: (TunnelEnd, TunnelEnd)
  private let key: UnsafeMutableRawPointer
  var now: Instant

  /// Enough for one peer and its handshake. Two messages in the ring are an eighth of it, and thus
  /// already count as load.
  private static var limits: Limits {
    Limits(
      peers: 1, allowedIPs: 1, stagedPacketsPerPeer: 2, stagingSlots: 4, handshakeRing: 16,
      rateLimiterEntries: 4, batchPackets: 64, batchByteCount: 80 * 1024, maximumMTU: 1500)
  }

  init(carvingFrom arena: inout Arena, at now: Instant) {
    self.init(carvingFrom: &arena, hops: 1, limits: Loopback.limits, at: now)
  }

  /// - Parameter hops: nested tunnels of each end.
  init(carvingFrom arena: inout Arena, hops: Int, limits: Limits, at now: Instant) {
    key = arena.carveBytes(WireGuard.keyByteCount, owner: "selftest").baseAddress!
    let one = TunnelEnd(carvingFrom: &arena, hops: hops, limits: limits, endsSecrets: false)
    let two = TunnelEnd(
      carvingFrom: &arena, hops: hops, limits: limits, sharingBatchesOf: one, endsSecrets: false)
    ends = (one, two)
    self.now = now
  }

  private func end(_ side: Int) -> TunnelEnd { side == 0 ? ends.0 : ends.1 }

  /// The outbound batch of the innermost hop, where packets enter, and the inbound batch of the
  /// outermost, where datagrams arrive. With one hop, both belong to the same tunnel.
  var outbound: OutboundBatch {
    unsafeAddress { UnsafePointer(ends.0.innermost.outboundAddress) }
    unsafeMutableAddress { ends.0.innermost.outboundAddress }
  }
  var inbound: InboundBatch {
    unsafeAddress { UnsafePointer(ends.0.outermost.inboundAddress) }
    unsafeMutableAddress { ends.0.outermost.inboundAddress }
  }

  // MARK: Configuration

  /// Private keys are the bytes 01, 02 ... and 41, 42 ..., a preshared key is e0, e1 ..., and each
  /// draw of fixed entropy returns 81, 82 ... or c1, c2 ... The private keys of each further hop
  /// outward start 16 higher.
  func start(isSeeded: Bool, hasPresharedKey: Bool = false) {
    for side in 0..<2 {
      let fixed: Entropy.Fill =
        side == 0 ? { ramp($0, $1, from: 0x81) } : { ramp($0, $1, from: 0xc1) }
      let hops = end(side).hops
      for index in 0..<hops.count {
        let hop = hops[index]
        let seed = UInt64(side + 2 * index)
        hop.tunnel.start(entropy: isSeeded ? .seeded(seed) : .system(fill: fixed))
        ramp(
          key, WireGuard.keyByteCount, from: (side == 0 ? 0x01 : 0x41) + UInt8(16 * index))
        hop.tunnel.setPrivateKey(key, at: Instant(nanoseconds: 0))
        if index < hops.count - 1 {
          hop.channel.start(seed: seed)
          hop.channel.setAddress(Loopback.address(of: side))
          hop.channel.open(firstPort: Loopback.port)
        }
      }
    }
    for side in 0..<2 {
      for hop in 0..<end(side).hops.count { configure(hop, of: side, hasPresharedKey) }
    }
  }

  private func configure(_ hop: Int, of side: Int, _ hasPresharedKey: Bool) {
    let (own, other) = (end(side).hops[hop], end(1 - side).hops[hop])
    guard let peer = other.tunnel.publicKey, let id = try? own.tunnel.addPeer(peer),
      let everything = IPPrefix(IPAddress(ipv4: 0), length: 0)
    else { return }
    if hasPresharedKey {
      ramp(key, WireGuard.keyByteCount, from: 0xe0)
      own.tunnel.setPresharedKey(key, of: id)
    }
    try? own.tunnel.stageAllowedIP(everything, add: true)
    own.tunnel.commitAllowedIPs(to: id)
    let isOutermost = hop == end(side).hops.count - 1
    own.tunnel.setEndpoint(
      Endpoint(
        address: isOutermost ? IPAddress(ipv4: 0x7f00_0001) : Loopback.address(of: 1 - side),
        port: Loopback.port), of: id)
    own.tunnel.setUp(true, at: now)
  }

  private static var port: UInt16 { 51_820 }

  /// The address of a host inside the tunnel: 10.0.0.1 or 10.0.0.2, as in `writeIPv4Header`.
  private static func address(of side: Int) -> IPAddress {
    IPAddress(ipv4: 0x0a00_0001 + UInt32(side))
  }

  func setCipher(_ cipher: TransportCipher, of side: Int) {
    let hops = end(side).hops
    for hop in 0..<hops.count { hops[hop].tunnel.cipher = cipher }
  }

  /// A counter of the innermost tunnel.
  func count(_ verdict: Verdict, of side: Int) -> UInt64 {
    end(side).innermost.tunnel.counters[verdict]
  }

  // MARK: Steps

  /// Fills the outbound batch with IPv4 packets of `byteCount` bytes each: a header and zeros.
  mutating func fill(_ count: Int, byteCount: Int) {
    outbound.reset()
    for _ in 0..<count {
      guard let room = outbound.room(for: byteCount)?.baseAddress else { return }
      room.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
      writeIPv4Header(at: room, byteCount: byteCount)
      outbound.append(byteCount: byteCount)
    }
  }

  mutating func plan(_ side: Int) {
    let hop = end(side).innermost
    hop.tunnel.plan(&hop.outbound, at: now)
  }

  /// Serves handshake messages and runs due timers of the innermost tunnel, into the outbound
  /// batch.
  mutating func runTimers(_ side: Int) {
    let hop = end(side).innermost
    hop.outbound.reset()
    hop.tunnel.runTimers(into: &hop.outbound, at: now, wall: wall)
  }

  private var wall: WallTime {
    WallTime(
      seconds: now.nanoseconds / nanosecondsPerSecond,
      nanoseconds: UInt32(truncatingIfNeeded: now.nanoseconds % nanosecondsPerSecond))
  }

  func nextDeadline(of side: Int) -> Deadline {
    end(side).innermost.tunnel.nextDeadline(at: now)
  }

  mutating func seal() -> Bool { outbound.seal() }

  /// Copies the sealed datagrams to the inbound batch, each `copies` times. Datagrams that do not
  /// fit are lost.
  mutating func copyOutputs(copies: Int = 1) { ends.0.outermost.copyOutputs(copies: copies) }

  mutating func emit(_ side: Int) {
    let hop = end(side).innermost
    hop.tunnel.emit(&hop.outbound, at: now)
  }

  mutating func accept(_ side: Int) {
    let hop = end(side).outermost
    hop.tunnel.accept(&hop.inbound, at: now)
  }

  mutating func open() { inbound.open() }

  mutating func deliver(_ side: Int) {
    let hop = end(side).outermost
    hop.tunnel.deliver(&hop.inbound, at: now)
  }

  // MARK: Sequences of steps

  /// Seals what one end has planned, and copies it to the inbound batch.
  mutating func transfer(from side: Int, copies: Int = 1) {
    inbound.reset()
    while seal() { copyOutputs(copies: copies) }
    emit(side)
  }

  /// Carries what one end has planned to the other end, and delivers it there.
  mutating func send(from side: Int, copies: Int = 1) {
    transfer(from: side, copies: copies)
    accept(1 - side)
    open()
    deliver(1 - side)
  }

  /// Stages a packet of the initiator, which has to wait for a session.
  mutating func stage(byteCount: Int) {
    fill(1, byteCount: byteCount)
    plan(Loopback.initiator)
    emit(Loopback.initiator)
  }

  /// Stages a packet when the session is too old. The resulting initiation is then in the inbound
  /// batch.
  mutating func initiate() {
    now = now.advanced(by: 200 * nanosecondsPerSecond)
    stage(byteCount: 64)
    runTimers(Loopback.initiator)
    transfer(from: Loopback.initiator)
  }

  /// Sends the response, which is in the outbound batch, then the staged packet, and then the
  /// keepalive that answers it. Without the keepalive, an end would soon start another handshake.
  mutating func confirm() {
    send(from: Loopback.responder)
    runTimers(Loopback.initiator)
    send(from: Loopback.initiator)
    now = now.advanced(by: WireGuard.keepaliveTimeout)
    runTimers(Loopback.responder)
    send(from: Loopback.responder)
  }

  // MARK: Through all hops

  /// Carries what is planned in the innermost tunnel of one end through all hops to the other end.
  /// Then runs the timers of both ends until neither has anything due.
  mutating func exchange(from side: Int) {
    pass(from: side, sendsPlanned: true)
    for _ in 0..<64 {
      let next = min(ends.0.nextDeadline(at: now), ends.1.nextDeadline(at: now))
      guard next.isDue(at: now) else { return }
      pass(from: side, sendsPlanned: false)
      pass(from: 1 - side, sendsPlanned: false)
    }
  }

  private func pass(from side: Int, sendsPlanned: Bool) {
    let (source, target, now) = (end(side), end(1 - side), now)
    // The closure is written twice, because one stored in a constant would be allocated.
    if sendsPlanned {
      source.send(at: now) { source.didStep($0, $1, target, at: now) }
    } else {
      source.runTimers(at: now, wall: wall) { source.didStep($0, $1, target, at: now) }
    }
  }
}

extension TunnelEnd {
  /// After the outermost hop has sealed a round, carries its datagrams to the other end.
  fileprivate func didStep(_ step: Step, _ hop: Int, _ target: TunnelEnd, at now: Instant) {
    let last = hops.count - 1
    guard step == .sealed, hop == last else { return }
    target.outermost.inbound.reset()
    outermost.copyOutputs(copies: 1)
    target.receive(last, at: now) { _, _ in }
  }
}

/// Writes bytes that count up from `start`.
private func ramp(_ bytes: UnsafeMutableRawPointer, _ byteCount: Int, from start: UInt8) {
  for index in 0..<byteCount {
    bytes.storeByte(start &+ UInt8(truncatingIfNeeded: index), index)
  }
}

/// Writes the IPv4 header of a UDP packet from 10.0.0.1 to 10.0.0.2.
func writeIPv4Header(
  at bytes: UnsafeMutableRawPointer, byteCount: Int, trafficClass: UInt8 = 0,
  identification: UInt16 = 0, fragmentField: UInt16 = 0
) {
  IPv4Header.write(
    at: bytes, totalByteCount: byteCount, trafficClass: trafficClass,
    identification: identification, fragmentField: fragmentField, protocol: IPProtocol.udp,
    source: IPAddress(ipv4: 0x0a00_0001), destination: IPAddress(ipv4: 0x0a00_0002))
}

/// Writes a fragment. One shared function, so that the code is not inlined in several places.
func write(_ index: Int, of fragmenter: Fragmenter, to bytes: UnsafeMutableRawPointer) {
  fragmenter.write(index, to: bytes)
}

/// Cuts a packet. One shared function, so that the code is not inlined in several places.
func cut(
  _ packet: UnsafeMutableRawPointer, byteCount: Int, mtu: Int, identification: UInt32
) -> Fragmenter? {
  Fragmenter(at: packet, byteCount: byteCount, mtu: mtu, identification: identification)
}
