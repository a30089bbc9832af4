/// A token bucket for the ICMP errors written into the TUN, so that a program that floods an
/// unreachable address is not answered at full rate (RFC 4443 section 2.4(f)).
struct ICMPBudget {
  private static var cost: UInt64 { nanosecondsPerSecond / Policy.icmpPerSecond }
  private static var capacity: UInt64 { cost * Policy.icmpBurst }
  private var tokens = ICMPBudget.capacity
  private var last = Instant(nanoseconds: 0)

  mutating func allow(at now: Instant) -> Bool {
    tokens = min(ICMPBudget.capacity, tokens &+ min(now.since(last), ICMPBudget.capacity))
    last = now
    guard tokens >= ICMPBudget.cost else { return false }
    tokens &-= ICMPBudget.cost
    return true
  }
}
