import Foundation
import Testing

@testable import Culvert

/// One tunnel with its memory and its batches, driven just as the shell's lanes drive it.
final class TunnelNode {
  let memory: TestArena
  let limits: Limits
  let privateKey: [UInt8]
  var tunnel: Tunnel
  var outbound: OutboundBatch
  var inbound: InboundBatch
  /// Where the network finds this node.
  var endpoint: Endpoint
  /// ICMP errors written back into the TUN.
  var replies: [[UInt8]] = []
  /// Packets written to the TUN.
  var delivered: [[UInt8]] = []
  /// Whether packets that continue each other are written joined, and what was written so.
  var joins = false
  var writes: [TunWrite] = []
  /// Indices of the datagrams of a batch that the kernel refuses.
  var refuses: (Int) -> Bool = { _ in false }
  /// Looks at, or does something to, what each round of `seal` has made, before it is sent.
  var inspect: (inout OutboundBatch) -> Void = { _ in }

  init(seed: UInt64, endpoint: Endpoint, limits: Limits = .roomy, isUp: Bool = true) {
    _ = Sodium.start()
    let memory = TestArena(byteCount: 1 << 20)
    var tunnel = Tunnel(carvingFrom: &memory.arena, limits: limits)
    outbound = tunnel.makeOutboundBatch(carvingFrom: &memory.arena)
    inbound = tunnel.makeInboundBatch(carvingFrom: &memory.arena)
    memory.arena.seal()
    tunnel.start(entropy: .seeded(seed))
    var generator = SeededGenerator(seed: seed ^ 0x6b65_7973)
    privateKey = generator.bytes(WireGuard.keyByteCount)
    privateKey.withUnsafeBytes { tunnel.setPrivateKey($0.baseAddress!) }
    tunnel.setUp(isUp, at: Instant(nanoseconds: 0))
    self.memory = memory
    self.limits = limits
    self.tunnel = tunnel
    self.endpoint = endpoint
  }

  var publicKey: Key { tunnel.publicKey! }

  func count(_ verdict: Verdict) -> UInt64 { tunnel.counters[verdict] }

  /// The peer's state, for a look inside.
  func state(_ id: PeerID) -> Peer { tunnel.peer(id)!.pointee }

  func status(of id: PeerID) -> Tunnel.PeerStatus? { tunnel.status(of: id) }
  var firstPeer: PeerID { tunnel.firstPeer ?? .none }
  var indexCount: Int { tunnel.indices.count }
  var freeStagingSlots: Int { tunnel.stagingPool.freeCount }
  var freeHandshakeSlots: Int { tunnel.handshakePool.freeCount }

  /// The 32 bytes of a key.
  func bytes(at key: UnsafeRawPointer) -> [UInt8] {
    [UInt8](UnsafeRawBufferPointer(start: key, count: WireGuard.keyByteCount))
  }

  // MARK: Configuration

  func setPrivateKey(_ key: [UInt8]) {
    key.withUnsafeBytes { tunnel.setPrivateKey($0.baseAddress!) }
  }

  func setPresharedKey(_ key: [UInt8], of id: PeerID) {
    key.withUnsafeBytes { tunnel.setPresharedKey($0.baseAddress!, of: id) }
  }

  @discardableResult
  func addPeer(_ key: Key, allowed: [IPPrefix], endpoint: Endpoint? = nil) throws -> PeerID {
    let id = try tunnel.addPeer(key)
    for prefix in allowed { try tunnel.stageAllowedIP(prefix, add: true) }
    tunnel.commitAllowedIPs(to: id)
    if let endpoint { tunnel.setEndpoint(endpoint, of: id) }
    return id
  }

  // MARK: Lanes

  /// Packets that a program writes, in as many batches as they need.
  ///
  /// - Parameter beforeEmit: what happens while the first batch is out of the tunnel's hands.
  @discardableResult
  func send(
    _ packets: [[UInt8]], at now: Instant, beforeEmit: (() -> Void)? = nil
  ) -> [Emission] {
    send(packets.map { TunPacket($0) }, at: now, beforeEmit: beforeEmit)
  }

  /// The same with packets that are still to be cut.
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
      tunnel.plan(&outbound, at: now)
      emissions += finish(at: now, beforeEmit: beforeEmit)
    }
    return emissions
  }

  /// Datagrams that come from the network, in as many batches as they need.
  /// - Returns: what was delivered, which also goes to `delivered`.
  @discardableResult
  func receive(
    _ arrivals: [Arrival], at now: Instant, beforeDeliver: (() -> Void)? = nil
  ) -> [[UInt8]] {
    var packets: [[UInt8]] = []
    var next = 0
    while next < arrivals.count {
      inbound.reset()
      while next < arrivals.count, let room = inbound.room {
        let arrival = arrivals[next]
        room.copyBytes(from: arrival.bytes)
        inbound.append(
          byteCount: arrival.bytes.count, from: arrival.path, trafficClass: arrival.trafficClass,
          isTruncated: arrival.isTruncated, segmentByteCount: arrival.segmentByteCount)
        next += 1
      }
      inbound.preparesJoining = joins
      tunnel.accept(&inbound, at: now)
      inbound.open()
      beforeDeliver?()
      tunnel.deliver(&inbound, at: now)
      packets += joins ? writeJoined() : takeDelivered()
      inbound.reset()
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

  /// The packets that a kernel makes of what is written joined.
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

  /// One turn of the control path.
  func advance(at now: Instant, wall: WallTime) -> [Emission] {
    outbound.reset()
    tunnel.runTimers(into: &outbound, at: now, wall: wall)
    return finish(at: now, beforeEmit: nil)
  }

  /// Turns of the control path until nothing is due.
  func settle(at now: Instant, wall: WallTime) -> [Emission] {
    var emissions: [Emission] = []
    for _ in 0..<256 {
      guard nextDeadline(at: now).isDue(at: now) else { return emissions }
      emissions += advance(at: now, wall: wall)
    }
    Issue.record("the control path does not come to rest")
    return emissions
  }

  func nextDeadline(at now: Instant) -> Deadline { tunnel.nextDeadline(at: now) }

  private func finish(at now: Instant, beforeEmit: (() -> Void)?) -> [Emission] {
    var emissions: [Emission] = []
    var sealed = 0
    while outbound.seal() {
      inspect(&outbound)
      for index in 0..<outbound.outputCount {
        switch outbound.output(index) {
        case .datagram(let bytes, let path, let trafficClass):
          if refuses(sealed + index) {
            outbound.didFail(index)
          } else {
            emissions.append(
              Emission(bytes: [UInt8](bytes), path: path, trafficClass: trafficClass))
          }
        case .reply(let bytes): replies.append([UInt8](bytes))
        }
      }
      sealed += outbound.outputCount
    }
    beforeEmit?()
    tunnel.emit(&outbound, at: now)
    outbound.reset()
    return emissions
  }

  // MARK: Secrets

  /// Whether the locked memory holds these bytes anywhere.
  func holdsSecret(_ secret: [UInt8]) -> Bool {
    let secrets = memory.arena.secrets
    let start = secrets.baseAddress!
    return secret.withUnsafeBytes { secret in
      var offset = 0
      while offset + secret.count <= secrets.count {
        // Most places differ in the first byte, which is quicker to see.
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

extension Limits {
  /// Small, but with room enough that nothing is dropped for want of it in a simple exchange; the
  /// handshake ring is not an eighth full of one message.
  static var roomy: Limits {
    Limits(
      peers: 4, allowedIPs: 16, stagedPacketsPerPeer: 4, stagingSlots: 40, handshakeRing: 64,
      rateLimiterEntries: 8, batchPackets: 16, batchByteCount: 160 * 1024, maximumMTU: 65_475)
  }
}
