import Testing

@testable import Culvert

@Suite struct RateLimiterTests {
  static let second = nanosecondsPerSecond
  static let interval = nanosecondsPerSecond / 20

  static func limiter(in memory: TestArena, entries: Int, seed: UInt64 = 1) -> RateLimiter {
    var limits = Profile.tiny.limits
    limits.rateLimiterEntries = entries
    var limiter = RateLimiter(carvingFrom: &memory.arena, limits: limits)
    limiter.prepare(seed: seed)
    return limiter
  }

  /// How many of `tries` handshakes at `now` pass.
  static func passed(
    _ limiter: inout RateLimiter, _ source: IPAddress, at now: UInt64, tries: Int = 10
  ) -> Int {
    (0..<tries).count { _ in limiter.allow(source, at: Instant(nanoseconds: now)) }
  }

  @Test func R5_burstOfFiveThenTwentyASecond() {
    let memory = TestArena()
    var limiter = RateLimiterTests.limiter(in: memory, entries: 64)
    let source = IPAddress(ipv4: 0x0a00_0001)
    let start = 1000 * RateLimiterTests.second
    #expect(RateLimiterTests.passed(&limiter, source, at: start) == 5)
    #expect(RateLimiterTests.passed(&limiter, source, at: start + 49_000_000) == 0)
    #expect(RateLimiterTests.passed(&limiter, source, at: start + 50_000_000) == 1)
    // Refused attempts cost nothing and gain nothing: 20 a second pass, however many are made.
    var count = 0
    for millisecond: UInt64 in 1...1000 {
      let now = start + 50_000_000 + millisecond * nanosecondsPerMillisecond
      count += RateLimiterTests.passed(&limiter, source, at: now, tries: 1)
    }
    #expect(count == 20)
    #expect(
      RateLimiterTests.passed(&limiter, source, at: start + 60 * RateLimiterTests.second) == 5)
  }

  @Test func R5_sourcesAreIPv4AddressesAndIPv6Halves() {
    let memory = TestArena()
    // One set, which just holds the eight sources.
    var limiter = RateLimiterTests.limiter(in: memory, entries: 8)
    let now = RateLimiterTests.second
    let six = IPAddress(ipv6High: 0x2001_0db8_0000_0001, low: 1)
    #expect(RateLimiterTests.passed(&limiter, six, at: now) == 5)
    let neighbour = IPAddress(ipv6High: 0x2001_0db8_0000_0001, low: .max)
    #expect(RateLimiterTests.passed(&limiter, neighbour, at: now) == 0)
    let elsewhere = IPAddress(ipv6High: 0x2001_0db8_0000_0002, low: 1)
    #expect(RateLimiterTests.passed(&limiter, elsewhere, at: now) == 5)
    for host: UInt32 in 1...3 {
      let four = IPAddress(ipv4: 0xc000_0200 | host)
      #expect(RateLimiterTests.passed(&limiter, four, at: now) == 5)
      // The same bits as an IPv6 prefix are another source.
      let alike = IPAddress(ipv6High: four.high, low: 0)
      #expect(RateLimiterTests.passed(&limiter, alike, at: now) == 5)
      // As an IPv4-mapped address of a dual-stack socket, it is the same source.
      let mapped = IPAddress(ipv6High: 0, low: 0xffff_c000_0200 | UInt64(host))
      #expect(RateLimiterTests.passed(&limiter, mapped, at: now) == 0)
    }
  }

  /// For each source, the model keeps the time at which its bucket will be full again. An attempt
  /// passes if that time is at most four intervals ahead of now, one less than the burst.
  @Test(arguments: 1...6 as ClosedRange<UInt64>)
  func R5_agreesWithTheModel(seed: UInt64) {
    let memory = TestArena()
    var limiter = RateLimiterTests.limiter(in: memory, entries: 4096, seed: seed)
    var random = Entropy.seeded(seed &+ 100)
    var full: [IPAddress: UInt64] = [:]
    var now: UInt64 = 0
    var allowed = 0
    for step in 0..<20_000 {
      now += random.below(50) == 0 ? random.below(100_000_000) : random.below(200_000)
      let source =
        random.below(2) == 0
        ? IPAddress(ipv4: UInt32(random.below(10)))
        : IPAddress(ipv6High: random.below(10), low: 0)
      let time = max(full[source] ?? 0, now)
      let expected = time - now <= 4 * RateLimiterTests.interval
      if expected {
        full[source] = time + RateLimiterTests.interval
        allowed += 1
      }
      guard limiter.allow(source, at: Instant(nanoseconds: now)) == expected else {
        Issue.record("seed \(seed), step \(step): not \(expected)")
        return
      }
    }
    #expect(allowed > 1000 && allowed < 19_000)
  }

  /// One full set of eight: the ninth source replaces the one that has been silent longest.
  @Test func R5_theLongestSilentIsEvicted() {
    let memory = TestArena()
    var limiter = RateLimiterTests.limiter(in: memory, entries: 8)
    let sources = (0..<9).map { IPAddress(ipv4: 0x0a00_0000 + UInt32($0)) }
    for (index, source) in sources.prefix(8).enumerated() {
      #expect(RateLimiterTests.passed(&limiter, source, at: UInt64(index) + 1) == 5)
    }
    // Source 0 sends again; source 1 has now been silent longest.
    #expect(RateLimiterTests.passed(&limiter, sources[0], at: 20) == 0)
    #expect(RateLimiterTests.passed(&limiter, sources[8], at: 21) == 5)
    for index in [0, 2, 3, 4, 5, 6, 7, 8] {
      #expect(RateLimiterTests.passed(&limiter, sources[index], at: 22) == 0, "source \(index)")
    }
    #expect(RateLimiterTests.passed(&limiter, sources[1], at: 23) == 5)
  }

  /// The hash spreads the sources: a table of 4096 holds 1500 distinct ones.
  @Test func R5_aTableHoldsManySourcesApart() {
    let memory = TestArena()
    var limiter = RateLimiterTests.limiter(in: memory, entries: 4096)
    for host: UInt32 in 0..<1500 {
      let source = IPAddress(ipv4: host << 8)
      #expect(RateLimiterTests.passed(&limiter, source, at: UInt64(host) + 1) == 5)
    }
    let kept = (0..<1500).count { host in
      RateLimiterTests.passed(&limiter, IPAddress(ipv4: UInt32(host) << 8), at: 2000, tries: 1)
        == 0
    }
    #expect(kept > 1450)
  }

  @Test func R24_aClockThatGoesBackNeverTraps() {
    let memory = TestArena()
    var limiter = RateLimiterTests.limiter(in: memory, entries: 8)
    let source = IPAddress(ipv4: 1)
    #expect(RateLimiterTests.passed(&limiter, source, at: .max) == 5)
    #expect(RateLimiterTests.passed(&limiter, source, at: 100 * RateLimiterTests.second) == 0)
    #expect(RateLimiterTests.passed(&limiter, source, at: 0) == 0)
    // From then on the bucket fills as usual, and is not blocked until the old time returns.
    #expect(RateLimiterTests.passed(&limiter, source, at: RateLimiterTests.interval) == 1)
    #expect(RateLimiterTests.passed(&limiter, source, at: RateLimiterTests.second) == 5)
    var random = Entropy.seeded(5)
    for _ in 0..<10_000 {
      _ = limiter.allow(
        IPAddress(ipv4: UInt32(random.below(20))), at: Instant(nanoseconds: random.uint64()))
    }
  }

  @Test(arguments: [1, 7, 8, 9, 100]) func carvesWhatItIsToldInWholeSets(entries: Int) {
    var limits = Profile.tiny.limits
    limits.rateLimiterEntries = entries
    var arena = Arena.measuring
    _ = RateLimiter(carvingFrom: &arena, limits: limits)
    #expect(arena.byteCount >= entries * 24 && arena.byteCount < (entries + 8) * 24 + 64)
    let memory = TestArena()
    var limiter = RateLimiterTests.limiter(in: memory, entries: entries)
    for host: UInt32 in 0..<500 {
      let source = IPAddress(ipv4: host)
      #expect(RateLimiterTests.passed(&limiter, source, at: UInt64(host), tries: 1) == 1)
    }
  }
}
