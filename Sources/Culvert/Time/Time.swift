/// A point in nanoseconds on the monotonic clock that also runs during sleep (CLOCK_BOOTTIME). The
/// core never reads a clock; the shell passes an instant with each call.
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

  /// Nanoseconds from `earlier` to this instant; 0 if the clock went backwards (R24).
  @inline(__always)
  public func since(_ earlier: Instant) -> UInt64 {
    nanoseconds > earlier.nanoseconds ? nanoseconds &- earlier.nanoseconds : 0
  }

  /// This instant plus `duration`; saturates at the end of the clock.
  @inline(__always)
  public func advanced(by duration: UInt64) -> Instant {
    let (sum, overflow) = nanoseconds.addingReportingOverflow(duration)
    return Instant(nanoseconds: overflow ? .max : sum)
  }
}

/// A time at which something is due, or `never`.
public struct Deadline: Comparable, Sendable, BitwiseCopyable {
  /// `UInt64.max` means never: no clock reaches it (584 years of uptime).
  var nanoseconds: UInt64

  public static var never: Deadline { Deadline(nanoseconds: .max) }

  @inline(__always)
  init(nanoseconds: UInt64) {
    self.nanoseconds = nanoseconds
  }

  @inline(__always)
  public init(_ instant: Instant) {
    self.nanoseconds = instant.nanoseconds
  }

  @inline(__always)
  public static func after(_ duration: UInt64, from now: Instant) -> Deadline {
    Deadline(now.advanced(by: duration))
  }

  /// The instant, or nil for never.
  public var instant: Instant? {
    nanoseconds == .max ? nil : Instant(nanoseconds: nanoseconds)
  }

  @inline(__always)
  public var isSet: Bool { nanoseconds != .max }

  @inline(__always)
  public func isDue(at now: Instant) -> Bool {
    nanoseconds <= now.nanoseconds && isSet
  }

  @inline(__always)
  public static func < (left: Deadline, right: Deadline) -> Bool {
    left.nanoseconds < right.nanoseconds
  }
}

/// Time since the Unix epoch, from CLOCK_REALTIME, for TAI64N stamps and for wg(8). It can jump in
/// either direction, so no timer depends on it.
public struct WallTime: Comparable, Sendable, BitwiseCopyable {
  public var seconds: UInt64
  public var nanoseconds: UInt32

  public init(seconds: UInt64, nanoseconds: UInt32) {
    self.seconds = seconds
    self.nanoseconds = nanoseconds
  }

  public static func < (left: WallTime, right: WallTime) -> Bool {
    left.seconds != right.seconds
      ? left.seconds < right.seconds : left.nanoseconds < right.nanoseconds
  }
}
