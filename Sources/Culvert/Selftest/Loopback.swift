/// Two tunnels without a network between them: what one seals is copied to the other. They share
/// one batch of each lane, so that they fit into the memory of the smallest board.
///
/// Each step of the lanes is called in one place only, because the tunnel's functions are large and
/// the compiler inlines them.
struct Loopback: ~Copyable {
  /// Index of the tunnel that opens the sessions.
  static let initiator = 0
  static let responder = 1

  private let tunnels: UnsafeMutablePointer<Tunnel>
  var outbound: OutboundBatch
  var inbound: InboundBatch
  private let key: UnsafeMutableRawPointer
  var now: Instant

  /// The endpoint of both.
  private static var endpoint: Endpoint {
    Endpoint(address: IPAddress(ipv4: 0x7f00_0001), port: 51_820)
  }

  /// Enough for one peer and its handshake. Two messages in the ring already count as load.
  private static var limits: Limits {
    Limits(
      peers: 1, allowedIPs: 1, stagedPacketsPerPeer: 2, stagingSlots: 4, handshakeRing: 16,
      rateLimiterEntries: 4, batchPackets: 64, batchByteCount: 80 * 1024, maximumMTU: 1500)
  }

  init(carvingFrom arena: inout Arena, at now: Instant) {
    let limits = Loopback.limits
    key = arena.carveBytes(WireGuard.keyByteCount, owner: "selftest").baseAddress!
    // A tunnel needs no deinitialisation: everything it owns is in the arena.
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

  /// Private keys are 01, 02 ... and 41, 42 ..., the preshared key is e0, e1 ...; without
  /// `isSeeded` each draw of entropy gives 81, 82 ... or c1, c2 ...
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

  /// Fills the outbound batch with IPv4 packets of `byteCount` bytes: a header and zeros.
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
    tunnels[side].plan(&outbound, at: now)
  }

  /// Serves handshake messages and runs due timers, into the outbound batch.
  mutating func runTimers(_ side: Int) {
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

  /// Copies the sealed datagrams to the inbound batch, each `copies` times.
  mutating func copyOutputs(copies: Int = 1) {
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
    tunnels[side].emit(&outbound, at: now)
  }

  mutating func accept(_ side: Int) {
    tunnels[side].accept(&inbound, at: now)
  }

  mutating func open() { inbound.open() }

  mutating func deliver(_ side: Int) {
    tunnels[side].deliver(&inbound, at: now)
  }

  // MARK: Several steps

  /// Seals what one end has planned, and moves it to the inbound batch.
  mutating func transfer(from side: Int, copies: Int = 1) {
    inbound.reset()
    while seal() { copyOutputs(copies: copies) }
    emit(side)
  }

  /// Takes what one end has planned all the way through the other.
  mutating func send(from side: Int, copies: Int = 1) {
    transfer(from: side, copies: copies)
    accept(1 - side)
    open()
    deliver(1 - side)
  }

  /// Gives the initiator a packet that waits for a session.
  mutating func stage(byteCount: Int) {
    fill(1, byteCount: byteCount)
    plan(Loopback.initiator)
    emit(Loopback.initiator)
  }

  /// Puts an initiation into the inbound batch, for a packet whose session is too old.
  mutating func initiate() {
    now = now.advanced(by: 200 * nanosecondsPerSecond)
    stage(byteCount: 64)
    runTimers(Loopback.initiator)
    transfer(from: Loopback.initiator)
  }

  /// Sends the response, which is in the outbound batch, then the packet that was staged, and then
  /// the keepalive that answers it; without that either end would soon want another session.
  mutating func confirm() {
    send(from: Loopback.responder)
    runTimers(Loopback.initiator)
    send(from: Loopback.initiator)
    now = now.advanced(by: WireGuard.keepaliveTimeout)
    runTimers(Loopback.responder)
    send(from: Loopback.responder)
  }
}

/// Writes bytes that count up from `start`.
private func ramp(_ bytes: UnsafeMutableRawPointer, _ byteCount: Int, from start: UInt8) {
  for index in 0..<byteCount {
    bytes.storeByte(start &+ UInt8(truncatingIfNeeded: index), index)
  }
}

/// Writes the header of a UDP packet from 10.0.0.1 to 10.0.0.2.
func writeIPv4Header(
  at bytes: UnsafeMutableRawPointer, byteCount: Int, trafficClass: UInt8 = 0,
  identification: UInt16 = 0, fragmentField: UInt16 = 0
) {
  IPv4Header.write(
    at: bytes, totalByteCount: byteCount, trafficClass: trafficClass,
    identification: identification, fragmentField: fragmentField, protocol: IPProtocol.udp,
    source: IPAddress(ipv4: 0x0a00_0001), destination: IPAddress(ipv4: 0x0a00_0002))
}

/// Writes a fragment. One copy of the code for all callers in this folder.
func write(_ index: Int, of fragmenter: Fragmenter, to bytes: UnsafeMutableRawPointer) {
  fragmenter.write(index, to: bytes)
}

/// Cuts a packet. One copy of the code for all callers in this folder.
func cut(
  _ packet: UnsafeMutableRawPointer, byteCount: Int, mtu: Int, identification: UInt32
) -> Fragmenter? {
  Fragmenter(at: packet, byteCount: byteCount, mtu: mtu, identification: identification)
}
