/// Limits handshakes per source (R5), which is an IPv4 address or an IPv6 /64. It is used under
/// load, after a cookie has proved that the source is genuine. Each source has a token bucket in a
/// set-associative table of fixed size. A new source replaces the source of its set that has been
/// silent for longest. A seeded hash determines the set, so that an attacker cannot choose sources
/// that share a set.
struct RateLimiter {
  private struct Bucket: BitwiseCopyable {
    /// The IPv4 address, or the first half of the IPv6 address.
    var prefix: UInt64
    /// When the bucket was last used.
    var last: Instant
    /// The accumulated credit in nanoseconds; a handshake costs `interval`.
    var credit: UInt32
    /// An `IPAddress.Family`, or 0 if the bucket is unused.
    var family: UInt32

    /// Pays for a handshake if there is enough credit. A bucket is a `TokenBucket` without the
    /// fields that are constant.
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
  /// The largest number of buckets in a set. A packet searches only one set.
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

  /// Empties the table. Must be called once, before anything else.
  ///
  /// - Parameter seed: a random number.
  mutating func prepare(seed: UInt64) {
    hash = TableHash(seed: seed)
    buckets.update(
      repeating: Bucket(prefix: 0, last: Instant(nanoseconds: 0), credit: 0, family: 0),
      count: setCount * ways)
  }

  /// Whether a handshake from `source` may be processed now. If so, its bucket pays for it.
  ///
  /// If the clock goes backwards, the bucket loses the credit that it had earned in that time
  /// (R24).
  mutating func allow(_ source: IPAddress, at now: Instant) -> Bool {
    // A dual-stack socket reports IPv4 addresses as ::ffff:0:0/96, all of which are in one /64.
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
    // Scales the hash to the number of sets without a division.
    let product = UInt64(hash.hash(prefix, UInt64(family))) &* UInt64(truncatingIfNeeded: setCount)
    return Int(truncatingIfNeeded: product >> 32)
  }
}
