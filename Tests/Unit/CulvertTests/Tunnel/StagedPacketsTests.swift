import Testing

@testable import Culvert

/// Chains of slots against arrays of packets; two peers share the pool.
@Suite struct StagedPacketsTests {
  private static let slots = 12
  private static let lengths = [
    0, 1, 20, 2039, 2040, 2041, 4080, 4081, 9000, 2040 * 12, 2040 * 12 + 1,
  ]

  @Test(arguments: Array(1...8) as [UInt64])
  func chainsAreArrays(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let memory = TestArena(byteCount: 1 << 16)
    let pool = BufferPool(
      carvingFrom: &memory.arena, slots: StagedPacketsTests.slots,
      slotByteCount: Limits.stagingSlotByteCount, owner: "staging")
    pool.prepare()
    var chains = [StagedPackets(), StagedPackets()]
    var models: [[[UInt8]]] = [[], []]
    for step in 0..<800 {
      let which = Int(generator.next() % 2)
      switch generator.next() % 8 {
      case 0..<5:
        let lengths = StagedPacketsTests.lengths
        let length = lengths[Int(generator.next() % UInt64(lengths.count))]
        let packet = [UInt8](repeating: UInt8(truncatingIfNeeded: step), count: length)
        let fits = max(1, (length + 2039) / 2040) <= pool.freeCount
        #expect(chains[which].push(packet, byteCount: length, into: pool) == fits)
        if fits { models[which].append(packet) }
      case 5, 6:
        guard let length = chains[which].oldestByteCount(in: pool) else {
          #expect(models[which].isEmpty)
          break
        }
        var packet = [UInt8](repeating: 0xff, count: length)
        packet.withUnsafeMutableBytes { bytes in
          // An empty array has no address, and an empty packet is a keepalive.
          var nothing: UInt8 = 0
          withUnsafeMutableBytes(of: &nothing) {
            chains[which].pop(into: bytes.baseAddress ?? $0.baseAddress!, from: pool)
          }
        }
        #expect(packet == models[which].removeFirst())
      default:
        if generator.next() % 4 == 0 {
          chains[which].dropAll(from: pool)
          models[which] = []
        } else {
          chains[which].dropOldest(from: pool)
          if !models[which].isEmpty { models[which].removeFirst() }
        }
      }
      check(chains, models, pool)
    }
    withExtendedLifetime(memory) {}
  }

  private func check(_ chains: [StagedPackets], _ models: [[[UInt8]]], _ pool: BufferPool) {
    var held = 0
    for (chain, model) in zip(chains, models) {
      #expect(Int(chain.packetCount) == model.count && chain.isEmpty == model.isEmpty)
      #expect(chain.oldestByteCount(in: pool) == model.first?.count)
      let slots = model.reduce(0) { $0 + StagedPackets.slots(for: $1.count) }
      #expect(chain.heldSlots == slots)
      held += slots
    }
    #expect(pool.freeCount == StagedPacketsTests.slots - held)
  }
}
