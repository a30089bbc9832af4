/// Fixed-size buffers carved from the arena, handed out as move-only `Slot`s, each of which returns
/// itself to the pool when it is destroyed. No reference count is needed: a slot has one owner.
struct BufferPool: BitwiseCopyable {
  /// The state that the pool and its slots share. It is in the arena, where a slot can reach it.
  struct State: BitwiseCopyable {
    let bytes: UnsafeMutableRawPointer
    let slotByteCount: Int
    /// For each free slot the next free one. `StagedPackets` uses it to link the slots of a queue.
    let links: UnsafeMutablePointer<UInt32>
    let capacity: Int
    var firstFree: UInt32
    var freeCount: Int

    func bytes(of slot: UInt32) -> UnsafeMutableRawBufferPointer {
      UnsafeMutableRawBufferPointer(
        start: bytes + Int(slot) * slotByteCount, count: slotByteCount)
    }

    /// Takes a slot off the free list; `none` if all are in use.
    mutating func allocate() -> UInt32 {
      let slot = firstFree
      guard slot != BufferPool.none else { return slot }
      firstFree = links[Int(slot)]
      freeCount &-= 1
      return slot
    }

    mutating func free(_ slot: UInt32) {
      links[Int(slot)] = firstFree
      firstFree = slot
      freeCount &+= 1
    }
  }

  /// No slot.
  static var none: UInt32 { .max }

  let state: UnsafeMutablePointer<State>
  private let bytes: UnsafeMutableRawPointer
  private let links: UnsafeMutablePointer<UInt32>
  private let slotByteCount: Int
  private let slotCount: Int

  init(
    carvingFrom arena: inout Arena, slots: Int, slotByteCount: Int, owner: StaticString
  ) {
    // Compared as UInt64, because a 32-bit `Int` cannot hold the limit.
    precondition(slots > 0 && UInt64(slots) < UInt64(UInt32.max) && slotByteCount > 0)
    state = arena.carve(State.self, count: 1, owner: owner).baseAddress!
    bytes = arena.carveBytes(slots * slotByteCount, owner: owner).baseAddress!
    links = arena.carve(UInt32.self, count: slots, owner: owner).baseAddress!
    self.slotByteCount = slotByteCount
    slotCount = slots
  }

  /// Builds the free list. Called once, before the first allocation.
  func prepare() {
    for index in 0..<slotCount {
      links[index] = index + 1 < slotCount ? UInt32(index + 1) : BufferPool.none
    }
    state.initialize(
      to: State(
        bytes: bytes, slotByteCount: slotByteCount, links: links, capacity: slotCount,
        firstFree: 0, freeCount: slotCount))
  }

  var freeCount: Int { state.pointee.freeCount }

  /// A free slot; nil if all are in use.
  func allocate() -> Slot? {
    let index = state.pointee.allocate()
    return index == BufferPool.none ? nil : Slot(adopting: index, of: self)
  }
}

/// A buffer of a pool. It is move-only, and returns to the pool when its owner drops it.
struct Slot: ~Copyable {
  private let pool: UnsafeMutablePointer<BufferPool.State>
  private var index: UInt32

  /// Takes over a slot that was detached.
  init(adopting index: UInt32, of pool: BufferPool) {
    self.pool = pool.state
    self.index = index
  }

  /// All of the slot's memory.
  var bytes: UnsafeMutableRawBufferPointer { pool.pointee.bytes(of: index) }

  /// Gives up ownership. The caller keeps the index, and `init(adopting:of:)` turns it into a slot
  /// again.
  consuming func detach() -> UInt32 {
    let detached = index
    // `discard self` needs a frozen type in Embedded Swift; this tells `deinit` to do nothing.
    index = BufferPool.none
    return detached
  }

  deinit {
    if index != BufferPool.none { pool.pointee.free(index) }
  }
}

/// A bounded FIFO of slots. If it is full, `push` returns the slot to its pool and is false.
struct SlotRing: ~Copyable {
  private let pool: BufferPool
  private let entries: UnsafeMutablePointer<UInt32>
  let capacity: Int
  private var first = 0
  private(set) var count = 0

  init(carvingFrom arena: inout Arena, pool: BufferPool, capacity: Int, owner: StaticString) {
    precondition(capacity > 0)
    self.pool = pool
    self.capacity = capacity
    entries = arena.carve(UInt32.self, count: capacity, owner: owner).baseAddress!
  }

  var isEmpty: Bool { count == 0 }

  /// False if the ring is full; the slot has then returned to its pool.
  mutating func push(_ slot: consuming Slot) -> Bool {
    guard count < capacity else { return false }
    var end = first &+ count
    if end >= capacity { end &-= capacity }
    entries[end] = slot.detach()
    count &+= 1
    return true
  }

  mutating func pop() -> Slot? {
    guard count > 0 else { return nil }
    let index = entries[first]
    first = first &+ 1 == capacity ? 0 : first &+ 1
    count &-= 1
    return Slot(adopting: index, of: pool)
  }
}
