/// Two tunnels with the limits of the standard profile.
private final class MicroTunnels {
  private var loopback: Loopback

  init() {
    let limits = Profile.standard.limits
    let now = Instant(nanoseconds: 1_000 * nanosecondsPerSecond)
    var memory = arena(byteCount: 16 << 20)
    loopback = Loopback(carvingFrom: &memory, hops: 1, limits: limits, at: now)
    memory.seal()
    loopback.start(isSeeded: true)
    for side in 0..<2 {
      // The same cipher on all machines, so that they can share one baseline.
      loopback.setCipher(.composed(stride: 512), of: side)
    }
    loopback.inbound.preparesJoining = true
    handshake()
  }

  /// Runs a whole handshake, started by a packet whose session is too old: both handshake messages,
  /// the staged packet, and the keepalive that answers it.
  func handshake() {
    let before = loopback.count(.handshakeAccepted, of: Loopback.responder)
    loopback.initiate()
    loopback.accept(Loopback.responder)
    loopback.runTimers(Loopback.responder)
    loopback.confirm()
    precondition(loopback.count(.handshakeAccepted, of: Loopback.responder) == before + 1)
  }

  /// Plans and seals IPv4 packets.
  func send(_ count: Int, byteCount: Int) {
    loopback.outbound.reset()
    for _ in 0..<count {
      guard let room = loopback.outbound.room(for: byteCount)?.baseAddress else { break }
      room.storeBig(0x4500 as UInt16, 0)
      room.storeBig(UInt16(byteCount), 2)
      room.storeBig(0x4011_0000 as UInt32, 8)
      room.storeBig(0x0a00_0001 as UInt32, 12)
      room.storeBig(0x0a00_0002 as UInt32, 16)
      loopback.outbound.append(byteCount: byteCount)
    }
    loopback.plan(Loopback.initiator)
    var sealed = 0
    while loopback.seal() { sealed += loopback.outbound.outputCount }
    precondition(sealed == count)
    loopback.emit(Loopback.initiator)
  }

  /// Sends a packet from the TUN of one end to the TUN of the other: segmented, sealed, opened,
  /// joined.
  func send(_ large: LargePacket) {
    loopback.outbound.reset()
    let room = loopback.outbound.room(for: large.byteCount)!
    room.copyMemory(from: UnsafeRawBufferPointer(start: large.packet, count: large.byteCount))
    loopback.outbound.append(byteCount: large.byteCount, offload: large.offload)
    loopback.plan(Loopback.initiator)
    loopback.send(from: Loopback.initiator)
    loopback.inbound.join(tcp: true, udp: true)
    precondition(loopback.inbound.outputCount == 1)
  }
}

var handshakeCases: [MicroCase] {
  [
    MicroCase(name: "handshake", count: 10) {
      let tunnels = MicroTunnels()
      return { count in for _ in 0..<count { tunnels.handshake() } }
    }
  ]
}

var batchCases: [MicroCase] {
  [200, 1420].map { byteCount in
    MicroCase(name: "batch-32x\(byteCount)", count: 20) {
      let tunnels = MicroTunnels()
      return { count in for _ in 0..<count { tunnels.send(32, byteCount: byteCount) } }
    }
  } + [
    MicroCase(name: "tunnel-cut-join-32", count: 20) {
      let tunnels = MicroTunnels()
      let large = LargePacket()
      return { count in
        for _ in 0..<count {
          large.restore()
          tunnels.send(large)
        }
      }
    }
  ]
}
