/// Limits how often something may happen: so many times at once, and after that so many times a
/// second. Its tokens are nanoseconds that have passed.
package struct TokenBucket: BitwiseCopyable, Sendable {
  /// The price of one event in nanoseconds.
  let price: UInt64
  /// The price of a burst: what a full bucket holds.
  let capacity: UInt64
  private(set) var credit: UInt64
  private(set) var last: Instant

  /// A full bucket.
  package init(perSecond rate: UInt64, burst: UInt64) {
    price = nanosecondsPerSecond / rate
    capacity = price * burst
    credit = capacity
    last = Instant(nanoseconds: 0)
  }

  /// A bucket that held `credit` when it was last asked.
  @inline(__always)
  init(price: UInt64, capacity: UInt64, credit: UInt64, last: Instant) {
    self.price = price
    self.capacity = capacity
    self.credit = credit
    self.last = last
  }

  /// Whether one event can be paid for now. A clock that went backwards takes back what it had
  /// given, and the bucket fills from then on (R24).
  @inline(__always)
  mutating func hasEnough(at now: Instant) -> Bool {
    credit = min(capacity, credit &+ min(now.since(last), capacity))
    credit &-= min(credit, last.since(now))
    last = now
    return credit >= price
  }

  /// Pays for one event; only after `hasEnough`.
  @inline(__always)
  mutating func pay() {
    credit &-= price
  }

  /// Pays for one event now. False where it may not happen.
  @inline(__always)
  package mutating func allow(at now: Instant) -> Bool {
    guard hasEnough(at: now) else { return false }
    pay()
    return true
  }
}
