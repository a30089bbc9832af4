/// A token bucket per source of handshakes (R5), an IPv4 address or an IPv6 /64, asked under load
/// once the cookie has proved the source. The buckets stand in a fixed table of small sets; a new
/// source takes the place of the one of its set that has been silent longest. Which sources share
/// a set is decided by a keyed hash, so nobody can aim at a set.
struct RateLimiter {
  private struct Bucket: BitwiseCopyable {
    /// The address, or for IPv6 its first half.
    var prefix: UInt64
    /// When the bucket was last asked.
    var last: Instant
    /// Nanoseconds of waiting saved up; a handshake costs `interval` of them.
    var credit: UInt32
    /// An `IPAddress.Family`, or 0 where there is no bucket.
    var family: UInt32

    /// Pays for a handshake, if there is enough credit: a `TokenBucket` in 12 bytes.
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
  /// Buckets of a set: all that one packet may have to look at.
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

  /// Forgets every source; once, before anything else.
  /// - Parameter seed: random.
  mutating func prepare(seed: UInt64) {
    hash = TableHash(seed: seed)
    buckets.update(
      repeating: Bucket(prefix: 0, last: Instant(nanoseconds: 0), credit: 0, family: 0),
      count: setCount * ways)
  }

  /// Whether `source` may have a handshake now; if so, it is paid for.
  ///
  /// A clock that has gone back adds nothing to a bucket, which fills from then on (R24).
  mutating func allow(_ source: IPAddress, at now: Instant) -> Bool {
    // A dual-stack socket shows IPv4 as ::ffff:0:0/96, all of it one /64.
    let source = source.unmapped
    let family = UInt32(source.family.rawValue)
    let set = buckets + setIndex(of: source.high, family) &* ways
    var victim = 0
    for way in 0..<ways {
      if set[way].family == 0 {
        // Sets fill from the left and are never thinned.
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
