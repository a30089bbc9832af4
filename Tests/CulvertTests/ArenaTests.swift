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
}
