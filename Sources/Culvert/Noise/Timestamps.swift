/// Gives the stamps of our initiations: each greater than every one before it, also when the clock
/// stands still, goes back, or starts in 1970 after a reboot (R28).
///
/// What outlives a reboot is a floor that the shell keeps in a file. It lies ahead of the stamps
/// sent, so that it must be written only when they come near it, not for every handshake.
public struct TimestampSource: Sendable, BitwiseCopyable {
  /// Seconds that a floor lies ahead of a stamp that the clock gave.
  static let horizon: UInt64 = 3600
  /// The same for a stamp ahead of the clock: those advance by a quantum each, not with time. A
  /// short horizon, or a device that restarts often would run far ahead of the time.
  static let horizonAheadOfClock: UInt64 = 600
  /// A stamp in the last quarter of its horizon is near the floor.
  static let nearFraction: UInt64 = 4
  /// More than this many seconds after all that is known of the time is no time to remember.
  static let plausibleJump: UInt64 = 10 * 365 * 86_400
  /// It is later than 2026-01-01 00:00:00 UTC: this was written then.
  static let releaseDate: UInt64 = TAI64N.epoch + 1_767_225_600

  /// The greatest stamp sent, or that an earlier run can have sent.
  private var last: TAI64N
  /// The floor in the file; `TAI64N.zero` where there is none.
  private var persisted: TAI64N
  private var hasSent = false
  private var isAheadOfClock = false

  /// - Parameter floor: what the shell persisted last; nil where there is nothing, or nothing
  ///   readable. One that cannot be a time (TAI64 ends at 2^63) counts as nothing.
  public init(floor: TAI64N? = nil) {
    last = .zero
    if let floor, floor.seconds < 1 << 63, UInt64(floor.nanoseconds) < nanosecondsPerSecond {
      last = floor
    }
    persisted = last
  }

  /// The stamp for an initiation that is about to be sent: the clock's, or where that is not
  /// greater than the last one, the last one and a quantum.
  public mutating func next(_ wall: WallTime) -> TAI64N {
    let clock = TAI64N(wall)
    isAheadOfClock = clock <= last
    last = isAheadOfClock ? last.next : clock
    hasSent = true
    return last
  }

  /// The floor that the shell must write to stable storage, best before the datagram with the
  /// last stamp leaves; nil nearly always. Each floor is told once.
  ///
  /// An implausible jump forward is not remembered, though its stamps are sent: a clock that was
  /// wrong for a moment must not shut the device out for years (CVE-2021-46873).
  public mutating func floorToPersist() -> TAI64N? {
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

  /// The last stamp sent, to be stored at a clean end in place of the horizon, so that restarts do
  /// not push the stamps ahead of the clock. Nil where none was sent, or where its horizon was
  /// implausible and is not remembered.
  var lastSent: TAI64N? { hasSent && last <= persisted ? last : nil }
}

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
