/// Makes the timestamps of our initiations. Each is greater than all earlier ones, even if the
/// clock stops, goes backwards, or starts at 1970 after a reboot (R28).
///
/// The shell keeps a floor in a file, so that this is also true across reboots. The floor is ahead
/// of the timestamps sent, so that it need not be written for every handshake, but only when they
/// come close to it.
struct TimestampSource: Sendable, BitwiseCopyable {
  /// How far the floor is ahead of a timestamp from the clock, in seconds.
  static let horizon: UInt64 = 3600
  /// The same for a timestamp that is ahead of the clock. Such timestamps advance by one quantum
  /// each and not with time, so this horizon is shorter. Otherwise a device that restarts often
  /// would get far ahead of the clock.
  static let horizonAheadOfClock: UInt64 = 600
  /// A timestamp is close to the floor if less than a quarter of its horizon is left.
  static let nearFraction: UInt64 = 4
  /// A timestamp more than this many seconds after the last known time is not persisted.
  static let plausibleJump: UInt64 = 10 * 365 * 86_400
  /// 2026-01-01 00:00:00 UTC. The real time is never earlier, because this was written then.
  static let releaseDate: UInt64 = TAI64N.epoch + 1_767_225_600

  /// The greatest timestamp that this run has sent, or that an earlier run may have sent.
  private var last: TAI64N
  /// The floor in the file; `TAI64N.zero` if there is none.
  private var persisted: TAI64N
  private var hasSent = false
  private var isAheadOfClock = false

  /// - Parameter floor: the floor that the shell has stored; nil if there is none or it cannot be
  ///   read. An impossible time (TAI64 ends at 2^63) is ignored.
  init(floor: TAI64N? = nil) {
    last = .zero
    if let floor, floor.seconds < 1 << 63, UInt64(floor.nanoseconds) < nanosecondsPerSecond {
      last = floor
    }
    persisted = last
  }

  /// The timestamp for an initiation that is about to be sent. It is the clock's time, or if that
  /// is not greater than the last timestamp, the last timestamp plus a quantum.
  mutating func next(_ wall: WallTime) -> TAI64N {
    let clock = TAI64N(wall)
    isAheadOfClock = clock <= last
    last = isAheadOfClock ? last.next : clock
    hasSent = true
    return last
  }

  /// The floor that the shell must write to stable storage, preferably before the datagram with the
  /// last timestamp is sent; nil in nearly all cases. Each floor is returned only once.
  ///
  /// After an implausible jump forward, timestamps are sent but not persisted. A clock that was
  /// temporarily wrong must not lock the device out for years (CVE-2021-46873).
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

  /// The last timestamp sent. The shell stores it instead of the floor when the program exits, so
  /// that restarts do not push timestamps ahead of the clock. Nil if none was sent, or if it is
  /// implausible and therefore not persisted.
  var lastSent: TAI64N? { hasSent && last <= persisted ? last : nil }
}

/// The timestamp in an initiation (whitepaper section 5.4.2): 12 bytes, big-endian, so that later
/// timestamps compare as greater (cr.yp.to/libtai/tai64.html). A responder only accepts a timestamp
/// that is greater than all it has received from the peer, so an initiation cannot be replayed.
public struct TAI64N: Comparable, Hashable, Sendable, BitwiseCopyable {
  /// 2^62, plus the 10 s by which TAI is taken to be ahead of UTC, plus the seconds since
  /// 1970-01-01 00:00:00 UTC.
  public var seconds: UInt64
  public var nanoseconds: UInt32

  /// 1970-01-01 00:00:00 UTC.
  static let epoch: UInt64 = (1 << 62) + 10

  /// Less than every timestamp that is sent.
  public static var zero: TAI64N { TAI64N(seconds: 0, nanoseconds: 0) }

  public init(seconds: UInt64, nanoseconds: UInt32) {
    self.seconds = seconds
    self.nanoseconds = nanoseconds
  }

  /// The timestamp of a wall-clock time, rounded down to a multiple of `Policy.timestampQuantum`,
  /// so that it does not reveal the exact clock. As in other implementations, leap seconds are
  /// ignored.
  ///
  /// Seconds above 2^62 and nanoseconds above 999,999,999 are replaced by these limits.
  public init(_ wall: WallTime) {
    seconds = TAI64N.epoch &+ min(wall.seconds, 1 << 62)
    nanoseconds = TAI64N.coarse(min(wall.nanoseconds, 999_999_999))
  }

  /// Reads 12 bytes, which the caller has checked to exist. Any 12 bytes are a timestamp that can
  /// be compared, even if the time is impossible.
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

  /// The next multiple of the quantum. The nanoseconds of this timestamp must be valid.
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
