/// The time in an initiation (whitepaper section 5.4.2): 12 bytes, big-endian, whose order is the
/// order of time (cr.yp.to/libtai/tai64.html). A responder takes only greater ones than it has
/// seen from that peer, so an initiation cannot be replayed.
public struct TAI64N: Comparable, Hashable, Sendable, BitwiseCopyable {
  /// 2^62 and the ten leap seconds of 1970, plus seconds since then.
  public var seconds: UInt64
  public var nanoseconds: UInt32

  /// 1970-01-01 00:00:00 UTC.
  static let epoch: UInt64 = (1 << 62) + 10

  /// Earlier than every stamp that is sent.
  public static var zero: TAI64N { TAI64N(seconds: 0, nanoseconds: 0) }

  public init(seconds: UInt64, nanoseconds: UInt32) {
    self.seconds = seconds
    self.nanoseconds = nanoseconds
  }

  /// The stamp of a wall time, coarsened to `Policy.timestampQuantum` so that strangers do not
  /// learn the exact clock. Leap seconds since 1970 are not counted, as in every implementation.
  ///
  /// A time that no clock shows (beyond 2^62 seconds, a second of more than 10^9 nanoseconds) is
  /// taken as the last valid one.
  public init(_ wall: WallTime) {
    seconds = TAI64N.epoch &+ min(wall.seconds, 1 << 62)
    nanoseconds = TAI64N.coarse(min(wall.nanoseconds, 999_999_999))
  }

  /// Reads 12 bytes; the caller has proved that they are there. Any bytes make a stamp that can
  /// be compared, also such as no clock shows.
  public init(at bytes: UnsafeRawPointer) {
    seconds = bytes.loadBig(0, as: UInt64.self)
    nanoseconds = bytes.loadBig(8, as: UInt32.self)
  }

  /// Writes 12 bytes.
  public func write(to bytes: UnsafeMutableRawPointer) {
    bytes.storeBig(seconds, 0)
    bytes.storeBig(nanoseconds, 8)
  }

  public static func < (left: TAI64N, right: TAI64N) -> Bool {
    left.seconds != right.seconds
      ? left.seconds < right.seconds : left.nanoseconds < right.nanoseconds
  }

  /// The coarse stamp that follows a stamp with valid nanoseconds.
  var next: TAI64N {
    let later = TAI64N.coarse(nanoseconds) &+ Policy.timestampQuantum
    return UInt64(later) < nanosecondsPerSecond
      ? TAI64N(seconds: seconds, nanoseconds: later)
      : TAI64N(seconds: seconds &+ 1, nanoseconds: 0)
  }

  private static func coarse(_ nanoseconds: UInt32) -> UInt32 {
    nanoseconds & ~(Policy.timestampQuantum &- 1)
  }
}
