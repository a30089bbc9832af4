import Culvert

// Two ends in one process, each with two tunnels, one inside the other. The client sends datagrams
// through both tunnels and the server sends them back. An array takes the place of the network; the
// article "A tunnel in your program" of the documentation has a tunnel over a UDP socket.

// Everything runs on one thread, so these globals need no isolation.
/// The network: datagrams in flight.
nonisolated(unsafe) var wire: [(bytes: [UInt8], from: Endpoint, to: Endpoint)] = []
/// The clock. It only moves when the program moves it.
nonisolated(unsafe) var now = Instant(nanoseconds: 1_000_000_000)
let wall = WallTime(seconds: 1_800_000_000, nanoseconds: 0)

/// A tunnel with one batch for each direction.
final class Hop {
  var tunnel: Tunnel
  var outbound: OutboundBatch
  var inbound: InboundBatch

  init(carvingFrom arena: inout Arena, limits: Limits, secrets: consuming TunnelSecrets) {
    tunnel = Tunnel(carvingFrom: &arena, limits: limits, secrets: secrets)
    outbound = tunnel.makeOutboundBatch(carvingFrom: &arena)
    inbound = tunnel.makeInboundBatch(carvingFrom: &arena)
  }

  /// Generates a private key and sets the interface up.
  func start(mtu: Int) {
    tunnel.start()
    var entropy = Entropy.sodium
    withUnsafeTemporaryAllocation(byteCount: WireGuard.keyByteCount, alignment: 8) { key in
      entropy.fill(key.baseAddress!, byteCount: key.count)
      tunnel.setPrivateKey(key.baseAddress!, at: now)
      Secret.wipe(key.baseAddress!, byteCount: key.count)
    }
    tunnel.setMTU(mtu)
    tunnel.setUp(true, at: now)
  }

  /// Adds the only peer: its key, its allowed IP and its endpoint.
  func add(_ key: Key, allowed: IPAddress, at endpoint: Endpoint) throws {
    let peer = try tunnel.addPeer(key)
    try tunnel.stageAllowedIP(IPPrefix(allowed, length: allowed.family.bitCount)!, add: true)
    tunnel.commitAllowedIPs(to: peer)
    tunnel.setEndpoint(endpoint, of: peer)
    tunnel.peerIsConfigured(peer, at: now)
  }

  /// Encrypts the planned packets. `send` is called for each group of sealed datagrams.
  func finish(_ send: () -> Void) {
    while outbound.seal() { send() }
    tunnel.emit(&outbound, at: now)
    outbound.reset()
  }

  /// Decrypts the datagrams in the inbound batch.
  func open() {
    tunnel.accept(&inbound, at: now)
    inbound.open()
    tunnel.deliver(&inbound, at: now)
  }
}

/// One end:
///
///     program -- socket -- inner tunnel -- link -- outer tunnel -- wire
final class End {
  let inner: Hop
  let outer: Hop
  /// The socket of the inner tunnel. It sends through the outer tunnel.
  var link: DatagramChannel
  /// The socket of the program. It sends through the inner tunnel.
  var socket: DatagramChannel
  let endpoint: Endpoint
  /// Whether the program at this end sends datagrams back.
  let isServer: Bool
  /// The packets that the inner tunnel delivered.
  var packets: [[UInt8]] = []

  private init(carvingFrom arena: inout Arena, endpoint: Endpoint, isServer: Bool) {
    var limits = Profile.tiny.limits
    limits.reassembledByteCount = 9000
    // The keys of both tunnels come first, so that they share the locked pages.
    let first = TunnelSecrets(carvingFrom: &arena, limits: limits)
    let second = TunnelSecrets(carvingFrom: &arena, limits: limits)
    arena.endSecrets()
    inner = Hop(carvingFrom: &arena, limits: limits, secrets: first)
    outer = Hop(carvingFrom: &arena, limits: limits, secrets: second)
    link = DatagramChannel(carvingFrom: &arena, limits: limits)
    socket = DatagramChannel(carvingFrom: &arena, limits: limits)
    self.endpoint = endpoint
    self.isServer = isServer
  }

  /// Allocates all memory of an end and starts its parts.
  static func make(_ host: Int, isServer: Bool) -> End {
    let endpoint = Endpoint(address: parse("192.0.2.\(host)"), port: 51_820)
    var measuring = Arena.measuring
    _ = End(carvingFrom: &measuring, endpoint: endpoint, isServer: isServer)
    var arena = makeArena(byteCount: measuring.byteCount)
    let end = End(carvingFrom: &arena, endpoint: endpoint, isServer: isServer)
    arena.seal()
    // A real program locks arena.secrets in RAM here.
    end.outer.start(mtu: 1420)
    // The inner MTU is smaller by 32 bytes for WireGuard and 28 bytes for IPv4 and UDP.
    end.inner.start(mtu: 1360)
    end.inner.outbound.leaveRoom(forHeaders: DatagramChannel.headroom)
    end.link.start(at: parse("10.1.0.\(host)"), port: 51_820, mtu: 1420)
    end.socket.start(at: parse("10.2.0.\(host)"), port: isServer ? 7 : 4000, mtu: 1360)
    return end
  }

  func connect(to other: End) throws {
    let link = other.link.address(.ipv4)!
    try outer.add(other.outer.tunnel.publicKey!, allowed: link, at: other.endpoint)
    try inner.add(
      other.inner.tunnel.publicKey!, allowed: other.socket.address(.ipv4)!,
      at: Endpoint(address: link, port: other.link.firstPort))
  }

  /// Sends a datagram of the program, from a copy with the headroom and slack that `send` needs.
  func send(_ bytes: [UInt8], to endpoint: Endpoint) {
    let before = DatagramChannel.headroom + TransportCipher.headroom
    withUnsafeTemporaryAllocation(
      byteCount: before + bytes.count + TransportCipher.slack, alignment: 8
    ) { memory in
      let payload = UnsafeMutableRawBufferPointer(rebasing: memory[before..<before + bytes.count])
      payload.copyBytes(from: bytes)
      inner.outbound.reset()
      let sent = socket.send(
        payload, from: socket.firstPort, to: endpoint, into: &inner.outbound, at: now)
      if case .refused(let verdict) = sent { print("not sent: \(verdict.name)") }
      planInner()
    }
  }

  private func planInner() {
    inner.tunnel.plan(&inner.outbound, at: now)
    inner.finish(sendInner)
  }

  /// Sends the datagrams of the inner tunnel through the outer one.
  private func sendInner() {
    var next = 0
    while next < inner.outbound.outputCount {
      outer.outbound.reset()
      next = link.wrap(from: &inner.outbound, at: next, into: &outer.outbound, at: now)
      outer.tunnel.plan(&outer.outbound, at: now)
      outer.finish(sendOuter)
    }
  }

  private func sendOuter() {
    for index in 0..<outer.outbound.outputCount {
      guard case .datagram(let bytes, let path, _) = outer.outbound.output(index) else { continue }
      wire.append(([UInt8](bytes), endpoint, path.endpoint))
    }
  }

  /// Receives a datagram from the wire through both tunnels.
  func receive(_ bytes: [UInt8], from sender: Endpoint) {
    outer.inbound.reset()
    outer.inbound.room!.copyBytes(from: bytes)
    outer.inbound.append(
      byteCount: bytes.count, from: Path(to: sender), trafficClass: 0, isTruncated: false)
    outer.open()
    var next = 0
    while next < outer.inbound.count {
      inner.inbound.reset()
      next = link.unwrap(from: outer.inbound, at: next, into: &inner.inbound, at: now)
      inner.open()
      handOn()
      link.release()
    }
  }

  /// Passes the payloads to the program and sends its replies.
  private func handOn() {
    inner.outbound.reset()
    for index in 0..<inner.inbound.count {
      guard let packet = inner.inbound.delivered(index) else { continue }
      packets.append([UInt8](packet))
      let received = socket.receive(packet, from: inner.inbound.sender(index), at: now)
      guard case .datagram(let payload, let from, let port, _) = received else { continue }
      let start = String(decoding: payload.prefix(5), as: UTF8.self)
      print("\(isServer ? "server" : "client"): \(payload.count) bytes, \(start)")
      // The reply is the received payload, in place: its headers have the same length.
      if isServer {
        _ = socket.send(payload, from: port, to: from, into: &inner.outbound, at: now)
      }
    }
    planInner()
    // Only now: the reply may be in the socket's reassembly memory.
    socket.release()
  }

  var nextDeadline: Deadline {
    min(
      min(inner.tunnel.nextDeadline(at: now), outer.tunnel.nextDeadline(at: now)),
      min(link.nextDeadline, socket.nextDeadline))
  }

  /// Runs timers: handshakes, keepalives, retries, and expired fragments.
  func advance() {
    inner.tunnel.runTimers(into: &inner.outbound, at: now, wall: wall)
    inner.finish(sendInner)
    socket.expireFragments(into: &inner.outbound, at: now)
    planInner()
    outer.tunnel.runTimers(into: &outer.outbound, at: now, wall: wall)
    outer.finish(sendOuter)
    link.expireFragments(into: &outer.outbound, at: now)
    outer.tunnel.plan(&outer.outbound, at: now)
    outer.finish(sendOuter)
  }
}

extension DatagramChannel {
  mutating func start(at address: IPAddress, port: UInt16, mtu: Int) {
    var entropy = Entropy.sodium
    start(seed: entropy.uint64())
    setAddress(address)
    setMTU(mtu)
    open(firstPort: port)
  }
}

func parse(_ text: String) -> IPAddress {
  var text = text
  return text.withUTF8 { AddressText.address(UnsafeRawBufferPointer($0)) }!
}

func makeArena(byteCount: Int) -> Arena {
  let region = UnsafeMutableRawBufferPointer.allocate(
    byteCount: byteCount, alignment: Arena.pageByteCount)
  region.initializeMemory(as: UInt8.self, repeating: 0)
  return Arena(region: region)
}

/// Runs until nothing more happens at this instant.
func run(_ ends: [End]) {
  while !wire.isEmpty || ends.contains(where: { $0.nextDeadline.isDue(at: now) }) {
    let arrived = wire
    wire = []
    for datagram in arrived {
      for end in ends where end.endpoint == datagram.to {
        end.receive(datagram.bytes, from: datagram.from)
      }
    }
    for end in ends where end.nextDeadline.isDue(at: now) { end.advance() }
  }
}

guard Sodium.start() else { fatalError("libsodium cannot run on this machine") }
let client = End.make(1, isServer: false)
let server = End.make(2, isServer: true)
try client.connect(to: server)
try server.connect(to: client)

// 1. A small datagram. It waits for the inner handshake, which waits for the outer one.
let echo = Endpoint(address: parse("10.2.0.2"), port: 7)
client.send([UInt8]("hello".utf8), to: echo)
run([client, server])

// 2. A datagram larger than the MTU. It is fragmented.
server.packets = []
client.send([UInt8](repeating: UInt8(ascii: "#"), count: 3000), to: echo)
run([client, server])
for verdict in [FragmentVerdict.held, .reassembled] {
  print("server: \(verdict.name) \(server.socket.reassembler.counters[verdict])")
}

// 3. A reassembler alone: the same fragments in reverse order.
var arena = makeArena(byteCount: 1 << 20)
var reassembler = Reassembler(carvingFrom: &arena, maximumPacketByteCount: 4000)
arena.seal()
reassembler.start(seed: 1)
for var fragment in server.packets.reversed() {
  fragment.withUnsafeMutableBytes { bytes in
    switch reassembler.add(bytes, from: 0, at: now) {
    case .held: print("reassembler: \(bytes.count) bytes held")
    case .complete(let packet, let slot):
      print("reassembler: a packet of \(packet.count) bytes")
      reassembler.release(slot)
    case .whole, .dropped: print("reassembler: not expected")
    }
  }
}

// 4. Idle: the client has received data and owes a keepalive.
let pause = client.nextDeadline.instant!.since(now)
print("client: sleeps for \(pause / nanosecondsPerSecond) s")
now = now.advanced(by: pause)
run([client, server])
