// What the core does in a second, without a kernel in between: two tunnels in one process that hand
// their batches to each other. Printed by `make bench`; figures, not a test.
import Culvert

struct End: ~Copyable {
  var tunnel: Tunnel
  var outbound: OutboundBatch
  var inbound: InboundBatch

  init() {
    var measuring = Arena.measuring
    var measured = Tunnel(carvingFrom: &measuring, limits: Profile.standard.limits)
    _ = measured.makeOutboundBatch(carvingFrom: &measuring)
    _ = measured.makeInboundBatch(carvingFrom: &measuring)
    // For the life of the process.
    let region = UnsafeMutableRawBufferPointer.allocate(
      byteCount: measuring.byteCount, alignment: Arena.pageByteCount)
    region.initializeMemory(as: UInt8.self, repeating: 0)
    var arena = Arena(region: region)
    var tunnel = Tunnel(carvingFrom: &arena, limits: Profile.standard.limits)
    outbound = tunnel.makeOutboundBatch(carvingFrom: &arena)
    inbound = tunnel.makeInboundBatch(carvingFrom: &arena)
    arena.seal()
    tunnel.start()
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
    tunnel.advance(
      &outbound, at: now, wall: WallTime(seconds: now.nanoseconds / 1_000_000_000, nanoseconds: 0))
  }

  /// IPv4 packets of `byteCount` bytes, planned.
  mutating func send(_ count: Int, byteCount: Int, at now: Instant) {
    outbound.reset()
    for _ in 0..<count {
      guard let room = outbound.room(for: byteCount) else { break }
      room.initializeMemory(as: UInt8.self, repeating: 0)
      room[0] = 0x45
      room[2] = UInt8(byteCount >> 8)
      room[3] = UInt8(byteCount & 0xff)
      room[8] = 64
      room[12] = 10
      room[16] = 10
      outbound.append(byteCount: byteCount)
    }
    tunnel.plan(&outbound, at: now)
  }
}

/// Seals what one end has planned, and moves it to the other; the count of packets delivered there.
func carry(_ source: inout End, _ target: inout End, at now: Instant) -> Int {
  target.inbound.reset()
  while source.outbound.seal() {
    for index in 0..<source.outbound.outputCount {
      guard case .datagram(let bytes, let path, _) = source.outbound.output(index),
        let room = target.inbound.room
      else { continue }
      room.copyMemory(from: bytes)
      target.inbound.append(
        byteCount: bytes.count, from: path, trafficClass: 0, isTruncated: false)
    }
  }
  source.tunnel.emit(&source.outbound, at: now)
  target.tunnel.accept(&target.inbound, at: now)
  target.inbound.open()
  target.tunnel.deliver(&target.inbound, at: now)
  var delivered = 0
  for index in 0..<target.inbound.count where target.inbound.delivered(index) != nil {
    delivered += 1
  }
  return delivered
}

/// How often `body` does one thing in a second: it is called for half a second, and says how many
/// things each call did.
func rate(_ body: () -> Int) -> Double {
  let clock = ContinuousClock()
  let start = clock.now
  var count = 0
  while clock.now - start < .milliseconds(500) { count += body() }
  let elapsed = clock.now - start
  return Double(count)
    / (Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18)
}

precondition(Sodium.start())
var now = Instant(nanoseconds: 1_000_000_000_000)
var one = End()
var two = End()
for isFirst in [true, false] {
  var key = [UInt8](repeating: isFirst ? 1 : 2, count: 32)
  key.withUnsafeMutableBytes { bytes in
    X25519.clamp(bytes.baseAddress!)
    if isFirst {
      one.tunnel.setPrivateKey(bytes.baseAddress!)
    } else {
      two.tunnel.setPrivateKey(bytes.baseAddress!)
    }
  }
}
let keys = (one.tunnel.publicKey!, two.tunnel.publicKey!)
one.configure(peer: keys.1, at: now)
two.configure(peer: keys.0, at: now)

var acceptedBefore: UInt64 = 0
let handshakes = rate {
  // Late enough for a new session to be due: a packet without one starts a handshake.
  now = now.advanced(by: 200_000_000_000)
  one.send(1, byteCount: 64, at: now)
  one.advance(at: now)
  _ = carry(&one, &two, at: now)
  two.advance(at: now)
  _ = carry(&two, &one, at: now)
  one.advance(at: now)
  _ = carry(&one, &two, at: now)
  one.advance(at: now)
  _ = carry(&one, &two, at: now)
  let accepted = one.tunnel.counters[.handshakeAccepted]
  defer { acceptedBefore = accepted }
  return Int(accepted - acceptedBefore)
}
print("handshakes per second, both ends on one core: \(Int(handshakes))")
for byteCount in [64, 200, 1420] {
  let packets = rate {
    one.send(64, byteCount: byteCount, at: now)
    return carry(&one, &two, at: now)
  }
  let megabits = packets * Double(byteCount) * 8 / 1e6
  print(
    "packets of \(byteCount) bytes per second, sealed and opened: \(Int(packets))",
    "(\(Int(megabits)) Mbit/s)")
}
