/// Time since the Unix epoch, from CLOCK_REALTIME: only for TAI64N stamps and for what wg(8)
/// shows. It may jump in either direction, so nothing is scheduled by it.
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
