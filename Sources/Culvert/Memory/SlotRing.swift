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
