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
