#if !ONE_MODULE
  @testable import Culvert
#endif

/// A tunnel with its two batches in a region of its own, and a saved state to go back to.
final class DoorEnd {
  var tunnel: Tunnel
  var outbound: OutboundBatch
  var inbound: InboundBatch
  private let region: UnsafeMutableRawBufferPointer
  /// Bytes of the region before the batches, which hold nothing between two uses.
  private let stateByteCount: Int
  /// The tunnel itself, and behind it its part of the region.
  private let saved: UnsafeMutableRawPointer

  /// Small, so that full tables and rings are everyday states.
  static let limits = Limits(
    peers: 6, allowedIPs: 24, stagedPacketsPerPeer: 3, stagingSlots: 12, handshakeRing: 24,
    rateLimiterEntries: 8, batchPackets: 8, batchByteCount: 160 * 1024, maximumMTU: 65_475)

  init(seed: UInt64) {
    region = .allocate(byteCount: 1 << 20, alignment: Arena.pageByteCount)
    region.initializeMemory(as: UInt8.self, repeating: 0)
    var arena = Arena(region: region)
    var tunnel = Tunnel(carvingFrom: &arena, limits: DoorEnd.limits)
    stateByteCount = arena.byteCount
    outbound = tunnel.makeOutboundBatch(carvingFrom: &arena)
    inbound = tunnel.makeInboundBatch(carvingFrom: &arena)
    arena.seal()
    tunnel.start(entropy: .seeded(seed))
    self.tunnel = tunnel
    saved = .allocate(byteCount: MemoryLayout<Tunnel>.size + stateByteCount, alignment: 16)
  }

  deinit {
    fenceSlots(false)
    region.deallocate()
    saved.deallocate()
  }

  // MARK: State

  /// A tunnel is plain numbers and pointers into its region: its bytes are its state.
  func save() {
    fenceSlots(false)
    defer { fenceSlots(true) }
    withUnsafeMutablePointer(to: &tunnel) {
      saved.copyMemory(from: $0, byteCount: MemoryLayout<Tunnel>.size)
    }
    (saved + MemoryLayout<Tunnel>.size)
      .copyMemory(from: region.baseAddress!, byteCount: stateByteCount)
  }

  func restore() {
    fenceSlots(false)
    defer { fenceSlots(true) }
    withUnsafeMutablePointer(to: &tunnel) {
      UnsafeMutableRawPointer($0).copyMemory(from: saved, byteCount: MemoryLayout<Tunnel>.size)
    }
    region.baseAddress!
      .copyMemory(from: saved + MemoryLayout<Tunnel>.size, byteCount: stateByteCount)
  }

  /// Under the fuzzer, address sanitizer watches the end of each slot that a handshake message is
  /// copied to.
  private func fenceSlots(_ isOn: Bool) {
    #if FENCES
      guard let first = tunnel.handshakePool.allocate() else { return }
      let base = first.bytes.baseAddress!
      let used = HandshakeEntry(in: first).message - base + WireGuard.initiationByteCount
      let pool = tunnel.handshakePool.state.pointee
      for index in 0..<pool.capacity {
        let end = pool.bytes + index * pool.slotByteCount + used
        Fence.set(end, pool.slotByteCount - used, isOn)
      }
    #endif
  }

  /// The same for the bytes between the datagrams of the inbound batch.
  func fenceInbound(_ isOn: Bool) {
    #if FENCES
      for index in 0..<inbound.count {
        let packet = inbound.packets[index]
        let gap = packet.start + Int(packet.byteCount)
        let isLast = index + 1 == inbound.count
        let end = inbound.bytes.baseAddress! + inbound.bytes.count
        let limit = isLast ? end : inbound.packets[index + 1].start
        if limit > gap { Fence.set(gap, limit - gap, isOn) }
      }
    #endif
  }

  /// Sum of all counters.
  var total: UInt64 {
    var sum: UInt64 = 0
    var rawValue: UInt8 = 0
    while let verdict = Verdict(rawValue: rawValue) {
      sum += tunnel.counters[verdict]
      rawValue += 1
    }
    return sum
  }

  func forEachPeer(_ body: (UnsafeMutablePointer<Peer>) -> Void) {
    var next = tunnel.peerTable.firstPeer
    while let id = next {
      body(tunnel.peer(id)!)
      next = tunnel.peerTable.peer(after: id)
    }
  }
}

#if FENCES
  private enum Fence {
    static func set(_ start: UnsafeMutableRawPointer, _ byteCount: Int, _ isOn: Bool) {
      if isOn { poison(start, byteCount) } else { unpoison(start, byteCount) }
    }
  }

  @_silgen_name("__asan_poison_memory_region")
  private func poison(_ start: UnsafeMutableRawPointer, _ byteCount: Int)
  @_silgen_name("__asan_unpoison_memory_region")
  private func unpoison(_ start: UnsafeMutableRawPointer, _ byteCount: Int)
#endif

extension Tunnel {
  /// A peer, to be read or changed in place while it is configured.
  func peer(_ id: PeerID) -> UnsafeMutablePointer<Peer>? {
    peerTable.contains(id) ? withUnsafeMutablePointer(to: &peers[id]) { $0 } : nil
  }
}
