import Testing

@testable import Culvert

@Suite struct TimestampSourceTests {
  static func wall(_ seconds: UInt64, _ nanoseconds: UInt32 = 0) -> WallTime {
    WallTime(seconds: seconds, nanoseconds: nanoseconds)
  }
  /// Some day in 2026.
  static let today: UInt64 = 1_780_000_000
  static let tenYears: UInt64 = 315_360_000

  @Test func bytesAreBigEndian() {
    // 2^62 + 10 + 1, and two quanta.
    let stamp = TAI64N(TimestampSourceTests.wall(1, 0x02ab_cdef))
    var bytes = [UInt8](repeating: 0, count: 12)
    stamp.write(to: &bytes)
    #expect(bytes == TestVectors.bytes("400000000000000b 02000000"))
    #expect(TAI64N(at: bytes) == stamp)
  }

  @Test func comparesLikeItsBytes() {
    var random = Entropy.seeded(3)
    for _ in 0..<2000 {
      var (a, b) = ([UInt8](repeating: 0, count: 12), [UInt8](repeating: 0, count: 12))
      random.fill(&a, byteCount: 12)
      random.fill(&b, byteCount: 12)
      // Often the same first bytes, so that the later bytes decide.
      let same = Int(random.below(13))
      b.replaceSubrange(0..<same, with: a[0..<same])
      #expect((TAI64N(at: a) < TAI64N(at: b)) == a.lexicographicallyPrecedes(b))
    }
  }

  @Test func stampsAreCoarse() {
    let quantum = Policy.timestampQuantum
    #expect(TAI64N(TimestampSourceTests.wall(5, quantum - 1)).nanoseconds == 0)
    #expect(TAI64N(TimestampSourceTests.wall(5, quantum)).nanoseconds == quantum)
    let last = TAI64N(TimestampSourceTests.wall(5, 999_999_999))
    #expect(last.nanoseconds == 59 * quantum)
    #expect(last.next == TAI64N(TimestampSourceTests.wall(6)))
    #expect(TAI64N(TimestampSourceTests.wall(5)).next.nanoseconds == quantum)
  }

  @Test func R24_impossibleTimesDoNotTrap() {
    let end = TAI64N(TimestampSourceTests.wall(.max, .max))
    #expect(end == TAI64N(seconds: (1 << 63) + 10, nanoseconds: 59 << 24))
    var source = Stamper()
    // Floors that no run can have written are ignored.
    for floor in [
      TAI64N(seconds: 1 << 63, nanoseconds: 0), TAI64N(seconds: .max, nanoseconds: 999_999_999),
      TAI64N(seconds: (1 << 62) + 1000, nanoseconds: 1_000_000_000),
    ] {
      source = Stamper(stored: floor)
      #expect(source.next(TimestampSourceTests.wall(7)) == TAI64N(TimestampSourceTests.wall(7)))
    }
    var last = source.next(TimestampSourceTests.wall(.max, .max))
    for _ in 0..<200 {
      let stamp = source.next(TimestampSourceTests.wall(.max, .max))
      #expect(stamp > last)
      last = stamp
    }
    _ = source.source.stampToPersist()
  }

  @Test func R28_stampsNeverGoBack() {
    var random = Entropy.seeded(28)
    var source = Stamper()
    var last = TAI64N.zero
    var clock = TimestampSourceTests.today
    for _ in 0..<20_000 {
      switch random.below(10) {
      case 0: clock &-= random.below(1000)
      case 1: clock &+= random.below(1000)
      case 2: clock &+= 1
      default: break
      }
      let stamp = source.next(
        TimestampSourceTests.wall(clock, UInt32(random.below(1_000_000_000))))
      #expect(stamp > last)
      last = stamp
    }
  }

  @Test func R28_aStandingClockAdvancesByOneQuantum() {
    var source = Stamper()
    let now = TimestampSourceTests.wall(TimestampSourceTests.today, 999_000_000)
    let first = source.next(now)
    let second = source.next(now)
    #expect(first == TAI64N(now))
    #expect(second == first.next)
    #expect(source.next(TimestampSourceTests.wall(0)) == second.next)
    // The clock catches up, and is used again.
    let later = TimestampSourceTests.wall(TimestampSourceTests.today + 60)
    #expect(source.next(later) == TAI64N(later))
  }

  /// Reboots at random times, with and without a clock; only the persisted floor survives.
  @Test(arguments: 1...8 as ClosedRange<UInt64>)
  func R28_stampsGrowAcrossRebootsWithoutAClock(seed: UInt64) {
    var random = Entropy.seeded(seed)
    var floor: TAI64N?
    var last = TAI64N.zero
    var writes = 0
    var uptime: UInt64 = 0
    for _ in 0..<200 {
      var source = Stamper(stored: floor)
      // Without a real-time clock every boot begins in 1970, and NTP may correct it later.
      var clock = random.below(3) == 0 ? TimestampSourceTests.today + uptime : 5
      for _ in 0..<random.below(60) {
        let stamp = source.next(TimestampSourceTests.wall(clock))
        guard stamp > last else {
          Issue.record("seed \(seed): \(stamp) after \(last)")
          return
        }
        last = stamp
        if let told = source.source.stampToPersist() {
          #expect(told.advanced(by: TimestampSource.slack) > stamp)
          floor = told
          writes += 1
        }
        let step = 5 + random.below(120)
        uptime += step
        clock += step
        if random.below(20) == 0 { clock = TimestampSourceTests.today + uptime }
      }
    }
    #expect(writes > 0)
  }

  @Test func R28_theFloorIsPersistedSeldom() {
    var source = Stamper()
    #expect(source.source.stampToPersist() == nil)
    var writes = 0
    // A week of handshakes, one every two minutes.
    for handshake: UInt64 in 0..<(7 * 720) {
      let stamp = source.next(
        TimestampSourceTests.wall(TimestampSourceTests.today + handshake * 120))
      if let floor = source.source.stampToPersist() {
        writes += 1
        #expect(floor == stamp)
      }
      #expect(source.source.stampToPersist() == nil)
    }
    #expect(writes <= 7 * 24 && writes > 6 * 24)
    // With a stopped clock, timestamps increase by quanta only: a day of them.
    writes = 0
    for _ in 0..<720 {
      _ = source.next(TimestampSourceTests.wall(TimestampSourceTests.today))
      if source.source.stampToPersist() != nil { writes += 1 }
    }
    #expect(writes <= 1)
  }

  @Test func R28_frequentRestartsDoNotRunFarAhead() {
    var floor: TAI64N?
    for _ in 0..<100 {
      var source = Stamper(stored: floor)
      _ = source.next(TimestampSourceTests.wall(TimestampSourceTests.today))
      if let told = source.source.stampToPersist() { floor = told }
    }
    let now = TAI64N(TimestampSourceTests.wall(TimestampSourceTests.today))
    let ahead = floor!.advanced(by: TimestampSource.slack).seconds - now.seconds
    #expect(ahead <= 4500 + 100 * 601)
  }

  @Test func R28_anImplausibleJumpIsSentButNotPersisted() {
    var source = Stamper()
    _ = source.next(TimestampSourceTests.wall(TimestampSourceTests.today))
    let floor = source.source.stampToPersist()!
    let far = TimestampSourceTests.wall(
      TimestampSourceTests.today + TimestampSourceTests.tenYears + 2 * 3600)
    #expect(source.next(far) == TAI64N(far))
    #expect(source.source.stampToPersist() == nil)
    // The clock is corrected: the timestamps of this run continue, and are still not persisted.
    let stamp = source.next(TimestampSourceTests.wall(TimestampSourceTests.today + 60))
    #expect(stamp == TAI64N(far).next)
    #expect(source.source.stampToPersist() == nil)
    // After a reboot the clock's time is used, above the floor.
    var next = Stamper(stored: floor)
    let now = TimestampSourceTests.wall(TimestampSourceTests.today + 7200)
    #expect(next.next(now) == TAI64N(now))
    #expect(next.source.stampToPersist() != nil)
  }

  @Test func R28_aPlausibleJumpIsPersisted() {
    // From 1970, when the device booted, to today: the jump is measured from the release, not from
    // 1970.
    var source = Stamper()
    _ = source.next(TimestampSourceTests.wall(3))
    #expect(source.source.stampToPersist() != nil)
    let today = TimestampSourceTests.wall(TimestampSourceTests.today)
    #expect(source.next(today) == TAI64N(today))
    let first = source.source.stampToPersist()
    #expect(first == TAI64N(today))
    // From there, a jump to just under ten years later.
    let later = TimestampSourceTests.wall(
      TimestampSourceTests.today + TimestampSourceTests.tenYears)
    _ = source.next(later)
    let second = source.source.stampToPersist()
    #expect(second == TAI64N(later))
  }

  /// A clean exit stores the last timestamp exactly: the next run is not pushed ahead.
  @Test func R28_aCleanRestartContinuesFromTheClock() {
    var source = Stamper()
    var floor: TAI64N?
    for restart: UInt64 in 0..<100 {
      source = Stamper(stored: floor)
      let now = TimestampSourceTests.wall(TimestampSourceTests.today + restart)
      #expect(source.next(now) == TAI64N(now))
      #expect(source.source.stampToPersist()! <= TAI64N(now))
      floor = source.source.lastToPersist
    }
    // The same without a clock: each run is greater, by a quantum.
    let last = source.last
    source = Stamper(stored: floor)
    #expect(source.next(TimestampSourceTests.wall(0)) == last.next)
  }

  /// A thousand silent peers get an initiation every five seconds.
  @Test func R46_manyPeersDoNotPushTimestampsAheadOfTheClock() {
    var source = TimestampSource()
    var last = [TAI64N](repeating: .zero, count: 1000)
    for millisecond: UInt64 in 0..<60_000 {
      let seconds = TimestampSourceTests.today + millisecond / 1000
      let wall = TimestampSourceTests.wall(seconds, UInt32(millisecond % 1000) * 1_000_000)
      for peer in 0..<1000 where millisecond % 5000 == UInt64(peer) * 5 {
        let stamp = source.next(wall, after: last[peer])
        #expect(stamp > last[peer])
        #expect(stamp == TAI64N(wall))
        last[peer] = stamp
        if let stored = source.stampToPersist() { #expect(stored <= TAI64N(wall)) }
      }
    }
    // All at once, as after the interface comes up.
    let wall = TimestampSourceTests.wall(TimestampSourceTests.today + 61)
    for peer in 0..<1000 { #expect(source.next(wall, after: last[peer]) == TAI64N(wall)) }
  }

  /// A peer whose timestamps are ahead of the clock does not affect the others.
  @Test func R46_timestampsGrowPerPeer() {
    var source = TimestampSource()
    let now = TimestampSourceTests.wall(TimestampSourceTests.today)
    let far = TAI64N(TimestampSourceTests.wall(TimestampSourceTests.today + 1000))
    #expect(source.next(now, after: far) == far.next)
    #expect(source.next(now, after: .zero) == TAI64N(now))
    // A removed peer's timestamp is remembered for all.
    source.raiseFloor(to: far)
    #expect(source.next(now, after: .zero) == far.next)
  }

  @Test func R41_anInitiationWaitsForStorageButNotForLong() {
    var source = TimestampSource()
    source.waitsForStorage = true
    var now = Instant(nanoseconds: 0)
    let wall = TimestampSourceTests.wall(TimestampSourceTests.today)
    let stamp = source.next(wall, after: .zero)
    #expect(source.mustWait(stamp, at: now) == true)
    let stored = source.stampToPersist()!
    source.didPersist(stored)
    #expect(source.mustWait(stamp, at: now) == false)
    // Two hours later the storage hangs: half a second, and then no more.
    let late = TimestampSourceTests.wall(TimestampSourceTests.today + 7200)
    let second = source.next(late, after: stamp)
    #expect(source.stampToPersist() != nil)
    #expect(source.mustWait(second, at: now) == true)
    now = now.advanced(by: TimestampSource.holdTime)
    #expect(source.mustWait(second, at: now) == false)
    now = now.advanced(by: 100 * nanosecondsPerSecond)
    #expect(source.mustWait(second, at: now) == false)
    // An implausible time is never stored, so nothing waits for it.
    let implausible = TimestampSourceTests.wall(
      TimestampSourceTests.today + 2 * TimestampSourceTests.tenYears)
    #expect(source.mustWait(TAI64N(implausible), at: now) == false)
  }

  /// The process that stores timestamps was killed with a request.
  @Test func R41_aLostStorageRequestIsRepeated() {
    var source = TimestampSource()
    source.waitsForStorage = true
    let wall = TimestampSourceTests.wall(TimestampSourceTests.today)
    _ = source.next(wall, after: .zero)
    let stored = source.stampToPersist()
    #expect(stored != nil)
    #expect(source.stampToPersist() == nil)
    source.forgetRequests()
    #expect(source.stampToPersist() == stored)
    // Once it is confirmed, there is nothing to repeat.
    source.didPersist(stored!)
    source.forgetRequests()
    #expect(source.stampToPersist() == nil)
  }
}

/// A source with a single peer.
private struct Stamper {
  var source: TimestampSource
  private(set) var last = TAI64N.zero

  init(stored: TAI64N? = nil) { source = TimestampSource(stored: stored) }

  mutating func next(_ wall: WallTime) -> TAI64N {
    last = source.next(wall, after: last)
    return last
  }
}
