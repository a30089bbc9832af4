import Testing

@testable import Culvert

@Suite struct KnownEndpointsTests {
  private let memory = TestArena()

  private func table(peers: Int) -> KnownEndpoints {
    var known = KnownEndpoints(carvingFrom: &memory.arena, limits: .shrunken(peers: peers))
    known.prepare(seed: 1)
    return known
  }

  private func endpoint(_ number: Int) -> Endpoint {
    Endpoint(address: ipv4(192, 0, 2, UInt8(number & 255)), port: UInt16(1000 + number >> 8))
  }

  @Test func knowsWhatWasInserted() {
    let known = table(peers: 4)
    #expect(!known.contains(endpoint(1)))
    known.insert(endpoint(1))
    #expect(known.contains(endpoint(1)))
    #expect(!known.contains(endpoint(2)))
  }

  @Test func addressPortFamilyAndScopeCount() {
    let known = table(peers: 4)
    let linkLocal = ipv6(0xfe80 << 48, 1)
    known.insert(Endpoint(address: linkLocal, port: 5, scope: 2))
    #expect(known.contains(Endpoint(address: linkLocal, port: 5, scope: 2)))
    #expect(!known.contains(Endpoint(address: linkLocal, port: 5, scope: 3)))
    #expect(!known.contains(Endpoint(address: linkLocal, port: 6, scope: 2)))
    #expect(!known.contains(Endpoint(address: ipv6(0xfe80 << 48, 2), port: 5, scope: 2)))
    known.insert(Endpoint(address: ipv4(0, 0, 0, 0), port: 5))
    #expect(!known.contains(Endpoint(address: ipv6(0, 0), port: 5)))
  }

  @Test func allowsOnePerSecond() {
    let known = table(peers: 4)
    let now = Instant(nanoseconds: 7 * nanosecondsPerSecond)
    #expect(!known.allow(endpoint(1), at: now))
    known.insert(endpoint(1))
    known.insert(endpoint(2))
    #expect(known.allow(endpoint(1), at: now))
    #expect(!known.allow(endpoint(1), at: now.advanced(by: nanosecondsPerSecond - 1)))
    // To be inserted again changes nothing.
    known.insert(endpoint(1))
    #expect(!known.allow(endpoint(1), at: now))
    #expect(known.allow(endpoint(2), at: now))
    #expect(known.allow(endpoint(1), at: now.advanced(by: nanosecondsPerSecond)))
    // Also if the clock goes backwards.
    #expect(known.allow(endpoint(1), at: now))
  }

  @Test func forgetsTheOneThatWasInsertedLongestAgo() {
    // Two sets of four.
    let known = table(peers: 2)
    let all = (0..<64).map(endpoint)
    for endpoint in all {
      known.insert(all[0])
      known.insert(endpoint)
    }
    // Inserted again and again, the first one stays.
    #expect(known.contains(all[0]))
    #expect(known.contains(all[63]))
    let kept = all.filter(known.contains)
    #expect(kept.count >= 7 && kept.count <= 8)
    // Nothing is lost if a known one is inserted.
    for endpoint in kept.reversed() { known.insert(endpoint) }
    #expect(all.filter(known.contains) == kept)
  }
}
