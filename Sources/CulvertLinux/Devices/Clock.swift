import CLinux
import Culvert

/// The clocks.
public enum Clock {
  /// CLOCK_BOOTTIME, which goes on during sleep and never back.
  @inline(__always)
  public static func boottime() -> Instant {
    Instant(nanoseconds: clinux_clock_boottime())
  }

  /// CLOCK_THREAD_CPUTIME_ID, in nanoseconds: stands still while others have the processor.
  @inline(__always)
  public static func threadTime() -> UInt64 { clinux_clock_thread() }

  /// CLOCK_REALTIME, which may jump.
  public static func realtime() -> WallTime {
    var seconds: UInt64 = 0
    var nanoseconds: UInt32 = 0
    clinux_clock_realtime(&seconds, &nanoseconds)
    return WallTime(seconds: seconds, nanoseconds: nanoseconds)
  }
}
