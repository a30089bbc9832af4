/// Two tunnels with nothing between them: what one seals is copied to the other. They take turns
/// with one batch of either lane, so that there is room for them on the smallest board.
///
/// Each step is a call, and there is one of each: the tunnel's functions are large.
struct Loopback: ~Copyable {
  /// Of the tunnels: who opens the sessions.
  static let initiator = 0
  static let responder = 1

  private let tunnels: UnsafeMutablePointer<Tunnel>
  var outbound: OutboundBatch
  var inbound: InboundBatch
  private let key: UnsafeMutableRawPointer
  var now: Instant

  /// Where either finds the other.
  private static var endpoint: Endpoint {
    Endpoint(address: IPAddress(ipv4: 0x7f00_0001), port: 51_820)
  }

  /// Room for one peer and its handshake: two messages in the ring are load.
  private static var limits: Limits {
    Limits(
      peers: 1, allowedIPs: 1, stagedPacketsPerPeer: 2, stagingSlots: 4, handshakeRing: 16,
      rateLimiterEntries: 4, batchPackets: 64, batchByteCount: 80 * 1024, maximumMTU: 1500)
  }

  init(carvingFrom arena: inout Arena, at now: Instant) {
    let limits = Loopback.limits
    key = arena.carveBytes(WireGuard.keyByteCount, owner: "selftest").baseAddress!
    // Nothing of a tunnel has to be destroyed: what it has is in the arena.
    tunnels = arena.carveBytes(2 * MemoryLayout<Tunnel>.stride, owner: "selftest").baseAddress!
      .bindMemory(to: Tunnel.self, capacity: 2)
    for side in 0..<2 {
      let secrets = TunnelSecrets(carvingFrom: &arena, limits: limits)
      (tunnels + side).initialize(
        to: Tunnel(carvingFrom: &arena, limits: limits, secrets: secrets))
    }
    outbound = tunnels[0].makeOutboundBatch(carvingFrom: &arena)
    inbound = tunnels[0].makeInboundBatch(carvingFrom: &arena)
    self.now = now
  }

  /// Private keys are 01, 02 ... and 41, 42 ..., a preshared key e0, e1 ...; each draw of fixed
  /// entropy gives 81, 82 ... or c1, c2 ...
  func start(isSeeded: Bool, hasPresharedKey: Bool = false) {
    for side in 0..<2 {
      let fixed: Entropy.Fill =
        side == 0 ? { ramp($0, $1, from: 0x81) } : { ramp($0, $1, from: 0xc1) }
      tunnels[side].start(entropy: isSeeded ? .seeded(UInt64(side)) : .system(fill: fixed))
      ramp(key, WireGuard.keyByteCount, from: side == 0 ? 0x01 : 0x41)
      tunnels[side].setPrivateKey(key)
    }
    for side in 0..<2 {
      guard let peer = tunnels[1 - side].publicKey, let id = try? tunnels[side].addPeer(peer),
        let everything = IPPrefix(IPAddress(ipv4: 0), length: 0)
      else { return }
      if hasPresharedKey {
        ramp(key, WireGuard.keyByteCount, from: 0xe0)
        tunnels[side].setPresharedKey(key, of: id)
      }
      try? tunnels[side].stageAllowedIP(everything, add: true)
      tunnels[side].commitAllowedIPs(to: id)
      tunnels[side].setEndpoint(Loopback.endpoint, of: id)
      tunnels[side].setUp(true, at: now)
    }
  }

  func setCipher(_ cipher: TransportCipher, of side: Int) {
    tunnels[side].cipher = cipher
  }

  func count(_ verdict: Verdict, of side: Int) -> UInt64 { tunnels[side].counters[verdict] }

  // MARK: Steps

  /// Fills the outbound batch with packets of IPv4, each of `byteCount` bytes: a header and zeros.
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
    let tunnel = tunnels + side
    tunnel.pointee.plan(&outbound, at: now)
  }

  /// Handshake messages and due timers, into the outbound batch.
  mutating func advance(_ side: Int) {
    outbound.reset()
    let tunnel = tunnels + side
    tunnel.pointee.runTimers(
      into: &outbound, at: now,
      wall: WallTime(
        seconds: now.nanoseconds / nanosecondsPerSecond,
        nanoseconds: UInt32(truncatingIfNeeded: now.nanoseconds % nanosecondsPerSecond)))
  }

  func nextDeadline(of side: Int) -> Deadline { tunnels[side].nextDeadline(at: now) }

  mutating func seal() -> Bool { outbound.seal() }

  /// Copies what `seal` has made to the inbound batch, each datagram `copies` times.
  mutating func move(copies: Int = 1) {
    for index in 0..<outbound.outputCount {
      guard case .datagram(let bytes, let path, _) = outbound.output(index) else { continue }
      for _ in 0..<copies {
        guard let room = inbound.room(for: bytes.count, datagrams: 1) else { return }
        room.copyMemory(from: bytes)
        inbound.append(byteCount: bytes.count, from: path, trafficClass: 0, isTruncated: false)
      }
    }
  }

  mutating func emit(_ side: Int) {
    let tunnel = tunnels + side
    tunnel.pointee.emit(&outbound, at: now)
  }

  mutating func accept(_ side: Int) {
    let tunnel = tunnels + side
    tunnel.pointee.accept(&inbound, at: now)
  }

  mutating func open() { inbound.open() }

  mutating func deliver(_ side: Int) {
    let tunnel = tunnels + side
    tunnel.pointee.deliver(&inbound, at: now)
  }

  // MARK: All of them

  /// What is planned by one end, into the inbound batch.
  mutating func transfer(from side: Int, copies: Int = 1) {
    inbound.reset()
    while seal() { move(copies: copies) }
    emit(side)
  }

  /// From one end to the other.
  mutating func carry(from side: Int, copies: Int = 1) {
    transfer(from: side, copies: copies)
    accept(1 - side)
    open()
    deliver(1 - side)
  }

  /// A packet of the initiator's that has to wait for a session.
  mutating func stage(byteCount: Int) {
    fill(1, byteCount: byteCount)
    plan(Loopback.initiator)
    emit(Loopback.initiator)
  }

  /// An initiation for a packet that finds its session too old, on its way in the inbound batch.
  mutating func initiate() {
    now = now.advanced(by: 200 * nanosecondsPerSecond)
    stage(byteCount: 64)
    advance(Loopback.initiator)
    transfer(from: Loopback.initiator)
  }

  /// The response, which stands in the outbound batch, and the packet that has waited. And the
  /// keepalive that answers it, or either end would soon ask for another session.
  mutating func confirm() {
    carry(from: Loopback.responder)
    advance(Loopback.initiator)
    carry(from: Loopback.initiator)
    now = now.advanced(by: WireGuard.keepaliveTimeout)
    advance(Loopback.responder)
    carry(from: Loopback.responder)
  }
}

/// Writes bytes each of which is one more than the one before.
private func ramp(_ bytes: UnsafeMutableRawPointer, _ byteCount: Int, from start: UInt8) {
  for index in 0..<byteCount {
    bytes.storeByte(start &+ UInt8(truncatingIfNeeded: index), index)
  }
}

/// A header of UDP from 10.0.0.1 to 10.0.0.2.
func writeIPv4Header(
  at bytes: UnsafeMutableRawPointer, byteCount: Int, trafficClass: UInt8 = 0,
  identification: UInt16 = 0, fragmentField: UInt16 = 0
) {
  IPv4Header.write(
    at: bytes, totalByteCount: byteCount, trafficClass: trafficClass,
    identification: identification, fragmentField: fragmentField, protocol: IPProtocol.udp,
    source: IPAddress(ipv4: 0x0a00_0001), destination: IPAddress(ipv4: 0x0a00_0002))
}

/// Writes a fragment; a call for all who do.
func write(_ index: Int, of fragmenter: Fragmenter, to bytes: UnsafeMutableRawPointer) {
  fragmenter.write(index, to: bytes)
}

/// Cuts a packet; a call for all who do.
func cut(
  _ packet: UnsafeMutableRawPointer, byteCount: Int, mtu: Int, identification: UInt32
) -> Fragmenter? {
  Fragmenter(at: packet, byteCount: byteCount, mtu: mtu, identification: identification)
}
