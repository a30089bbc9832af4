#if !ONE_MODULE
  @testable import Culvert
#endif

/// A program with one tunnel on a machine with its own clocks: its memory, its configuration, and
/// the timestamp that it has stored. It can crash and start again.
final class SimulatedHost {
  let number: Int
  let limits: Limits
  private(set) var settings: HostSettings
  /// Where the network finds this host.
  var endpoint: Endpoint
  /// The programs' packets are joined where that is possible.
  var joins = false
  /// Stride of the cipher; see `TransportCipher`. 0 means the whole cipher.
  var stride = 0

  private(set) var isRunning = false
  /// What the monotonic clock shows is this ahead of the simulation's.
  private(set) var clockOffset: UInt64 = 0
  /// Nanoseconds that the wall clock is ahead of 2027.
  var wallOffset: Int64 = 0
  var disk = SimulatedDisk()
  /// It does nothing before this time.
  var resume = Instant(nanoseconds: 0)
  /// Datagrams that the tunnel has not read yet.
  var inbox: [Arrival] = []
  var invariants = HostInvariants()

  private let seed: UInt64
  private let batches: TunnelEnd
  private let region: UnsafeMutableRawBufferPointer
  private var end: TunnelEnd!
  private var starts: UInt64 = 0

  private static let guardByteCount = 4096
  private static let guardByte: UInt8 = 0xa5

  /// - Parameter batches: an end whose batches all hosts use in turn.
  init(
    number: Int, seed: UInt64, limits: Limits, batches: TunnelEnd, endpoint: Endpoint,
    privateKey: [UInt8]
  ) {
    self.number = number
    self.seed = seed
    self.limits = limits
    self.batches = batches
    self.endpoint = endpoint
    settings = HostSettings(privateKey: privateKey)
    var arena = Arena.measuring
    _ = Tunnel(carvingFrom: &arena, limits: limits)
    let byteCount = roundUp(arena.byteCount + 16_384, to: Arena.pageByteCount)
    region = .allocate(
      byteCount: byteCount + SimulatedHost.guardByteCount, alignment: Arena.pageByteCount)
  }

  deinit { region.deallocate() }

  // MARK: Parts

  var hop: TunnelHop { end.innermost }
  var tunnel: Tunnel {
    unsafeAddress { UnsafePointer(end.innermost.tunnelAddress) }
    unsafeMutableAddress { end.innermost.tunnelAddress }
  }

  func withPeers(_ body: (UnsafeMutablePointer<Peer>) -> Void) {
    var next = tunnel.firstPeer
    while let id = next {
      let peers = tunnel.peers
      body(withUnsafeMutablePointer(to: &peers[id]) { $0 })
      next = tunnel.peer(after: id)
    }
  }

  /// Whether nothing has written beyond the tunnel's memory.
  var isGuardIntact: Bool {
    region.suffix(SimulatedHost.guardByteCount).allSatisfy { $0 == SimulatedHost.guardByte }
  }

  var publicKey: Key { settings.publicKey }

  // MARK: Clocks

  func local(_ now: Instant) -> Instant { now.advanced(by: clockOffset) }

  func wall(_ now: Instant) -> WallTime {
    let nanoseconds = max(0, Int64(now.nanoseconds) + 1_800_000_000_000_000_000 + wallOffset)
    return WallTime(
      seconds: UInt64(nanoseconds) / nanosecondsPerSecond,
      nanoseconds: UInt32(UInt64(nanoseconds) % nanosecondsPerSecond))
  }

  func leap(_ duration: UInt64) { clockOffset += duration }

  /// When the host must be called next, in the simulation's time.
  func wake(_ now: Instant) -> UInt64 {
    guard isRunning else { return .max }
    let due = tunnel.nextDeadline(at: local(now)).instant?.nanoseconds
    let wake = min(due.map { $0 - min($0, clockOffset) } ?? .max, disk.due)
    return wake == .max ? .max : max(wake, resume.nanoseconds)
  }

  // MARK: Life

  /// Starts the program and configures it from its settings.
  ///
  /// - Parameter clock: what its monotonic clock is ahead.
  func start(at now: Instant, clock: UInt64) {
    clockOffset = clock
    starts += 1
    region.initializeMemory(as: UInt8.self, repeating: 0)
    let usable = region.count - SimulatedHost.guardByteCount
    UnsafeMutableRawBufferPointer(rebasing: region[usable...])
      .initializeMemory(as: UInt8.self, repeating: SimulatedHost.guardByte)
    var arena = Arena(region: UnsafeMutableRawBufferPointer(rebasing: region[..<usable]))
    end = TunnelEnd(carvingFrom: &arena, limits: limits, sharingBatchesOf: batches)
    arena.seal()
    isRunning = true
    invariants = HostInvariants()
    inbox = []
    var generator = SeededGenerator(seed: seed &+ UInt64(number) << 32 &+ starts)
    tunnel.start(entropy: .seeded(generator.next()))
    if stride > 0 { tunnel.cipher = .composed(stride: stride) }
    if let stored = disk.stored { tunnel.restoreTimestamp(stored) }
    if disk.latency > 0 { tunnel.waitForTimestampStorage() }
    tunnel.setMTU(settings.mtu)
    tunnel.setUp(settings.isUp, at: local(now))
    applyPrivateKey(at: now)
    for peer in settings.peers { apply(peer, at: now) }
  }

  /// Ends the program. Its memory is lost; if it ends in an orderly way, it stores its last
  /// timestamp.
  func stop(isOrderly: Bool, at now: Instant) {
    guard isRunning else { return }
    if isOrderly, let stamp = tunnel.lastTimestamp { disk.write(stamp, at: now) }
    disk.crash(isOrderly: isOrderly, at: now)
    isRunning = false
    inbox = []
  }

  // MARK: Configuration

  private func applyPrivateKey(at now: Instant) {
    settings.privateKey.withUnsafeBytes { tunnel.setPrivateKey($0.baseAddress!, at: local(now)) }
  }

  private func apply(_ peer: HostSettings.PeerSettings, at now: Instant) {
    // The table is never full: `Limits.peers` is enough.
    guard let id = try? tunnel.addPeer(peer.key) else { return }
    peer.presharedKey.withUnsafeBytes { tunnel.setPresharedKey($0.baseAddress!, of: id) }
    if let endpoint = peer.endpoint { tunnel.setEndpoint(endpoint, of: id) }
    applyRoutes(to: peer.key)
    tunnel.setPersistentKeepalive(peer.keepalive, of: id, at: local(now))
    tunnel.peerIsConfigured(id, at: local(now))
  }

  private func applyRoutes(to key: Key) {
    guard let id = tunnel.findPeer(key) else { return }
    tunnel.stageReplaceAllowedIPs()
    for host in settings.routes(to: key) {
      for prefix in HostSettings.prefixes(of: host) {
        try? tunnel.stageAllowedIP(prefix, add: true)
      }
    }
    tunnel.commitAllowedIPs(to: id)
  }

  func setPrivateKey(_ key: [UInt8], at now: Instant) {
    settings.privateKey = key
    if isRunning { applyPrivateKey(at: now) }
  }

  func setUp(_ isUp: Bool, at now: Instant) {
    settings.isUp = isUp
    if isRunning { tunnel.setUp(isUp, at: local(now)) }
  }

  func setMTU(_ mtu: Int) {
    settings.mtu = mtu
    if isRunning { tunnel.setMTU(mtu) }
  }

  /// - Parameter host: whose prefixes lead to the peer.
  func add(_ peer: HostSettings.PeerSettings, routing host: Int?, at now: Instant) {
    settings.add(peer)
    if let host { settings.route(host, to: peer.key) }
    if isRunning { apply(peer, at: now) }
  }

  /// Before the start: the peer's address is not in the configuration.
  func forgetEndpoint(of key: Key) { settings.change(key) { $0.endpoint = nil } }

  func remove(_ key: Key) {
    settings.remove(key)
    if isRunning, let id = tunnel.findPeer(key) { tunnel.removePeer(id) }
  }

  func setPresharedKey(_ presharedKey: [UInt8], of key: Key) {
    settings.change(key) { $0.presharedKey = presharedKey }
    guard isRunning, let id = tunnel.findPeer(key) else { return }
    presharedKey.withUnsafeBytes { tunnel.setPresharedKey($0.baseAddress!, of: id) }
  }

  func setEndpoint(_ endpoint: Endpoint, of key: Key, at now: Instant) {
    settings.change(key) { $0.endpoint = endpoint }
    guard isRunning, let id = tunnel.findPeer(key) else { return }
    tunnel.setEndpoint(endpoint, of: id)
    tunnel.peerIsConfigured(id, at: local(now))
  }

  func setKeepalive(_ seconds: UInt16, of key: Key, at now: Instant) {
    settings.change(key) { $0.keepalive = seconds }
    guard isRunning, let id = tunnel.findPeer(key) else { return }
    tunnel.setPersistentKeepalive(seconds, of: id, at: local(now))
  }

  /// Leads a host's prefixes to another peer, or for nil to none.
  func route(_ host: Int, to key: Key?) {
    let before = settings.owners[host]
    settings.route(host, to: key)
    guard isRunning else { return }
    if let key {
      applyRoutes(to: key)
    } else if let before {
      applyRoutes(to: before)
    }
  }

  /// Where the tunnel sends datagrams for this peer.
  func currentEndpoint(of key: Key) -> Endpoint? {
    tunnel.findPeer(key).flatMap { tunnel.status(of: $0)?.endpoint }
  }

  // MARK: Packets

  /// Sends packets that a program writes, in as many batches as they need.
  ///
  /// - Parameter emit: called with each datagram and where it goes. If it returns false, the kernel
  ///   refuses it.
  func write(
    _ packets: [TunPacket], at now: Instant, _ emit: (UnsafeRawBufferPointer, Endpoint) -> Bool
  ) {
    let hop = hop
    var next = 0
    while next < packets.count {
      hop.outbound.reset()
      while next < packets.count, let room = hop.outbound.room(for: packets[next].bytes.count) {
        room.copyBytes(from: packets[next].bytes)
        hop.outbound.append(byteCount: packets[next].bytes.count, offload: packets[next].offload)
        next += 1
      }
      hop.tunnel.plan(&hop.outbound, at: local(now))
      end.send(at: local(now)) { step, _ in
        if step == .sealed { take(emit) }
      }
    }
  }

  private func take(_ emit: (UnsafeRawBufferPointer, Endpoint) -> Bool) {
    let hop = hop
    for output in 0..<hop.outbound.outputCount {
      guard case .datagram(let bytes, let path, _) = hop.outbound.output(output) else { continue }
      if !emit(UnsafeRawBufferPointer(bytes), path.endpoint) { hop.outbound.didFail(output) }
    }
  }

  /// Runs timers and handles handshake messages until nothing is due.
  ///
  /// - Returns: false if that does not end.
  func settle(at now: Instant, _ emit: (UnsafeRawBufferPointer, Endpoint) -> Bool) -> Bool {
    let (local, wall) = (local(now), wall(now))
    while let stamp = disk.finish(at: now) { tunnel.didPersistTimestamp(stamp) }
    for _ in 0..<10_000 {
      guard tunnel.nextDeadline(at: local).isDue(at: local) else { return true }
      end.runTimers(at: local, wall: wall) { step, _ in
        if step == .sealed { take(emit) }
      }
      // If the disk needs no time, no datagram has left the host yet.
      if let stamp = tunnel.timestampToPersist() { disk.write(stamp, at: now) }
    }
    return false
  }

  /// Reads the datagrams in the inbox, in as many batches as they need.
  ///
  /// - Parameter deliver: called with each packet for a program.
  func receive(at now: Instant, _ deliver: (UnsafeRawBufferPointer) -> Void) {
    let hop = hop
    var next = 0
    while next < inbox.count {
      hop.inbound.reset()
      inbox.append(to: &hop.inbound, from: &next)
      hop.inbound.preparesJoining = joins
      end.receive(0, at: local(now)) { step, _ in
        guard step == .delivered else { return }
        if joins {
          takeJoined(deliver)
        } else {
          for index in 0..<hop.inbound.count {
            if let packet = hop.inbound.delivered(index) { deliver(UnsafeRawBufferPointer(packet)) }
          }
        }
      }
    }
    inbox.removeAll(keepingCapacity: true)
  }

  private func takeJoined(_ deliver: (UnsafeRawBufferPointer) -> Void) {
    let hop = hop
    hop.inbound.join(tcp: true, udp: true)
    for group in 0..<hop.inbound.outputCount {
      for packet in TunWrite(group, of: &hop.inbound).packets {
        packet.withUnsafeBytes { deliver($0) }
      }
    }
  }
}
