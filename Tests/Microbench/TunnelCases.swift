/// One end of a tunnel, and the batches of both lanes.
private struct MicroEnd: ~Copyable {
  var tunnel: Tunnel
  var outbound: OutboundBatch
  var inbound: InboundBatch

  init(privateKey: UInt8) {
    var measuring = Arena.measuring
    var measured = Tunnel(carvingFrom: &measuring, limits: Profile.standard.limits)
    _ = measured.makeOutboundBatch(carvingFrom: &measuring)
    _ = measured.makeInboundBatch(carvingFrom: &measuring)
    var memory = arena(byteCount: measuring.byteCount)
    var tunnel = Tunnel(carvingFrom: &memory, limits: Profile.standard.limits)
    outbound = tunnel.makeOutboundBatch(carvingFrom: &memory)
    inbound = tunnel.makeInboundBatch(carvingFrom: &memory)
    memory.seal()
    tunnel.start()
    // One for all machines, so that the baseline is too.
    tunnel.cipher = .composed(stride: 512)
    inbound.preparesJoining = true
    let key = bytes(32)
    key.storeByte(privateKey, 0)
    X25519.clamp(key)
    tunnel.setPrivateKey(key)
    self.tunnel = tunnel
  }

  mutating func configure(peer: Key, at now: Instant) {
    let id = try! tunnel.addPeer(peer)
    try! tunnel.stageAllowedIP(IPPrefix(IPAddress(ipv4: 0), length: 0)!, add: true)
    tunnel.commitAllowedIPs(to: id)
    tunnel.setEndpoint(Endpoint(address: IPAddress(ipv4: 0x7f00_0001), port: 1), of: id)
    tunnel.setUp(true, at: now)
  }

  /// Timers and handshakes, into the outbound batch.
  mutating func advance(at now: Instant) {
    outbound.reset()
    tunnel.runTimers(
      into: &outbound, at: now,
      wall: WallTime(seconds: now.nanoseconds / 1_000_000_000, nanoseconds: 0))
  }

  /// IPv4 packets of `byteCount` bytes, planned.
  mutating func send(_ count: Int, byteCount: Int, at now: Instant) {
    outbound.reset()
    for _ in 0..<count {
      guard let room = outbound.room(for: byteCount)?.baseAddress else { break }
      room.storeBig(0x4500 as UInt16, 0)
      room.storeBig(UInt16(byteCount), 2)
      room.storeBig(0x4011_0000 as UInt32, 8)
      room.storeBig(0x0a00_0001 as UInt32, 12)
      room.storeBig(0x0a00_0002 as UInt32, 16)
      outbound.append(byteCount: byteCount)
    }
    tunnel.plan(&outbound, at: now)
  }

  /// A packet to be cut, planned.
  mutating func send(_ large: LargePacket, at now: Instant) {
    outbound.reset()
    let room = outbound.room(for: large.byteCount)!
    room.copyMemory(from: UnsafeRawBufferPointer(start: large.packet, count: large.byteCount))
    outbound.append(byteCount: large.byteCount, offload: large.offload)
    tunnel.plan(&outbound, at: now)
  }

  mutating func emit(at now: Instant) { tunnel.emit(&outbound, at: now) }
}

/// Two ends with a session.
private final class MicroPair {
  private var one = MicroEnd(privateKey: 1)
  private var two = MicroEnd(privateKey: 2)
  private var now = Instant(nanoseconds: 1_000_000_000_000)

  init() {
    let keys = (one.tunnel.publicKey!, two.tunnel.publicKey!)
    one.configure(peer: keys.1, at: now)
    two.configure(peer: keys.0, at: now)
    handshake()
  }

  /// A packet that finds its session too old: both handshake messages, the packet that waited, and
  /// the keepalive that answers it when nothing else has.
  func handshake() {
    now = now.advanced(by: 200_000_000_000)
    let before = one.tunnel.counters[.handshakeAccepted]
    one.send(1, byteCount: 64, at: now)
    one.advance(at: now)
    MicroPair.carry(&one, &two, at: now)
    two.advance(at: now)
    MicroPair.carry(&two, &one, at: now)
    one.advance(at: now)
    MicroPair.carry(&one, &two, at: now)
    precondition(one.tunnel.counters[.handshakeAccepted] == before + 1)
    now = now.advanced(by: 12_000_000_000)
    two.advance(at: now)
    MicroPair.carry(&two, &one, at: now)
  }

  /// Plans and seals.
  func send(_ count: Int, byteCount: Int) {
    one.send(count, byteCount: byteCount, at: now)
    var sealed = 0
    while one.outbound.seal() { sealed += one.outbound.outputCount }
    precondition(sealed == count)
    one.emit(at: now)
  }

  /// From the TUN of one end to the TUN of the other: cut, sealed, opened, joined.
  func send(_ large: LargePacket) {
    one.send(large, at: now)
    MicroPair.carry(&one, &two, at: now)
    two.inbound.join(tcp: true, udp: true)
    precondition(two.inbound.outputCount == 1)
  }

  /// Seals what one end has planned, and moves it to the other.
  private static func carry(
    _ source: inout MicroEnd, _ target: inout MicroEnd, at now: Instant
  ) {
    target.inbound.reset()
    while source.outbound.seal() {
      for index in 0..<source.outbound.outputCount {
        guard case .datagram(let bytes, let path, _) = source.outbound.output(index),
          let room = target.inbound.room(for: bytes.count, datagrams: 1)
        else { continue }
        room.copyMemory(from: bytes)
        target.inbound.append(
          byteCount: bytes.count, from: path, trafficClass: 0, isTruncated: false)
      }
    }
    source.emit(at: now)
    target.tunnel.accept(&target.inbound, at: now)
    target.inbound.open()
    target.tunnel.deliver(&target.inbound, at: now)
  }
}

var handshakeCases: [MicroCase] {
  [
    MicroCase(name: "handshake", count: 10) {
      let pair = MicroPair()
      return { count in for _ in 0..<count { pair.handshake() } }
    }
  ]
}

var batchCases: [MicroCase] {
  [200, 1420].map { byteCount in
    MicroCase(name: "batch-32x\(byteCount)", count: 20) {
      let pair = MicroPair()
      return { count in for _ in 0..<count { pair.send(32, byteCount: byteCount) } }
    }
  } + [
    MicroCase(name: "tunnel-cut-join-32", count: 20) {
      let pair = MicroPair()
      let large = LargePacket()
      return { count in
        for _ in 0..<count {
          large.restore()
          pair.send(large)
        }
      }
    }
  ]
}
