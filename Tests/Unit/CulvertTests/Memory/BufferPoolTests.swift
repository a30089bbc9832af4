import Testing

@testable import Culvert

/// Slots and rings of slots against arrays.
@Suite struct BufferPoolTests {
  private func makePool(_ memory: TestArena, slots: Int) -> BufferPool {
    let pool = BufferPool(
      carvingFrom: &memory.arena, slots: slots, slotByteCount: 16, owner: "pool")
    pool.prepare()
    return pool
  }

  @Test func everySlotIsGivenOutOnceAndComesBack() {
    let memory = TestArena(byteCount: 1 << 14)
    let pool = makePool(memory, slots: 5)
    var places: Set<UnsafeMutableRawPointer> = []
    for _ in 0..<3 {
      var held: [UInt32] = []
      while let slot = pool.allocate() {
        #expect(slot.bytes.count == 16)
        places.insert(slot.bytes.baseAddress!)
        held.append(slot.detach())
      }
      #expect(Set(held).count == 5 && pool.freeCount == 0)
      for index in held { _ = Slot(adopting: index, of: pool) }
      #expect(pool.freeCount == 5)
    }
    #expect(places.count == 5)
  }

  @Test func aSlotComesBackOnEveryPath() {
    let memory = TestArena(byteCount: 1 << 14)
    let pool = makePool(memory, slots: 2)
    func borrow(_ isEarly: Bool) -> Int {
      guard let slot = pool.allocate() else { return -1 }
      if isEarly { return pool.freeCount }
      return slot.bytes.count
    }
    for _ in 0..<10 {
      #expect(borrow(true) == 1)
      #expect(borrow(false) == 16)
    }
    #expect(pool.freeCount == 2)
    withExtendedLifetime(memory) {}
  }

  @Test(arguments: [1, 2, 3, 4] as [UInt64])
  func ringsAreArrays(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let memory = TestArena(byteCount: 1 << 14)
    let pool = makePool(memory, slots: 6)
    // One ring is smaller than the pool, so that both full ring and empty pool occur.
    var ring = SlotRing(carvingFrom: &memory.arena, pool: pool, capacity: 4, owner: "ring")
    var model: [UInt64] = []
    var held: [UInt32] = []
    for number in 0..<2000 as Range<UInt64> {
      switch generator.next() % 4 {
      case 0, 1:
        guard let slot = pool.allocate() else {
          #expect(model.count + held.count == 6)
          break
        }
        slot.bytes.storeBytes(of: number, as: UInt64.self)
        let isPushed = ring.push(slot)
        #expect(isPushed == (model.count < 4))
        if isPushed { model.append(number) }
      case 2:
        if let slot = ring.pop() {
          #expect(slot.bytes.load(as: UInt64.self) == model.removeFirst())
        } else {
          #expect(model.isEmpty)
        }
      default:
        if generator.next() % 2 == 0, let slot = pool.allocate() {
          held.append(slot.detach())
        } else if let index = held.popLast() {
          _ = Slot(adopting: index, of: pool)
        }
      }
      expect(ring.count == model.count && ring.isEmpty == model.isEmpty)
      #expect(pool.freeCount == 6 - model.count - held.count)
    }
    withExtendedLifetime(memory) {}
  }
}
