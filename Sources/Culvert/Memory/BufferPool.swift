/// Fixed-size buffers carved from the arena, handed out as move-only `Slot`s that give themselves
/// back. There is no reference count: one owner at a time, by type.
struct BufferPool: BitwiseCopyable {
  /// What the pool and its slots share; it lives in the arena so that a slot can find its way back.
  struct State: BitwiseCopyable {
    let bytes: UnsafeMutableRawPointer
    let slotByteCount: Int
    /// Free list: the slot behind each free slot. Of a slot in a queue: the slot behind it there.
    let links: UnsafeMutablePointer<UInt32>
    let capacity: Int
    var firstFree: UInt32
    var freeCount: Int
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
    // In 64 bits: an `Int` of 32 could not hold the limit.
    precondition(slots > 0 && UInt64(slots) < UInt64(UInt32.max) && slotByteCount > 0)
    state = arena.carve(State.self, count: 1, owner: owner).baseAddress!
    bytes = arena.carveBytes(slots * slotByteCount, owner: owner).baseAddress!
    links = arena.carve(UInt32.self, count: slots, owner: owner).baseAddress!
    self.slotByteCount = slotByteCount
    slotCount = slots
  }

  /// Threads the free list; once, before the first slot is taken.
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

  /// A free slot, or nil when all are taken.
  func allocate() -> Slot? {
    let index = state.pointee.firstFree
    guard index != BufferPool.none else { return nil }
    state.pointee.firstFree = state.pointee.links[Int(index)]
    state.pointee.freeCount &-= 1
    return Slot(adopting: index, of: self)
  }
}

/// One buffer of a pool. Whoever holds it owns it; letting go of it gives it back, on every path.
struct Slot: ~Copyable {
  private let pool: UnsafeMutablePointer<BufferPool.State>
  private var index: UInt32

  /// Takes over a slot that `detach` let go of.
  init(adopting index: UInt32, of pool: BufferPool) {
    self.pool = pool.state
    self.index = index
  }

  /// The slot's memory, all of it.
  var bytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(
      start: pool.pointee.bytes + Int(index) * pool.pointee.slotByteCount,
      count: pool.pointee.slotByteCount)
  }

  /// Gives up ownership to a queue that remembers the index; `init(adopting:of:)` takes it back.
  consuming func detach() -> UInt32 {
    let detached = index
    // `discard self` needs a frozen type in Embedded Swift; a mark for `deinit` does the same.
    index = BufferPool.none
    return detached
  }

  deinit {
    guard index != BufferPool.none else { return }
    pool.pointee.links[Int(index)] = pool.pointee.firstFree
    pool.pointee.firstFree = index
    pool.pointee.freeCount &+= 1
  }
}

/// A bounded first-in, first-out ring of slots. When it is full the pushed slot goes back to its
/// pool and the caller is told; nobody waits.
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

  /// False when the ring is full; the slot has then gone back to its pool.
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
