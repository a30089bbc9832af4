import Foundation
import Testing

@testable import Culvert

/// A process with nested tunnels, and a chain of servers, each of which ends one tunnel. The first
/// one ends the outermost tunnel and is on the network; each further one is behind a router of the
/// one before. Between them packets are lost, duplicated, delayed and corrupted. One seed decides
/// everything.
final class NestedRoute {
  private let seed: UInt64
  private let client: TunnelNode
  /// The server of the innermost tunnel first.
  private let servers: [TunnelNode]
  private var hosts: [HostModel]
  private let families: [IPAddress.Family]
  /// MTUs of the links between the servers.
  private let mtus: [Int]
  private var network: FaultyNetwork
  /// Where the network delivers what is for each place.
  private var endpoints: [Endpoint] = []
  private var generator: SeededGenerator
  private var packets = PacketBook()
  /// Packets that have arrived at the innermost server and at the client, by sender.
  private var arrivedCounts = [0, 0]
  private(set) var now = Instant(nanoseconds: 100 * nanosecondsPerSecond)
  private(set) var problem: String?

  init(seed: UInt64) throws {
    self.seed = seed
    network = FaultyNetwork(SimulationPlan(seed: seed))
    var random = SeededGenerator(seed: seed ^ 0x6e65_7374)
    let count = Int.random(in: 2...4, using: &random)
    families = (0..<count).map { _ in Bool.random(using: &random) ? .ipv4 : .ipv6 }
    mtus = families.map {
      [$0 == .ipv4 ? 576 : 1280, 1300, 1420, 1500].randomElement(using: &random)!
    }
    var limits = Bool.random(using: &random) ? Limits.narrow : .nested
    limits.reassembledByteCount = 8192
    for place in 0..<Place.host(count).number {
      endpoints.append(network.makeEndpoint(of: place))
    }
    client = TunnelNode(
      hops: count, seed: seed, endpoint: endpoints[Place.client.number], limits: limits)
    let strides = [0, 64, 256, 512].shuffled(using: &random)
    client.setCiphers(strides)
    let server = endpoints[Place.server.number]
    servers = (0..<count).map { hop in
      let node = TunnelNode(seed: seed &* 100 &+ UInt64(hop), endpoint: server, limits: .roomy)
      if strides[hop] > 0 { node.tunnel.cipher = .composed(stride: strides[hop]) }
      return node
    }
    hosts = [HostModel](repeating: HostModel(), count: count)
    generator = random
    for hop in 0..<count { try connect(hop) }
  }

  private func connect(_ hop: Int) throws {
    let everything = [
      IPPrefix(ipv4(0, 0, 0, 0), length: 0)!, IPPrefix(ipv6(0, 0), length: 0)!,
    ]
    try client.hops[hop].addPeer(
      servers[hop].publicKey, allowed: everything, endpoint: endpoint(ofServer: hop))
    let own =
      hop == 0
      ? [
        IPPrefix(HostSettings.address(of: 0), length: 32)!,
        IPPrefix(HostSettings.address6(of: 0), length: 128)!,
      ] : TunnelPair.prefixes(hop, 1)
    try servers[hop].addPeer(client.hops[hop].publicKey, allowed: own)
    guard hop > 0 else { return }
    for family: IPAddress.Family in [.ipv4, .ipv6] {
      client.hops[hop - 1].channel.setAddress(TunnelPair.address(hop, 1, family))
    }
  }

  /// What the network delivers to.
  private enum Place {
    case client
    /// The socket of the server of the outermost tunnel.
    case server
    /// Packets to the server's host, and packets for the server's tunnel.
    case host(Int)
    case tun(Int)

    var number: Int {
      switch self {
      case .client: 0
      case .server: 1
      case .host(let hop): 2 + 2 * hop
      case .tun(let hop): 3 + 2 * hop
      }
    }
  }

  /// The address of a server behind another one, as everyone but the simulated network knows it.
  private func address(ofServer hop: Int) -> Endpoint {
    Endpoint(address: TunnelPair.address(hop + 1, 2, families[hop]), port: 51_820)
  }

  private func endpoint(ofServer hop: Int) -> Endpoint {
    hop == servers.count - 1 ? servers[hop].endpoint : address(ofServer: hop)
  }

  private var wall: WallTime {
    WallTime(seconds: 1_800_000_000 + now.nanoseconds / nanosecondsPerSecond, nanoseconds: 0)
  }

  private func fail(_ what: String?) {
    if let what, problem == nil { problem = "seed \(seed), \(now.nanoseconds) ns: \(what)" }
  }

  // MARK: The run

  func run() {
    pass(80 * nanosecondsPerSecond, sending: 1500, hasTrouble: true)
    heal()
    pass(100 * nanosecondsPerSecond, sending: 4000, hasTrouble: false)
    checkDelivery()
  }

  /// An attacker who forwards a message from elsewhere before the original arrives becomes the
  /// peer's endpoint; only a new setting corrects that.
  private func heal() {
    network.isHealed = true
    for (hop, tunnel) in client.hops.enumerated() {
      tunnel.tunnel.setEndpoint(endpoint(ofServer: hop), of: tunnel.firstPeer)
    }
  }

  /// After the network has healed and the tunnels have found each other, everything arrives, except
  /// for packets in flight while one session replaces another: like the kernel's, an initiator
  /// drops its current session if another one was waiting for confirmation.
  private func checkDelivery() {
    // Packets still in flight do not count.
    pass(10 * nanosecondsPerSecond, sending: nil, hasTrouble: false)
    let before = arrivedCounts
    var sent = 0
    for round in 0..<8 {
      for isIPv6 in [false, true] {
        let byteCount = [60, 1000, 1400, 2800][round % 4]
        write(from: 0, byteCount: byteCount, isIPv6: isIPv6)
        write(from: 1, byteCount: byteCount, isIPv6: isIPv6)
        sent += 1
        pass(nanosecondsPerSecond, sending: nil, hasTrouble: false)
      }
    }
    for source in 0...1 {
      let count = arrivedCounts[source] - before[source]
      if count < sent - 2 { fail("\(count) of \(sent) packets of \(source) arrive after healing") }
    }
    for hop in client.hops.dropLast() {
      if hop.fragmentCount(.noSlot) > 0 { fail("memory was lent for too long") }
    }
  }

  /// Lets time pass, with a packet about every `interval` milliseconds.
  private func pass(_ duration: UInt64, sending interval: UInt64?, hasTrouble: Bool) {
    let end = now.advanced(by: duration)
    var nextPacket = interval == nil ? end : now
    var nextTrouble = now
    while now < end, problem == nil {
      if nextPacket <= now {
        let byteCount = Int.random(in: 48...4000, using: &generator)
        write(
          from: Int.random(in: 0...1, using: &generator),
          byteCount: hasTrouble ? byteCount : min(byteCount, 3000),
          isIPv6: .random(using: &generator))
        nextPacket = now.advanced(
          by: .random(in: 1...2 * (interval ?? 0) * nanosecondsPerMillisecond, using: &generator))
      }
      if hasTrouble, nextTrouble <= now {
        makeTrouble()
        nextTrouble = now.advanced(by: nanosecondsPerSecond)
      }
      settle()
      var next = min(end, nextPacket)
      if hasTrouble { next = min(next, nextTrouble) }
      if let due = nextTime { next = min(next, due) }
      now = max(next, now)
    }
  }

  private var nextTime: Instant? {
    let nodes = [client.nextDeadline(at: now)] + servers.map { $0.nextDeadline(at: now) }
    let arrival = Instant(nanoseconds: network.nextArrival)
    return (nodes.compactMap(\.instant) + [arrival]).min()
  }

  /// One end of a tunnel forgets its sessions.
  private func makeTrouble() {
    guard Int.random(in: 0..<20, using: &generator) == 0 else { return }
    let hop = Int.random(in: 0..<servers.count, using: &generator)
    if Bool.random(using: &generator) {
      client.hops[hop].tunnel.setUp(false, at: now)
      client.hops[hop].tunnel.setUp(true, at: now)
    } else {
      servers[hop].tunnel.setUp(false, at: now)
      servers[hop].tunnel.setUp(true, at: now)
    }
  }

  private func write(from source: Int, byteCount: Int, isIPv6: Bool) {
    let packet = packets.write(
      from: source, claiming: source, to: 1 - source, target: 1 - source, byteCount: byteCount,
      isIPv6: isIPv6)
    if source == 0 {
      send(client.send([packet], at: now))
    } else {
      send(servers[0].send([packet], at: now), fromServer: 0)
    }
  }

  private func judge(_ packet: [UInt8], at place: Int) {
    switch packet.withUnsafeBytes({ packets.deliver($0, at: place) }) {
    case .delivered(let delivery): arrivedCounts[delivery.source] += 1
    case .wrong(let text): fail(text)
    }
  }

  // MARK: Routing

  private func settle() {
    receive()
    send(client.settle(at: now, wall: wall))
    for hop in servers.indices { send(servers[hop].settle(at: now, wall: wall), fromServer: hop) }
    if client.nextDeadline(at: now).isDue(at: now) { fail("a deadline in the past after settling") }
  }

  /// From the client's process to the network.
  private func send(_ emissions: [Emission]) {
    for emission in emissions {
      launch(emission.bytes, from: .client, to: emission.path.endpoint)
    }
  }

  /// A server's datagrams are sent over the network, or in packets through the tunnel of the next
  /// server.
  private func send(_ emissions: [Emission], fromServer hop: Int) {
    for emission in emissions {
      guard hop < servers.count - 1 else {
        launch(emission.bytes, from: .server, to: emission.path.endpoint)
        continue
      }
      let datagram = HostModel.Datagram(
        payload: emission.bytes, source: address(ofServer: hop),
        destination: emission.path.endpoint, trafficClass: emission.trafficClass)
      for packet in hosts[hop].packets(of: datagram, mtu: mtus[hop]) {
        bring(packet, to: .tun(hop + 1))
      }
    }
  }

  private func bring(_ packet: [UInt8], to place: Place) {
    launch(packet, from: place, to: endpoints[place.number])
  }

  private func launch(_ bytes: [UInt8], from place: Place, to target: Endpoint) {
    network.send(bytes, from: place.number, endpoints[place.number], to: target, at: now)
  }

  private func receive() {
    var arrivals = [[Arrival]](repeating: [], count: endpoints.count)
    while let (place, flight) = network.nextArrival(at: now) {
      arrivals[place].append(
        Arrival(flight.bytes, from: flight.source, isTruncated: flight.isTruncated))
    }
    for packet in client.receive(arrivals[Place.client.number], at: now) { judge(packet, at: 0) }
    takeFromServer(
      servers.count - 1, servers[servers.count - 1].receive(arrivals[Place.server.number], at: now))
    for hop in servers.indices {
      for arrival in arrivals[Place.tun(hop).number] where !arrival.isTruncated {
        send(servers[hop].send([arrival.bytes], at: now), fromServer: hop)
      }
      for arrival in arrivals[Place.host(hop).number] where !arrival.isTruncated {
        guard let datagram = hosts[hop].receive(arrival.bytes),
          datagram.destination == address(ofServer: hop)
        else { continue }
        let inner = Arrival(
          datagram.payload, from: datagram.source, trafficClass: datagram.trafficClass)
        takeFromServer(hop, servers[hop].receive([inner], at: now))
      }
    }
  }

  /// Packets that a server's tunnel delivers: for a program, or routed to the next server.
  private func takeFromServer(_ hop: Int, _ packets: [[UInt8]]) {
    for packet in packets {
      guard hop > 0 else {
        judge(packet, at: 1)
        continue
      }
      switch HostModel.route(packet, mtu: mtus[hop - 1]) {
      case .packets(let packets):
        for packet in packets { bring(packet, to: .host(hop - 1)) }
      case .tooBig(let error):
        bring(error, to: .tun(hop))
      }
    }
  }
}

/// Nested tunnels over a bad network, to a chain of servers.
@Suite struct NestingSimulatorTests {
  /// See `SimulatorTests` for the variables. The default is smaller, since each run has several
  /// tunnels.
  static var seeds: [UInt64] {
    let names = ProcessInfo.processInfo.environment.keys
    let areGiven = names.contains { $0.hasPrefix("CULVERT_SIMULATION_SEED") }
    return areGiven ? SimulatorTests.seeds : Array(1...12)
  }

  @Test(arguments: NestingSimulatorTests.seeds)
  func nestedTunnelsSurviveAnyNetwork(seed: UInt64) throws {
    let route = try NestedRoute(seed: seed)
    route.run()
    #expect(route.problem == nil, "run again with CULVERT_SIMULATION_SEED=\(seed)")
  }
}
