import Testing

@testable import Culvert

/// A hub, many clients that connect to it at once, and a live peer beside them. Time is virtual.
/// The hub takes one turn per millisecond, which is about the time that the handshakes of a turn
/// take.
final class ReconnectStorm {
  private let hub: TunnelNode
  private let live: TunnelNode
  /// The clients share an arena and the batches.
  private let memory: TestArena
  private var clients: [TunnelEnd] = []
  private var peersOfHub: [PeerID] = []
  /// When each client next has something to do.
  private var deadlines: [Deadline] = []
  private var toHub: [Arrival] = []
  private var now = Instant(nanoseconds: 1_000 * nanosecondsPerSecond)
  private var start = Instant(nanoseconds: 1_000 * nanosecondsPerSecond)
  private var nextPacket = Instant(nanoseconds: 0)

  /// The most key agreements, and the most messages sent, in a turn of the hub.
  private(set) var mostAgreements: UInt64 = 0
  private(set) var mostMessages = 0
  /// Packets of the live peer, and those that the hub answered at once.
  private(set) var asked = 0
  private(set) var answered = 0

  private static let packetInterval = 10 * nanosecondsPerMillisecond
  private static let agreements: [Verdict] = [
    .handshakeAccepted, .handshakeFailed, .handshakeReplayed, .lowOrderPoint, .unknownPeer,
  ]

  /// - Parameter ring: messages that the hub can queue.
  init(clients count: Int, ring: Int) throws {
    var limits = Limits.roomy
    limits.peers = count + 1
    limits.handshakeRing = ring
    limits.rateLimiterEntries = 2 * count
    limits.batchPackets = 128
    hub = TunnelNode(seed: 1, endpoint: TunnelPair.network(1), limits: limits)
    live = TunnelNode(seed: 2, endpoint: TunnelPair.network(2))
    memory = TestArena(byteCount: (2 << 20) + count * 32 * 1024)
    let small = Limits(
      peers: 1, allowedIPs: 1, stagedPacketsPerPeer: 1, stagingSlots: 2, handshakeRing: 8,
      rateLimiterEntries: 8, batchPackets: 16, batchByteCount: 80 * 1024, maximumMTU: 1500)
    for index in 0..<count {
      clients.append(
        TunnelEnd(
          carvingFrom: &memory.arena, limits: small, sharingBatchesOf: clients.first,
          endsSecrets: index == 0))
    }
    memory.arena.seal()
    try introduce()
  }

  private func introduce() throws {
    try live.addPeer(
      hub.publicKey, allowed: TunnelPair.prefixes(0, 1), endpoint: hub.endpoint)
    try hub.addPeer(live.publicKey, allowed: TunnelPair.prefixes(0, 2))
    for (index, client) in clients.enumerated() {
      let hop = client.innermost
      hop.tunnel.start(entropy: .seeded(UInt64(index)))
      var generator = SeededGenerator(seed: UInt64(1_000_000 + index))
      generator.bytes(WireGuard.keyByteCount).withUnsafeBytes {
        hop.tunnel.setPrivateKey($0.baseAddress!, at: now)
      }
      hop.tunnel.setUp(true, at: now)
      try hop.addPeer(hub.publicKey, allowed: [], endpoint: hub.endpoint)
      peersOfHub.append(try hub.addPeer(hop.publicKey, allowed: []))
      deadlines.append(.never)
    }
  }

  private var wall: WallTime {
    WallTime(
      seconds: 1_800_000_000 + now.nanoseconds / nanosecondsPerSecond,
      nanoseconds: UInt32(now.nanoseconds % nanosecondsPerSecond))
  }

  private func endpoint(of client: Int) -> Endpoint {
    Endpoint(address: ipv4(198, 18, UInt8(client >> 8), UInt8(client & 255)), port: 51_820)
  }

  private func client(at endpoint: Endpoint) -> Int {
    Int(endpoint.address.high >> 32 & 0xffff)
  }

  /// Clients whose session has begun and been confirmed since the start of the storm.
  var sessions: Int {
    peersOfHub.count { hub.state($0).lastHandshake.map { $0 >= start } ?? false }
  }

  var isAtRest: Bool {
    hub.tunnel.queuedHandshakes == 0 && hub.freeHandshakeSlots == hub.limits.handshakeRing
  }

  /// Each client sends an initiation now. Runs until all have a session, or until the time is over.
  ///
  /// - Returns: whether all have one.
  func run(seconds: UInt64) -> Bool {
    start = now
    let end = now.advanced(by: seconds * nanosecondsPerSecond)
    for (index, client) in clients.enumerated() {
      let peer = client.innermost.tunnel.peer(client.innermost.firstPeer)!
      peer.pointee.timers.forgetInitiation()
      peer.pointee.timers.wantInitiation(at: now)
      client.innermost.tunnel.reschedule(&peer.pointee)
      deadlines[index] = Deadline(now)
    }
    while now < end {
      for index in clients.indices where deadlines[index].isDue(at: now) { runTimers(of: index) }
      hub.receive(toHub, at: now)
      toHub = []
      if nextPacket <= now { exchangePackets() }
      takeTurn()
      let isBusy = hub.nextDeadline(at: now).isDue(at: now) || !toHub.isEmpty
      if !isBusy, sessions == clients.count { return true }
      let millisecond = now.advanced(by: nanosecondsPerMillisecond)
      now = isBusy ? millisecond : max(millisecond, min(nextTime, end))
    }
    return false
  }

  private var nextTime: Instant {
    let deadlines = deadlines + [hub.nextDeadline(at: now)]
    return min(deadlines.compactMap(\.instant).min() ?? nextPacket, nextPacket)
  }

  // MARK: Clients

  private func runTimers(of index: Int) {
    let client = clients[index]
    let hop = client.innermost
    client.runTimers(at: now, wall: wall) { step, _ in
      guard step == .sealed else { return }
      for output in 0..<hop.outbound.outputCount {
        guard case .datagram(let bytes, _, _) = hop.outbound.output(output) else { continue }
        toHub.append(Arrival([UInt8](bytes), from: endpoint(of: index)))
      }
    }
    deadlines[index] = client.nextDeadline(at: now)
  }

  private func receive(_ emission: Emission, at index: Int) {
    let hop = clients[index].innermost
    hop.inbound.reset()
    hop.inbound.room!.copyBytes(from: emission.bytes)
    hop.inbound.append(
      byteCount: emission.bytes.count, from: Path(to: hub.endpoint), trafficClass: 0,
      isTruncated: false)
    clients[index].receive(0, at: now) { _, _ in }
    deadlines[index] = clients[index].nextDeadline(at: now)
  }

  // MARK: Hub

  private func takeTurn() {
    guard hub.nextDeadline(at: now).isDue(at: now) else { return }
    let before = agreements
    let emissions = hub.advance(at: now, wall: wall)
    mostAgreements = max(mostAgreements, agreements - before)
    mostMessages = max(mostMessages, emissions.count { $0.type != 4 })
    for emission in emissions {
      if emission.path.endpoint == live.endpoint {
        live.receive([Arrival(emission.bytes, from: hub.endpoint)], at: now)
      } else {
        receive(emission, at: client(at: emission.path.endpoint))
      }
    }
  }

  private var agreements: UInt64 {
    ReconnectStorm.agreements.reduce(0) { $0 + hub.count($1) }
  }

  // MARK: The live peer

  /// The live peer opens its session.
  func connect() {
    for _ in 0..<4 {
      hub.receive(arrivals(live.send([TunnelPair.packet([1], fromA: false)], at: now)), at: now)
      hub.receive(arrivals(live.settle(at: now, wall: wall)), at: now)
      for emission in hub.settle(at: now, wall: wall) {
        live.receive([Arrival(emission.bytes, from: hub.endpoint)], at: now)
      }
    }
    hub.delivered = []
  }

  private func arrivals(_ emissions: [Emission]) -> [Arrival] {
    emissions.map { Arrival($0.bytes, from: live.endpoint) }
  }

  private func exchangePackets() {
    nextPacket = now.advanced(by: ReconnectStorm.packetInterval)
    asked += 1
    let request = live.send([TunnelPair.packet([2], fromA: false)], at: now)
    guard !hub.receive(arrivals(request), at: now).isEmpty else { return }
    for emission in hub.send([TunnelPair.packet([3])], at: now) {
      answered += live.receive([Arrival(emission.bytes, from: hub.endpoint)], at: now).count
    }
  }
}
