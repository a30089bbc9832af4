#if !ONE_MODULE
  @testable import Culvert
#endif

/// A tunnel with its two batches in its own memory region, and a saved state to return to.
final class DoorEnd {
  let end: TunnelEnd
  private let region: UnsafeMutableRawBufferPointer
  private let saved: UnsafeMutableRawPointer

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

  /// Small, so that tables and rings are often full.
  static let limits = Limits(
    peers: 6, allowedIPs: 24, stagedPacketsPerPeer: 3, stagingSlots: 12, handshakeRing: 24,
    rateLimiterEntries: 8, batchPackets: 8, batchByteCount: 160 * 1024, maximumMTU: 65_475)

  init(seed: UInt64) {
    region = .allocate(byteCount: 1 << 20, alignment: Arena.pageByteCount)
    region.initializeMemory(as: UInt8.self, repeating: 0)
    var arena = Arena(region: region)
    end = TunnelEnd(carvingFrom: &arena, limits: DoorEnd.limits)
    arena.seal()
    saved = .allocate(byteCount: end.stateByteCount, alignment: 16)
    tunnel.start(entropy: .seeded(seed))
  }

  deinit {
    fenceSlots(false)
    region.deallocate()
    saved.deallocate()
  }

  // MARK: State

  /// A tunnel is plain numbers and pointers into its region: the region's bytes are its state.
  func save() {
    fenceSlots(false)
    defer { fenceSlots(true) }
    saved.copyMemory(from: region.baseAddress!, byteCount: end.stateByteCount)
  }

  func restore() {
    fenceSlots(false)
    defer { fenceSlots(true) }
    region.baseAddress!.copyMemory(from: saved, byteCount: end.stateByteCount)
  }

  /// Under the fuzzer, the address sanitizer watches the end of each slot that holds a handshake
  /// message.
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

  /// The sum of all counters of packets and messages. An evicted message was counted when it was
  /// queued.
  var total: UInt64 {
    var sum: UInt64 = 0
    var rawValue: UInt8 = 0
    while let verdict = Verdict(rawValue: rawValue) {
      if verdict != .handshakeEvicted { sum += tunnel.counters[verdict] }
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

/// A few datagrams in flight, oldest first, in fixed memory; if it is full, the oldest is lost.
final class DoorMail {
  private static let capacity = 16
  static let datagramByteCount = 2048

  private let bytes = UnsafeMutableRawPointer.allocate(
    byteCount: DoorMail.capacity * DoorMail.datagramByteCount, alignment: 16)
  private let byteCounts = UnsafeMutablePointer<Int>.allocate(capacity: DoorMail.capacity)
  private var first = 0
  private(set) var count = 0

  init() {
    byteCounts.initialize(repeating: 0, count: DoorMail.capacity)
  }

  deinit {
    bytes.deallocate()
    byteCounts.deallocate()
  }

  func clear() {
    first = 0
    count = 0
  }

  /// Datagrams longer than a slot are lost.
  func push(_ datagram: UnsafeRawBufferPointer) {
    guard datagram.count <= DoorMail.datagramByteCount else { return }
    if count == DoorMail.capacity { drop() }
    let slot = (first + count) % DoorMail.capacity
    byteCounts[slot] = datagram.count
    if let start = datagram.baseAddress {
      place(slot).copyMemory(from: start, byteCount: datagram.count)
    }
    count += 1
  }

  /// Copies a datagram to `target`, which has room for the largest. Returns its byte count.
  func copy(_ index: Int, into target: UnsafeMutableRawPointer) -> Int {
    let slot = (first + index) % DoorMail.capacity
    target.copyMemory(from: place(slot), byteCount: byteCounts[slot])
    return byteCounts[slot]
  }

  func drop() {
    guard count > 0 else { return }
    first = (first + 1) % DoorMail.capacity
    count -= 1
  }

  private func place(_ slot: Int) -> UnsafeMutableRawPointer {
    bytes + slot * DoorMail.datagramByteCount
  }
}

extension Tunnel {
  /// A peer, to be read or changed in place while it is configured.
  func peer(_ id: PeerID) -> UnsafeMutablePointer<Peer>? {
    peerTable.contains(id) ? withUnsafeMutablePointer(to: &peers[id]) { $0 } : nil
  }
}
