import Testing

@testable import Culvert

@Suite struct IndexTableTests {
  /// Few buckets and candidates close together: clusters, wrap-around and a full table all the
  /// time.
  @Test(arguments: 0..<20) func R6_indicesAreUniqueAndAgreeWithADictionary(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let memory = TestArena()
    var table = IndexTable(
      carvingFrom: &memory.arena, limits: .shrunken(peers: 1 + Int(seed % 3)))
    table.prepare()
    var model: [UInt32: (PeerID, UInt8)] = [:]
    for round in 0..<2000 as Range<UInt32> {
      let index = UInt32.random(in: 0..<48, using: &random)
      let kind = UInt8(truncatingIfNeeded: round)
      let peer = PeerID(index: round, generation: round &* 3)
      switch random.next() % 5 {
      case 0, 1, 2:
        let mayTake = index != 0 && model[index] == nil && model.count < table.capacity
        let taken = table.insert(index, peer: peer, kind: kind)
        #expect(taken == mayTake)
        if taken { model[index] = (peer, kind) }
      case 3:
        let removed = table.remove(index)
        #expect(removed == (model.removeValue(forKey: index) != nil))
      default:
        let changed = table.setKind(kind, of: index)
        #expect(changed == (model[index] != nil))
        if let (peer, _) = model[index] { model[index] = (peer, kind) }
      }
      // One expectation for all: they are slow.
      let expected = (0..<48 as Range<UInt32>).filter { model[$0] != nil }
      var found: [UInt32] = []
      for index in 0..<48 as Range<UInt32> {
        guard let entry = table.find(index) else { continue }
        let isRight = entry.index == index && entry.peer == model[index]?.0
        if isRight && entry.kind == model[index]?.1 { found.append(index) }
      }
      #expect(found == expected)
      let (count, isFull) = (table.count, table.isFull)
      #expect(count == model.count && isFull == (count == table.capacity))
    }
    withExtendedLifetime(memory) {}
  }

  /// R6: 32 bits count, not only those that choose the bucket.
  @Test func R6_indicesThatDifferInHighBitsOnlyAreToldApart() {
    let memory = TestArena()
    var table = IndexTable(carvingFrom: &memory.arena, limits: .shrunken(peers: 64))
    table.prepare()
    var accepted = 0
    for step in 0..<200 as Range<UInt32> {
      let index = 5 + step * 0x0100_0000
      if table.insert(index, peer: PeerID(index: step, generation: 1), kind: 0) { accepted += 1 }
    }
    // Further from home than this nothing may lie: the work for a datagram is bounded.
    #expect(accepted == 64)
    for step in 0..<200 as Range<UInt32> {
      let found = table.find(5 + step * 0x0100_0000)
      #expect(found?.peer.index == (step < 64 ? step : nil))
    }
    withExtendedLifetime(memory) {}
  }

  @Test func everyPeerGetsItsFour() {
    var random = SeededGenerator(seed: 9)
    let memory = TestArena()
    var table = IndexTable(carvingFrom: &memory.arena, limits: .shrunken(peers: 1000))
    table.prepare()
    var draws = 0
    for peer in 0..<1000 as Range<UInt32> {
      for kind in 0..<4 as Range<UInt8> {
        repeat {
          draws += 1
        } while !table.insert(
          UInt32(truncatingIfNeeded: random.next()), peer: PeerID(index: peer, generation: 1),
          kind: kind)
      }
    }
    let count = table.count
    #expect(count == 4000 && draws < 4010)
    withExtendedLifetime(memory) {}
  }
}
