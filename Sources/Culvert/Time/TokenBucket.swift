/// A token bucket: limits the burst and the rate of an event. Tokens are counted in nanoseconds:
/// elapsed time adds them, and each event costs a fixed number.
package struct TokenBucket: BitwiseCopyable, Sendable {
  /// The price of one event in nanoseconds.
  let price: UInt64
  /// The price of a whole burst, which is the content of a full bucket.
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

  /// A bucket that held `credit` at `last`.
  @inline(__always)
  init(price: UInt64, capacity: UInt64, credit: UInt64, last: Instant) {
    self.price = price
    self.capacity = capacity
    self.credit = credit
    self.last = last
  }

  /// Whether there is enough credit for one event now. If the clock went backwards, the credit for
  /// that time is taken back, and the bucket fills from the new time on (R24).
  @inline(__always)
  mutating func hasEnough(at now: Instant) -> Bool {
    credit = min(capacity, credit &+ min(now.since(last), capacity))
    credit &-= min(credit, last.since(now))
    last = now
    return credit >= price
  }

  /// Pays for one event. Call it only after `hasEnough` has returned true.
  @inline(__always)
  mutating func pay() {
    credit &-= price
  }

  /// Pays for one event now. Returns false if the event is not allowed.
  @inline(__always)
  package mutating func allow(at now: Instant) -> Bool {
    guard hasEnough(at: now) else { return false }
    pay()
    return true
  }
}
