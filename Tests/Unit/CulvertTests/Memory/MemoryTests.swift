import Testing

@testable import Culvert

@Suite struct ArenaTests {
  @Test func measuringAndCarvingAgree() {
    var arena = Arena.measuring
    _ = arena.carve(UInt64.self, count: 10, owner: "ten words")
    arena.endSecrets()
    _ = arena.carveBytes(100, owner: "bytes")
    #expect(arena.budget.total == arena.byteCount)
    #expect(arena.secretByteCount == 4096)
  }

  /// The largest limits together, on 32 bits; nothing traps, nothing wraps around.
  @Test func whatCannotBeAddressedIsTheLargestNumber() {
    var arena = Arena.measuring
    _ = arena.carveBytes(100, owner: "bytes")
    _ = arena.carve(UInt64.self, count: .max / 8, owner: "words that just fit by themselves")
    #expect(arena.byteCount == Arena.unaddressable)
    _ = arena.carve(UInt64.self, count: .max / 4, owner: "words that do not")
    arena.endSecrets()
    _ = arena.carveBytes(1, owner: "one more")
    #expect(arena.byteCount == Arena.unaddressable)
    #expect(arena.budget.total == Arena.unaddressable)
  }

  /// What is carved beyond the region would be somebody else's memory. An exit test runs its body
  /// in a process of its own.
  @Test func carvingBeyondTheRegionTraps() async {
    let memory = TestArena(byteCount: 4096)
    _ = memory.arena.carveBytes(4032, owner: "most of it")
    #expect(memory.arena.carveBytes(64, owner: "the rest").count == 64)
    #expect(memory.arena.byteCount == 4096)
    await #expect(processExitsWith: .failure) {
      let memory = TestArena(byteCount: 4096)
      _ = memory.arena.carveBytes(4032, owner: "most of it")
      _ = memory.arena.carveBytes(65, owner: "one too many")
    }
    // The secrets end on a page boundary, which is beyond the region too.
    await #expect(processExitsWith: .failure) {
      let memory = TestArena(byteCount: 4096 + 64)
      _ = memory.arena.carveBytes(4097, owner: "secrets")
      memory.arena.endSecrets()
    }
  }
}

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
    // One ring is smaller than the pool, so that both a full ring and an empty pool occur.
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

/// If an element is smaller than its stride, the compiler loses its alignment on indexing, and a
/// board without unaligned loads then reads every field byte by byte.
@Suite struct ElementStrideTests {
  private func fills<Element: ~Copyable>(_ type: Element.Type) -> Bool {
    MemoryLayout<Element>.size == MemoryLayout<Element>.stride
  }

  @Test func elementsOfTablesFillTheirStride() {
    #expect(fills(Peer.self))
    #expect(fills(PeerEntry.self))
    #expect(fills(IndexTable.Entry.self))
    #expect(fills(AllowedIPNode.self))
    #expect(fills(AllowedIPNode.Links.self))
    #expect(fills(OutboundBatch.Packet.self))
    #expect(fills(InboundBatch.Packet.self))
    #expect(fills(InboundBatch.Arrival.self))
    #expect(fills(BatchSession.self))
    #expect(fills(BatchOutputs.Datagram.self))
    #expect(fills(Joiner.Flow.self))
    #expect(fills(Joiner.Group.self))
    #expect(fills(Flow.self))
    #expect(fills(FragmentedDatagram.self))
  }

  @Test func whatStandsBehindPointersFillsItsStride() {
    #expect(fills(Tunnel.self))
    #expect(fills(OutboundBatch.self))
    #expect(fills(InboundBatch.self))
    #expect(fills(DatagramChannel.self))
  }
}
