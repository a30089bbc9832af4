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
}
