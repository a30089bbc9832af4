/// The packets of one peer that wait for a session: a linked list of slots, oldest packet first. A
/// packet that is larger than a slot takes several consecutive slots. The caller limits both the
/// packets and the slots of a peer.
struct StagedPackets: BitwiseCopyable {
  /// The header of each slot. It holds the packet's byte count in the first slot of the packet, and
  /// 0 in the others.
  private static let headerByteCount = 8
  static let payloadByteCount = Limits.stagingSlotByteCount - headerByteCount

  private var first = BufferPool.none
  private var last = BufferPool.none
  private(set) var packetCount: UInt16 = 0
  private var slotCount: UInt16 = 0

  init() {}

  var isEmpty: Bool { packetCount == 0 }

  static func slots(for byteCount: Int) -> Int {
    max(1, (byteCount + payloadByteCount - 1) / payloadByteCount)
  }

  /// The size of the oldest packet in bytes, 0 for a staged keepalive; nil if nothing is staged.
  func oldestByteCount(in pool: BufferPool) -> Int? {
    packetCount == 0 ? nil : header(of: first, in: pool)
  }

  /// Copies a packet to the end.
  ///
  /// - Returns: false, with nothing changed, if the pool has too few free slots.
  mutating func push(
    _ packet: UnsafeRawPointer, byteCount: Int, into pool: BufferPool
  ) -> Bool {
    let needed = StagedPackets.slots(for: byteCount)
    guard pool.freeCount >= needed, packetCount < .max, Int(slotCount) + needed < Int(UInt16.max)
    else { return false }
    var copied = 0
    for piece in 0..<needed {
      guard let slot = pool.allocate() else { return false }
      let bytes = slot.bytes
      let part = min(StagedPackets.payloadByteCount, byteCount - copied)
      bytes.storeBytes(of: piece == 0 ? UInt64(byteCount) : 0, as: UInt64.self)
      if part > 0 {
        (bytes.baseAddress! + StagedPackets.headerByteCount)
          .copyMemory(from: packet + copied, byteCount: part)
      }
      copied += part
      append(slot.detach(), in: pool)
    }
    packetCount &+= 1
    return true
  }

  /// Removes the oldest packet and copies it to `target`, which must have room for it.
  mutating func pop(into target: UnsafeMutableRawPointer, from pool: BufferPool) {
    let byteCount = header(of: first, in: pool)
    var copied = 0
    for _ in 0..<StagedPackets.slots(for: byteCount) {
      let slot = removeFirst(from: pool)
      let part = min(StagedPackets.payloadByteCount, byteCount - copied)
      if part > 0 {
        (target + copied).copyMemory(
          from: slot.bytes.baseAddress! + StagedPackets.headerByteCount, byteCount: part)
      }
      copied += part
    }
    packetCount &-= 1
  }

  /// Drops the oldest packet.
  mutating func dropOldest(from pool: BufferPool) {
    guard packetCount > 0 else { return }
    for _ in 0..<StagedPackets.slots(for: header(of: first, in: pool)) {
      _ = removeFirst(from: pool)
    }
    packetCount &-= 1
  }

  /// Drops all packets.
  mutating func dropAll(from pool: BufferPool) {
    while packetCount > 0 { dropOldest(from: pool) }
  }

  /// The number of slots in use.
  var heldSlots: Int { Int(slotCount) }

  private func header(of slot: UInt32, in pool: BufferPool) -> Int {
    let state = pool.state.pointee
    return Int(
      (state.bytes + Int(slot) * state.slotByteCount).load(as: UInt64.self))
  }

  private mutating func append(_ slot: UInt32, in pool: BufferPool) {
    let links = pool.state.pointee.links
    links[Int(slot)] = BufferPool.none
    if first == BufferPool.none {
      first = slot
    } else {
      links[Int(last)] = slot
    }
    last = slot
    slotCount &+= 1
  }

  private mutating func removeFirst(from pool: BufferPool) -> Slot {
    let slot = first
    first = pool.state.pointee.links[Int(slot)]
    if first == BufferPool.none { last = BufferPool.none }
    slotCount &-= 1
    return Slot(adopting: slot, of: pool)
  }
}

/// Finds the peer that holds the most staging slots (R52). Peers are in rings, one for each number
/// of slots, so no operation depends on the number of peers.
struct StagingShares: BitwiseCopyable {
  /// A peer, or the head of a ring.
  private struct Link: BitwiseCopyable {
    var previous: UInt32
    var next: UInt32
    /// Slots that the peer holds; 0 for a peer that is in no ring.
    var slotCount: UInt32
    /// Fills the stride (see `Arena.carve`).
    private let padding: UInt32 = 0

    init(alone number: Int) {
      previous = UInt32(truncatingIfNeeded: number)
      next = previous
      slotCount = 0
    }
  }

  /// The peers by place, then the heads by number of slots.
  private let links: UnsafeMutablePointer<Link>
  private let peerCount: Int
  /// Slots that one peer can hold.
  private let maximum: Int
  /// No peer holds more slots than this.
  private var most = 0

  init(carvingFrom arena: inout Arena, limits: Limits) {
    peerCount = limits.peers
    maximum = StagingShares.slotLimit(limits)
    links =
      arena.carve(Link.self, count: peerCount + maximum + 1, owner: "staged packets").baseAddress!
  }

  /// The slots that one peer may hold: enough for one packet of any size.
  static func slotLimit(_ limits: Limits) -> Int {
    max(limits.stagedPacketsPerPeer, StagedPackets.slots(for: limits.maximumMTU))
  }

  /// Empties the rings. Must be called once, before anything else.
  mutating func prepare() {
    for number in 0...peerCount + maximum {
      (links + number).initialize(to: Link(alone: number))
    }
    most = 0
  }

  /// The place of the peer that holds the most slots; of several, the one that has held them
  /// longest. Nil if no slot is in use.
  var largest: UInt32? {
    most == 0 ? nil : links[peerCount &+ most].next
  }

  /// Sets the number of slots that the peer at `place` holds. Takes at most `slotLimit` steps.
  mutating func set(_ place: UInt32, _ slotCount: Int) {
    let place = Int(place)
    let slotCount = min(slotCount, maximum)
    let before = Int(links[place].slotCount)
    guard slotCount != before else { return }
    if before > 0 { unlink(place) }
    links[place].slotCount = UInt32(truncatingIfNeeded: slotCount)
    if slotCount > 0 { append(place, to: peerCount &+ slotCount) }
    most = max(most, slotCount)
    while most > 0, Int(links[peerCount &+ most].next) == peerCount &+ most { most &-= 1 }
  }

  private func unlink(_ place: Int) {
    let link = links[place]
    links[Int(link.previous)].next = link.next
    links[Int(link.next)].previous = link.previous
  }

  private func append(_ place: Int, to head: Int) {
    let last = links[head].previous
    let number = UInt32(truncatingIfNeeded: place)
    links[place].previous = last
    links[place].next = UInt32(truncatingIfNeeded: head)
    links[Int(last)].next = number
    links[head].previous = number
  }
}
