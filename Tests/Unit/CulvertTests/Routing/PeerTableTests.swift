import Testing

@testable import Culvert

@Suite struct PeerTableTests {
  @Test(arguments: 0..<20) func agreesWithADictionary(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let capacity = 1 + Int(seed % 8)
    let memory = TestArena()
    var table = PeerTable(carvingFrom: &memory.arena, limits: .shrunken(peers: capacity))
    table.prepare(seed: random.next())
    let keys = (0..<(2 * capacity + 2)).map { _ in random.bytes(32) }
    var model: [[UInt8]: PeerID] = [:]
    var order: [[UInt8]] = []
    var gone: [PeerID] = []
    for _ in 0..<1000 {
      let key = keys.randomElement(using: &random)!
      switch random.next() % 4 {
      case 0, 1:
        let id = key.withUnsafeBytes { table.insert(at: $0.baseAddress!) }
        if let known = model[key] {
          #expect(id == known)
        } else if model.count == capacity {
          #expect(id == nil)
        } else {
          #expect(id != nil)
          model[key] = id
          order.append(key)
        }
      case 2:
        guard let id = model[key] else { break }
        let removed = table.remove(id)
        let again = table.remove(id)
        #expect(removed && !again)
        model[key] = nil
        order.removeAll { $0 == key }
        gone.append(id)
      default:
        if let id = gone.randomElement(using: &random) {
          let isThere = table.contains(id)
          let next = table.peer(after: id)
          #expect(!isThere && next == nil)
        }
      }
      var wrong = 0
      for key in keys {
        let found = key.withUnsafeBytes { table.find(at: $0.baseAddress!) }
        if found != model[key] { wrong += 1 }
      }
      #expect(wrong == 0)
      check(table, model, order, capacity)
    }
    withExtendedLifetime(memory) {}
  }

  private func check(
    _ table: borrowing PeerTable, _ model: [[UInt8]: PeerID], _ order: [[UInt8]], _ capacity: Int
  ) {
    let (count, isFull) = (table.count, table.isFull)
    #expect(count == model.count && isFull == (model.count == capacity))
    var listed: [[UInt8]] = []
    var next = table.firstPeer
    while let id = next, listed.count <= capacity {
      listed.append(Array(UnsafeRawBufferPointer(start: table.key(of: id), count: 32)))
      if table.peer(atPlace: id.index) != id { listed.append([]) }
      next = table.peer(after: id)
    }
    #expect(listed == order)
  }

  /// A listing sees each peer that stays once, whatever is inserted and removed meanwhile.
  @Test(arguments: 0..<20) func R48_aCursorSurvivesRemovals(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let memory = TestArena()
    var table = PeerTable(carvingFrom: &memory.arena, limits: .shrunken(peers: 16))
    table.prepare(seed: 1)
    // The numbers of the order are used up while the table is filled.
    if seed % 2 == 0 { table.lastOrder = .max - UInt32(seed % 10) }
    var peers: [PeerID] = []
    for _ in 0..<12 { if let id = Self.insert(&table, &random) { peers.append(id) } }
    var stayed = Set(peers)
    var listed: [PeerID: Int] = [:]
    var next = table.firstCursor
    while let cursor = next {
      if table.contains(cursor.peer) { listed[cursor.peer, default: 0] += 1 }
      for _ in 0..<random.next() % 4 {
        if random.next() % 2 == 0, let id = Self.insert(&table, &random) {
          peers.append(id)
        } else if let id = peers.randomElement(using: &random) {
          // Often the peer at the cursor, and its neighbours.
          let victim = random.next() % 3 == 0 ? cursor.peer : id
          table.remove(victim)
          stayed.remove(victim)
        }
      }
      next = table.next(after: cursor)
    }
    #expect(stayed.allSatisfy { listed[$0] == 1 })
    #expect(listed.values.allSatisfy { $0 == 1 })
    withExtendedLifetime(memory) {}
  }

  private static func insert(
    _ table: inout PeerTable, _ random: inout SeededGenerator
  ) -> PeerID? {
    random.bytes(32).withUnsafeBytes { table.insert(at: $0.baseAddress!) }
  }

  @Test func aReusedPlaceHasAnotherName() {
    let memory = TestArena()
    var table = PeerTable(carvingFrom: &memory.arena, limits: .shrunken(peers: 1))
    table.prepare(seed: 1)
    let first = [UInt8](repeating: 1, count: 32).withUnsafeBytes {
      table.insert(at: $0.baseAddress!)
    }
    table.remove(first!)
    let second = [UInt8](repeating: 2, count: 32).withUnsafeBytes {
      table.insert(at: $0.baseAddress!)
    }
    #expect(first!.index == second!.index && first!.generation != second!.generation)
    let isThere = table.contains(first!)
    #expect(!isThere)
    let stranger = table.contains(PeerID(index: .max, generation: 1))
    #expect(!stranger)
    withExtendedLifetime(memory) {}
  }

  @Test func measuringTakesAsMuchAsCarving() {
    var measuring = Arena.measuring
    let limits = Limits.shrunken(peers: 100, allowedIPs: 100)
    _ = PeerTable(carvingFrom: &measuring, limits: limits)
    _ = IndexTable(carvingFrom: &measuring, limits: limits)
    _ = AllowedIPs(carvingFrom: &measuring, limits: limits)
    let memory = TestArena()
    _ = PeerTable(carvingFrom: &memory.arena, limits: limits)
    _ = IndexTable(carvingFrom: &memory.arena, limits: limits)
    _ = AllowedIPs(carvingFrom: &memory.arena, limits: limits)
    let (measured, carved) = (measuring.byteCount, memory.arena.byteCount)
    #expect(measured == carved && measured > 0)
  }
}

@Suite struct IndexTableTests {
  /// Few buckets and close candidates: clusters, wrap-around and a full table all the time.
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
      // One expectation for all of them, since #expect is slow.
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

  /// R6: all 32 bits are compared, not only those that choose the bucket.
  @Test func R6_indicesThatDifferInHighBitsOnlyAreToldApart() {
    let memory = TestArena()
    var table = IndexTable(carvingFrom: &memory.arena, limits: .shrunken(peers: 64))
    table.prepare()
    var accepted = 0
    for step in 0..<200 as Range<UInt32> {
      let index = 5 + step * 0x0100_0000
      if table.insert(index, peer: PeerID(index: step, generation: 1), kind: 0) { accepted += 1 }
    }
    // No entry may be further from its bucket than this: the work per datagram is bounded.
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
