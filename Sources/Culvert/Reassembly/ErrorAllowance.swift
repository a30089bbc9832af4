/// A token bucket for the ICMP errors about datagrams that were never whole, so that their number
/// does not follow from what comes in (RFC 4443 section 2.4(f)).
struct ErrorAllowance: BitwiseCopyable {
  private static var cost: UInt64 { nanosecondsPerSecond / Policy.timeExceededPerSecond }
  private static var capacity: UInt64 { cost * Policy.timeExceededBurst }
  private var tokens = ErrorAllowance.capacity
  private var last = Instant(nanoseconds: 0)

  /// Whether an error may be sent now. A clock that has gone back brings nothing (R24).
  mutating func isEnough(at now: Instant) -> Bool {
    let earned = min(now.since(last), ErrorAllowance.capacity)
    tokens = min(ErrorAllowance.capacity, tokens &+ earned)
    last = now
    return tokens >= ErrorAllowance.cost
  }

  /// Pays for one; only where there is enough.
  mutating func pay() {
    tokens &-= ErrorAllowance.cost
  }
}
