/// Makes the timestamps of our initiations: each is greater than all before it, even if the clock
/// stands still, goes backwards, or starts in 1970 after a reboot (R28).
///
/// A floor that the shell keeps in a file survives reboots. It is ahead of the timestamps sent, so
/// that it is written only when they come close to it, not for every handshake.
struct TimestampSource: Sendable, BitwiseCopyable {
  /// How far the floor is ahead of a timestamp from the clock, in seconds.
  static let horizon: UInt64 = 3600
  /// The same for a timestamp that is ahead of the clock. Such timestamps advance by a quantum
  /// each, not with time, so the horizon is shorter: otherwise a device that restarts often would
  /// get far ahead of the time.
  static let horizonAheadOfClock: UInt64 = 600
  /// A timestamp in the last quarter of its horizon is close to the floor.
  static let nearFraction: UInt64 = 4
  /// A timestamp that is this many seconds later than the latest plausible time is not remembered.
  static let plausibleJump: UInt64 = 10 * 365 * 86_400
  /// 2026-01-01 00:00:00 UTC, when this was written: the time is not earlier.
  static let releaseDate: UInt64 = TAI64N.epoch + 1_767_225_600

  /// The greatest timestamp sent, or that an earlier run may have sent.
  private var last: TAI64N
  /// The floor in the file; `TAI64N.zero` if there is none.
  private var persisted: TAI64N
  private var hasSent = false
  private var isAheadOfClock = false

  /// - Parameter floor: what the shell stored last; nil if there is nothing, or nothing readable.
  ///   An impossible time (TAI64 ends at 2^63) is ignored.
  init(floor: TAI64N? = nil) {
    last = .zero
    if let floor, floor.seconds < 1 << 63, UInt64(floor.nanoseconds) < nanosecondsPerSecond {
      last = floor
    }
    persisted = last
  }

  /// The timestamp for an initiation that is about to be sent: the clock's, or if that is not
  /// greater than the last one, the last one plus a quantum.
  mutating func next(_ wall: WallTime) -> TAI64N {
    let clock = TAI64N(wall)
    isAheadOfClock = clock <= last
    last = isAheadOfClock ? last.next : clock
    hasSent = true
    return last
  }

  /// The floor that the shell must write to stable storage, preferably before the datagram with the
  /// last timestamp is sent; nil nearly always. Each floor is returned once.
  ///
  /// After an implausible jump forward the timestamps are sent but not remembered: a clock that was
  /// wrong for a moment must not lock the device out for years (CVE-2021-46873).
  mutating func floorToPersist() -> TAI64N? {
    guard hasSent else { return nil }
    let ahead =
      isAheadOfClock ? TimestampSource.horizonAheadOfClock : TimestampSource.horizon
    guard last.seconds &+ ahead / TimestampSource.nearFraction >= persisted.seconds else {
      return nil
    }
    let known = max(persisted.seconds, TimestampSource.releaseDate)
    guard last.seconds <= known &+ TimestampSource.plausibleJump else { return nil }
    persisted = TAI64N(seconds: last.seconds &+ ahead, nanoseconds: last.nanoseconds)
    return persisted
  }

  /// The last timestamp sent, to be stored in place of the floor when the program exits, so that
  /// restarts do not push timestamps ahead of the clock. Nil if none was sent, or if it is
  /// implausible and not remembered.
  var lastSent: TAI64N? { hasSent && last <= persisted ? last : nil }
}

/// The timestamp in an initiation (whitepaper section 5.4.2): 12 bytes, big-endian, whose order is
/// the order of time (cr.yp.to/libtai/tai64.html). A responder accepts only greater ones than it
/// has received from that peer, so an initiation cannot be replayed.
public struct TAI64N: Comparable, Hashable, Sendable, BitwiseCopyable {
  /// 2^62, plus the ten leap seconds of 1970, plus the seconds since then.
  public var seconds: UInt64
  public var nanoseconds: UInt32

  /// 1970-01-01 00:00:00 UTC.
  static let epoch: UInt64 = (1 << 62) + 10

  /// Earlier than every timestamp that is sent.
  public static var zero: TAI64N { TAI64N(seconds: 0, nanoseconds: 0) }

  public init(seconds: UInt64, nanoseconds: UInt32) {
    self.seconds = seconds
    self.nanoseconds = nanoseconds
  }

  /// The timestamp of a wall time, rounded down to `Policy.timestampQuantum` so that strangers do
  /// not learn the exact clock. Leap seconds since 1970 are not counted, as in every
  /// implementation.
  ///
  /// Impossible times (beyond 2^62 seconds, or with more than 10^9 nanoseconds) become the last
  /// possible one.
  public init(_ wall: WallTime) {
    seconds = TAI64N.epoch &+ min(wall.seconds, 1 << 62)
    nanoseconds = TAI64N.coarse(min(wall.nanoseconds, 999_999_999))
  }

  /// Reads 12 bytes; the caller has checked that they are there. Any bytes make a timestamp that
  /// can be compared, even an impossible one.
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

  /// The next timestamp, rounded down to the quantum. This one's nanoseconds are valid.
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
