import Foundation
import Testing

@testable import Culvert

/// One end of a tunnel, or of up to four nested ones, with its memory. It records what the tunnels
/// send and deliver, and lets a test interfere between the steps of a lane.
final class TunnelNode {
  let memory: TestArena
  let limits: Limits
  private let end: TunnelEnd
  /// Private key of the innermost tunnel.
  let privateKey: [UInt8]
  /// Where the network finds this node.
  var endpoint: Endpoint
  /// ICMP errors written back into the TUN.
  var replies: [[UInt8]] = []
  /// Packets written to the TUN.
  var delivered: [[UInt8]] = []
  /// Whether packets that continue each other are written joined, and those writes.
  var joins = false
  var writes: [TunWrite] = []
  /// Indices of the datagrams of a batch that the kernel refuses.
  var refuses: (Int) -> Bool = { _ in false }
  /// Inspects or changes the output of each round of `seal` before it is sent.
  var inspect: (inout OutboundBatch) -> Void = { _ in }
  /// Called between two steps of a batch, to do what another thread might do then.
  var betweenSteps: () -> Void = {}
  /// Removals of peers by hop, as seen by `forgetRemovedSenders`.
  private var seenRemovals: [UInt64]

  /// - Parameter hops: tunnels, one inside the other.
  init(
    hops count: Int = 1, seed: UInt64, endpoint: Endpoint, limits: Limits? = nil,
    isUp: Bool = true
  ) {
    _ = Sodium.start()
    let limits = limits ?? (count == 1 ? .roomy : .nested)
    let regions = count == 1 ? 0 : 64 * (limits.reassembledByteCount + 2048)
    let memory = TestArena(
      byteCount: count
        * ((2 << 20) + 4 * limits.batchByteCount + limits.peers * 8192 + regions))
    let end = TunnelEnd(carvingFrom: &memory.arena, hops: count, limits: limits)
    memory.arena.seal()
    var keys: [[UInt8]] = []
    for (index, hop) in end.hops.enumerated() {
      let seed = count == 1 ? seed : seed &* 16 &+ UInt64(index)
      hop.tunnel.start(entropy: .seeded(seed))
      var generator = SeededGenerator(seed: seed ^ 0x6b65_7973)
      keys.append(generator.bytes(WireGuard.keyByteCount))
      keys[index].withUnsafeBytes {
        hop.tunnel.setPrivateKey($0.baseAddress!, at: Instant(nanoseconds: 0))
      }
      hop.tunnel.setUp(isUp, at: Instant(nanoseconds: 0))
    }
    for (index, hop) in end.hops.dropLast().enumerated() {
      hop.channel.start(seed: seed &+ UInt64(index))
      hop.channel.open(firstPort: 51_820)
    }
    seenRemovals = [UInt64](repeating: 0, count: count)
    privateKey = keys[0]
    self.memory = memory
    self.limits = limits
    self.end = end
    self.endpoint = endpoint
  }

  // MARK: Parts

  /// The innermost first.
  var hops: UnsafeMutableBufferPointer<TunnelHop> { end.hops }
  var innermost: TunnelHop { end.innermost }
  var outermost: TunnelHop { end.outermost }
  /// Memory of the tunnels, batches and channels themselves, without their tables and buffers.
  var values: UnsafeRawBufferPointer { end.values }

  /// The tunnel of the innermost hop, which is the only hop of a node with one tunnel.
  var tunnel: Tunnel {
    unsafeAddress { UnsafePointer(end.innermost.tunnelAddress) }
    unsafeMutableAddress { end.innermost.tunnelAddress }
  }
  var outbound: OutboundBatch {
    unsafeAddress { UnsafePointer(end.innermost.outboundAddress) }
    unsafeMutableAddress { end.innermost.outboundAddress }
  }
  var inbound: InboundBatch {
    unsafeAddress { UnsafePointer(end.innermost.inboundAddress) }
    unsafeMutableAddress { end.innermost.inboundAddress }
  }

  var publicKey: Key { innermost.publicKey }
  var firstPeer: PeerID { innermost.firstPeer }

  func count(_ verdict: Verdict) -> UInt64 { innermost.count(verdict) }

  /// A copy of the peer's state.
  func state(_ id: PeerID) -> Peer { tunnel.peer(id)!.pointee }

  func status(of id: PeerID) -> Tunnel.PeerStatus? { tunnel.status(of: id) }
  var indexCount: Int { tunnel.indices.count }
  var freeStagingSlots: Int { tunnel.stagingPool.freeCount }
  var freeHandshakeSlots: Int { tunnel.handshakePool.freeCount }

  /// The 32 bytes of a key.
  func bytes(at key: UnsafeRawPointer) -> [UInt8] {
    [UInt8](UnsafeRawBufferPointer(start: key, count: WireGuard.keyByteCount))
  }

  // MARK: Configuration

  func setPrivateKey(_ key: [UInt8], at now: Instant = Instant(nanoseconds: 0)) {
    key.withUnsafeBytes { tunnel.setPrivateKey($0.baseAddress!, at: now) }
  }

  func setPresharedKey(_ key: [UInt8], of id: PeerID) {
    key.withUnsafeBytes { tunnel.setPresharedKey($0.baseAddress!, of: id) }
  }

  @discardableResult
  func addPeer(_ key: Key, allowed: [IPPrefix], endpoint: Endpoint? = nil) throws -> PeerID {
    try innermost.addPeer(key, allowed: allowed, endpoint: endpoint)
  }

  /// Sets the cipher of each hop. All ciphers must interoperate.
  func setCiphers(_ strides: [Int]) {
    for (index, hop) in hops.enumerated() {
      let stride = strides[index % strides.count]
      hop.tunnel.cipher = stride == 0 ? .whole : .composed(stride: stride)
    }
  }

  // MARK: Outbound

  /// Sends packets that a program writes, in as many batches as they need.
  ///
  /// - Parameter beforeEmit: what happens between `seal` and `emit` of each batch.
  @discardableResult
  func send(
    _ packets: [[UInt8]], at now: Instant, beforeEmit: (() -> Void)? = nil
  ) -> [Emission] {
    send(packets.map { TunPacket($0) }, at: now, beforeEmit: beforeEmit)
  }

  /// The same with packets that may still have to be segmented.
  @discardableResult
  func send(
    _ packets: [TunPacket], at now: Instant, beforeEmit: (() -> Void)? = nil
  ) -> [Emission] {
    var emissions: [Emission] = []
    var next = 0
    while next < packets.count {
      outbound.reset()
      while next < packets.count, let room = outbound.room(for: packets[next].bytes.count) {
        room.copyBytes(from: packets[next].bytes)
        outbound.append(byteCount: packets[next].bytes.count, offload: packets[next].offload)
        next += 1
      }
      emissions += sendBatch(at: now, beforeEmit: beforeEmit)
    }
    return emissions
  }

  /// Plans and sends the packets in the innermost hop's batch.
  func sendBatch(at now: Instant, beforeEmit: (() -> Void)? = nil) -> [Emission] {
    tunnel.plan(&outbound, at: now)
    return record(beforeEmit) { end.send(at: now, $0) }
  }

  /// Runs the control path once.
  func advance(at now: Instant, wall: WallTime) -> [Emission] {
    record { end.runTimers(at: now, wall: wall, $0) }
  }

  /// Runs the control path until nothing is due.
  func settle(at now: Instant, wall: WallTime) -> [Emission] {
    var emissions: [Emission] = []
    for _ in 0..<256 {
      forgetRemovedSenders()
      guard nextDeadline(at: now).isDue(at: now) else { return emissions }
      emissions += advance(at: now, wall: wall)
    }
    Issue.record("the control path does not come to rest")
    return emissions
  }

  func nextDeadline(at now: Instant) -> Deadline { end.nextDeadline(at: now) }

  /// Collects what leaves the outermost hop while `body` runs, and the replies to programs.
  private func record(
    _ beforeEmit: (() -> Void)? = nil, _ body: (TunnelEnd.Observer) -> Void
  ) -> [Emission] {
    var emissions: [Emission] = []
    var sealed = 0
    body { step, index in
      switch step {
      case .carried: betweenSteps()
      case .sealed: takeOutputs(of: index, &emissions, after: &sealed)
      case .allSealed:
        if index == 0 { beforeEmit?() }
        if index == hops.count - 1 { sealed = 0 }
      case .opened, .delivered: break
      }
    }
    return emissions
  }

  /// - Parameter sealed: the number of datagrams of the batch that earlier rounds have sealed.
  private func takeOutputs(
    of index: Int, _ emissions: inout [Emission], after sealed: inout Int
  ) {
    let hop = hops[index]
    let isOutermost = index == hops.count - 1
    if isOutermost { inspect(&hop.outbound) }
    for output in 0..<hop.outbound.outputCount {
      switch hop.outbound.output(output) {
      case .datagram(let bytes, let path, let trafficClass):
        guard isOutermost else { continue }
        if refuses(sealed + output) {
          hop.outbound.didFail(output)
        } else {
          emissions.append(
            Emission(bytes: [UInt8](bytes), path: path, trafficClass: trafficClass))
        }
      case .reply(let bytes):
        if index == 0 { replies.append([UInt8](bytes)) }
      }
    }
    if isOutermost { sealed += hop.outbound.outputCount }
  }

  /// Removes the fragments of removed peers (F10).
  private func forgetRemovedSenders() {
    for index in hops.indices.dropFirst() where hops[index].tunnel.removals != seenRemovals[index] {
      let outer = hops[index]
      seenRemovals[index] = outer.tunnel.removals
      hops[index - 1].channel.reassembler.removeAll(
        fromSenders: { !outer.tunnel.hasSender($0) })
    }
  }

  // MARK: Inbound

  /// Receives datagrams from the network, in as many batches as they need.
  /// - Returns: the delivered packets, which are also added to `delivered`.
  @discardableResult
  func receive(
    _ arrivals: [Arrival], at now: Instant, beforeDeliver: (() -> Void)? = nil
  ) -> [[UInt8]] {
    var packets: [[UInt8]] = []
    var next = 0
    let outermost = outermost
    while next < arrivals.count {
      outermost.inbound.reset()
      arrivals.append(to: &outermost.inbound, from: &next)
      innermost.inbound.preparesJoining = joins
      end.receive(hops.count - 1, at: now) { step, index in
        if step == .opened {
          betweenSteps()
          if index == 0 { beforeDeliver?() }
        } else if step == .delivered, index == 0 {
          packets += joins ? writeJoined() : takeDelivered()
        }
      }
    }
    delivered += packets
    return packets
  }

  private func takeDelivered() -> [[UInt8]] {
    var packets: [[UInt8]] = []
    for index in 0..<inbound.count {
      if let packet = inbound.delivered(index) { packets.append([UInt8](packet)) }
    }
    return packets
  }

  /// Writes the packets joined, and returns the packets that a kernel makes from them.
  private func writeJoined() -> [[UInt8]] {
    inbound.join(tcp: true, udp: true)
    var packets: [[UInt8]] = []
    for group in 0..<inbound.outputCount {
      let write = TunWrite(group, of: &inbound)
      packets += write.packets
      writes.append(write)
    }
    return packets
  }

  // MARK: Secrets

  /// Whether the locked memory holds these bytes anywhere.
  func holdsSecret(_ secret: [UInt8]) -> Bool {
    let secrets = memory.arena.secrets
    let start = secrets.baseAddress!
    return secret.withUnsafeBytes { secret in
      var offset = 0
      while offset + secret.count <= secrets.count {
        // Most places already differ in the first byte, which is quicker to compare.
        if start.byte(offset) == secret[0],
          memcmp(start + offset, secret.baseAddress!, secret.count) == 0
        {
          return true
        }
        offset += 1
      }
      return false
    }
  }
}

extension TunnelHop {
  var publicKey: Key { tunnel.publicKey! }
  var firstPeer: PeerID { tunnel.firstPeer ?? .none }

  func count(_ verdict: Verdict) -> UInt64 { tunnel.counters[verdict] }
  func channelCount(_ verdict: DatagramVerdict) -> UInt64 { channel.counters[verdict] }
  func fragmentCount(_ verdict: FragmentVerdict) -> UInt64 { channel.reassembler.counters[verdict] }

  @discardableResult
  func addPeer(_ key: Key, allowed: [IPPrefix], endpoint: Endpoint? = nil) throws -> PeerID {
    let id = try tunnel.addPeer(key)
    for prefix in allowed { try tunnel.stageAllowedIP(prefix, add: true) }
    tunnel.commitAllowedIPs(to: id)
    if let endpoint { tunnel.setEndpoint(endpoint, of: id) }
    return id
  }
}

extension Limits {
  /// Small, but large enough that a simple exchange drops nothing. One message is less than an
  /// eighth of the handshake ring.
  static var roomy: Limits {
    Limits(
      peers: 4, allowedIPs: 16, stagedPacketsPerPeer: 4, stagingSlots: 40, handshakeRing: 64,
      rateLimiterEntries: 8, batchPackets: 16, batchByteCount: 160 * 1024, maximumMTU: 65_475)
  }

  /// `roomy`, with batches that hold all fragments of the largest packet.
  static var nested: Limits {
    var limits = Limits.roomy
    limits.batchPackets = 64
    return limits
  }

  /// Batches so small that every batch is sealed in several rounds.
  static var narrow: Limits {
    var limits = Limits.roomy
    limits.batchPackets = 7
    limits.batchByteCount = 80 * 1024
    limits.stagedPacketsPerPeer = 8
    return limits
  }
}
