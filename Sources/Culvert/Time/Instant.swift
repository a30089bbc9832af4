/// A point on the monotonic clock that goes on during sleep (CLOCK_BOOTTIME), in nanoseconds.
/// The core never reads a clock; the shell passes an instant with each call.
public struct Instant: Comparable, Hashable, Sendable, BitwiseCopyable {
  public var nanoseconds: UInt64

  @inline(__always)
  public init(nanoseconds: UInt64) {
    self.nanoseconds = nanoseconds
  }

  @inline(__always)
  public static func < (left: Instant, right: Instant) -> Bool {
    left.nanoseconds < right.nanoseconds
  }

  /// Nanoseconds from `earlier` to this instant; 0 where the clock went backwards (R24).
  @inline(__always)
  public func since(_ earlier: Instant) -> UInt64 {
    nanoseconds > earlier.nanoseconds ? nanoseconds &- earlier.nanoseconds : 0
  }

  /// This instant moved forward, stopping at the end of the clock instead of trapping.
  @inline(__always)
  public func advanced(by duration: UInt64) -> Instant {
    let (sum, overflow) = nanoseconds.addingReportingOverflow(duration)
    return Instant(nanoseconds: overflow ? .max : sum)
  }
}
