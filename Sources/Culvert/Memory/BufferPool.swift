/// Fixed-size buffers carved from the arena, handed out as move-only `Slot`s that return
/// themselves. There is no reference count: the type allows one owner at a time.
struct BufferPool: BitwiseCopyable {
  /// The state that the pool and its slots share. It is in the arena so that a slot can return
  /// itself to it.
  struct State: BitwiseCopyable {
    let bytes: UnsafeMutableRawPointer
    let slotByteCount: Int
    /// The next free slot of each free slot. `StagedPackets` links the slots of a queue with it.
    let links: UnsafeMutablePointer<UInt32>
    let capacity: Int
    var firstFree: UInt32
    var freeCount: Int

    func bytes(of slot: UInt32) -> UnsafeMutableRawBufferPointer {
      UnsafeMutableRawBufferPointer(
        start: bytes + Int(slot) * slotByteCount, count: slotByteCount)
    }

    /// Takes a slot off the free list; `none` when all are in use.
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
    // In 64 bits: an `Int` of 32 could not hold the limit.
    precondition(slots > 0 && UInt64(slots) < UInt64(UInt32.max) && slotByteCount > 0)
    state = arena.carve(State.self, count: 1, owner: owner).baseAddress!
    bytes = arena.carveBytes(slots * slotByteCount, owner: owner).baseAddress!
    links = arena.carve(UInt32.self, count: slots, owner: owner).baseAddress!
    self.slotByteCount = slotByteCount
    slotCount = slots
  }

  /// Builds the free list; once, before the first slot is allocated.
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

  /// A free slot, or nil when all are in use.
  func allocate() -> Slot? {
    let index = state.pointee.allocate()
    return index == BufferPool.none ? nil : Slot(adopting: index, of: self)
  }
}

/// A buffer of a pool. Its holder owns it; the end of its lifetime returns it, on every path.
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

  /// Hands ownership to a queue that keeps the index; `init(adopting:of:)` takes it back.
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

/// A bounded FIFO ring of slots. When it is full, a pushed slot returns to its pool and `push` is
/// false; nothing waits.
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
