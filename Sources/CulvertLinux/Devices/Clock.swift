import CLinux
import Culvert

/// The system's clocks.
package enum Clock {
  /// CLOCK_BOOTTIME: never steps back, and keeps running while the system is suspended.
  @inline(__always)
  static func boottime() -> Instant {
    Instant(nanoseconds: clinux_clock_boottime())
  }

  /// Nanoseconds that the system has been suspended since it was booted.
  static func suspended() -> UInt64 {
    let awake = clinux_clock_monotonic()
    return boottime().since(Instant(nanoseconds: awake))
  }

  /// CLOCK_THREAD_CPUTIME_ID, in nanoseconds: advances only while this thread is running.
  @inline(__always)
  package static func threadTime() -> UInt64 { clinux_clock_thread() }

  /// CLOCK_REALTIME, which can jump in either direction.
  static func realtime() -> WallTime {
    var seconds: UInt64 = 0
    var nanoseconds: UInt32 = 0
    clinux_clock_realtime(&seconds, &nanoseconds)
    return WallTime(seconds: seconds, nanoseconds: nanoseconds)
  }
}
