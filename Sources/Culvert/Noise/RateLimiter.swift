/// Limits handshakes per source (R5), an IPv4 address or an IPv6 /64, under load and after a cookie
/// has proved the source. Each source has a token bucket in a fixed table of small sets; a new
/// source replaces the one of its set that has been silent for longest. A seeded hash decides which
/// sources share a set, so that nobody can aim at one.
struct RateLimiter {
  private struct Bucket: BitwiseCopyable {
    /// The address, or for IPv6 its first half.
    var prefix: UInt64
    /// When the bucket was last used.
    var last: Instant
    /// Nanoseconds saved up; a handshake costs `interval` of them.
    var credit: UInt32
    /// An `IPAddress.Family`, or 0 if there is no bucket.
    var family: UInt32

<<<<<<< HEAD
    /// `TokenBucket.allow`, of a bucket that is stored in 12 bytes.
=======
    /// Pays for a handshake, if there is enough credit: a `TokenBucket` in 12 bytes.
>>>>>>> refs/heads/core
    mutating func pay(at now: Instant) -> Bool {
      var tokens = TokenBucket(
        price: interval, capacity: fullCredit, credit: UInt64(credit), last: last)
      let isEnough = tokens.allow(at: now)
      credit = UInt32(truncatingIfNeeded: tokens.credit)
      last = tokens.last
      return isEnough
    }
  }

  /// Nanoseconds per handshake.
  private static let interval = nanosecondsPerSecond / Policy.handshakesPerSecondPerSource
  private static let fullCredit = interval * Policy.handshakeBurstPerSource
  /// Buckets of a set, which is all that is searched for one packet.
  private static let waysMaximum = 8

  private let buckets: UnsafeMutablePointer<Bucket>
  private let ways: Int
  private let setCount: Int
  private var hash = TableHash(seed: 0)

  /// Carves `limits.rateLimiterEntries` buckets, rounded up to whole sets.
  init(carvingFrom arena: inout Arena, limits: Limits) {
    precondition(limits.rateLimiterEntries > 0 && RateLimiter.fullCredit <= UInt64(UInt32.max))
    ways = min(RateLimiter.waysMaximum, limits.rateLimiterEntries)
    setCount = (limits.rateLimiterEntries + ways - 1) / ways
    buckets =
      arena.carve(Bucket.self, count: setCount * ways, owner: "handshake rate limiter")
      .baseAddress!
  }

  /// Empties the table. Called once, before anything else.
  ///
  /// - Parameter seed: random.
  mutating func prepare(seed: UInt64) {
    hash = TableHash(seed: seed)
    buckets.update(
      repeating: Bucket(prefix: 0, last: Instant(nanoseconds: 0), credit: 0, family: 0),
      count: setCount * ways)
  }

  /// Whether `source` may have a handshake now; if so, its bucket pays for it.
  ///
  /// If the clock goes backwards, the bucket loses what it had earned in that time (R24).
  mutating func allow(_ source: IPAddress, at now: Instant) -> Bool {
    // A dual-stack socket shows IPv4 as ::ffff:0:0/96, all of it one /64.
    let source = source.unmapped
    let family = UInt32(source.family.rawValue)
    let set = buckets + setIndex(of: source.high, family) &* ways
    var victim = 0
    for way in 0..<ways {
      if set[way].family == 0 {
        // Sets fill from the left, and entries are never removed.
        victim = way
        break
      }
      if set[way].prefix == source.high && set[way].family == family {
        return set[way].pay(at: now)
      }
      if set[way].last < set[victim].last { victim = way }
    }
    set[victim] = Bucket(
      prefix: source.high, last: now, credit: UInt32(RateLimiter.fullCredit), family: family)
    return set[victim].pay(at: now)
  }

  @inline(__always)
  private func setIndex(of prefix: UInt64, _ family: UInt32) -> Int {
    // The hash as a fraction of the sets: no division, and below the count.
    let product = UInt64(hash.hash(prefix, UInt64(family))) &* UInt64(truncatingIfNeeded: setCount)
    return Int(truncatingIfNeeded: product >> 32)
  }
}
