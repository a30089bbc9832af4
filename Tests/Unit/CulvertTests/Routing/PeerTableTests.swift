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
