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
    region.deallocate()
    saved.deallocate()
  }

  /// A tunnel is plain numbers and pointers into its region: its bytes are its state.
  func save() {
    withUnsafeMutablePointer(to: &tunnel) {
      saved.copyMemory(from: $0, byteCount: MemoryLayout<Tunnel>.size)
    }
    (saved + MemoryLayout<Tunnel>.size)
      .copyMemory(from: region.baseAddress!, byteCount: stateByteCount)
  }

  func restore() {
    withUnsafeMutablePointer(to: &tunnel) {
      UnsafeMutableRawPointer($0).copyMemory(from: saved, byteCount: MemoryLayout<Tunnel>.size)
    }
    region.baseAddress!
      .copyMemory(from: saved + MemoryLayout<Tunnel>.size, byteCount: stateByteCount)
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
      body(tunnel.peers + Int(id.index))
      next = tunnel.peerTable.peer(after: id)
    }
  }
}
