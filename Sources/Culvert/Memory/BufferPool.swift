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
  func take() -> Slot? {
    let index = state.pointee.firstFree
    guard index != BufferPool.none else { return nil }
    state.pointee.firstFree = state.pointee.links[Int(index)]
    state.pointee.freeCount &-= 1
    return Slot(adopting: index, of: self)
  }
}
