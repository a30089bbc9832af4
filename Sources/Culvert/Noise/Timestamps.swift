/// Makes the timestamps of our initiations. A timestamp is the clock's time, unless an earlier one
/// to the same peer was not less (R46). It is also greater than all that earlier runs have sent,
/// even if the clock stops, goes backwards, or starts at 1970 after a reboot (R28).
///
/// For that, the shell keeps a timestamp in a file: no run has sent a later one than it plus
/// `slack`. With a sane clock, the stored timestamp is the clock's, at the time of storing. It is
/// stored again `slack - margin` later at the earliest, so the file is written at most once an hour,
/// and before it is needed.
struct TimestampSource: Sendable, BitwiseCopyable {
  /// By how many seconds the timestamps of a run may exceed the stored one.
  static let slack: UInt64 = 4500
  /// A timestamp is stored when less than this many seconds of the slack are left.
  static let margin: UInt64 = 900
  /// How many seconds are granted to timestamps that are ahead of the clock, and the margin then.
  /// Such timestamps advance by one quantum each and not with time. With a larger grant, a device
  /// that restarts often would get far ahead of the clock.
  static let slackAheadOfClock: UInt64 = 600
  static let marginAheadOfClock: UInt64 = 150
  /// A timestamp more than this many seconds after the last known time is not persisted.
  static let plausibleJump: UInt64 = 10 * 365 * 86_400
  /// 2026-01-01 00:00:00 UTC. The real time is never earlier, because this was written then.
  static let releaseDate: UInt64 = TAI64N.epoch + 1_767_225_600
  /// How long initiations wait for storage that does not answer.
  static let holdTime: UInt64 = nanosecondsPerSecond / 2
  /// How often an initiation that waits for storage is tried again.
  static let holdInterval: UInt64 = 20 * nanosecondsPerMillisecond

  /// Earlier runs, and peers that were removed, have got no greater timestamp.
  private var floor: TAI64N
  /// The greatest timestamp of this run; `TAI64N.zero` if there is none.
  private var greatest = TAI64N.zero
  /// Whether `greatest` is not the clock's.
  private var isAheadOfClock = false
  /// No run may send a greater timestamp before another one is stored: after the last store that
  /// was requested, and after the last that was confirmed.
  private var requestedLimit: TAI64N
  private var storedLimit: TAI64N
  /// Whether initiations wait for the confirmation, for at most `holdTime`.
  var waitsForStorage = false
  private var holdEnd: Instant?

  /// - Parameter stored: the timestamp that the shell has stored; nil if there is none or it cannot
  ///   be read. An impossible time (TAI64 ends at 2^63) is ignored.
  init(stored: TAI64N? = nil) {
    floor = .zero
    if let stored, stored.isPossible { floor = stored.advanced(by: TimestampSource.slack) }
    requestedLimit = floor
    storedLimit = floor
  }

  /// Takes over the timestamp that an earlier run has stored. It may be read late.
  mutating func restore(_ stored: TAI64N) {
    guard stored.isPossible else { return }
    let limit = stored.advanced(by: TimestampSource.slack)
    raiseFloor(to: limit)
    requestedLimit = max(requestedLimit, limit)
    storedLimit = max(storedLimit, limit)
  }

  /// Makes all timestamps greater than this one, which was sent to a peer that is removed now.
  mutating func raiseFloor(to stamp: TAI64N) { floor = max(floor, stamp) }

  /// The timestamp for an initiation that is about to be sent. It is the clock's time, or if that
  /// is not greater than the peer's last timestamp and the floor, the greater of them plus a
  /// quantum.
  ///
  /// - Parameter last: the peer's last timestamp.
  mutating func next(_ wall: WallTime, after last: TAI64N) -> TAI64N {
    let clock = TAI64N(wall)
    let base = max(last, floor)
    let stamp = clock > base ? clock : base.next
    if stamp > greatest {
      greatest = stamp
      isAheadOfClock = clock <= base
    }
    return stamp
  }

  /// Whether the initiation must wait until the timestamp is covered by what is stored. A crash
  /// would otherwise make it be used again. Storage that does not answer in time is not waited for
  /// again until it does (R41).
  mutating func mustWait(_ stamp: TAI64N, at now: Instant) -> Bool {
    guard waitsForStorage, stamp > storedLimit, isPlausible(stamp) else { return false }
    if let holdEnd { return now < holdEnd }
    holdEnd = now.advanced(by: TimestampSource.holdTime)
    return true
  }

  /// The timestamp that the shell must store now, preferably before the datagram with the last
  /// timestamp is sent; nil in nearly all cases. Each is returned only once. It is at most the
  /// clock's time, if the clock is sane.
  ///
  /// After an implausible jump forward, timestamps are sent but not persisted. A clock that was
  /// temporarily wrong must not lock the device out for years (CVE-2021-46873).
  mutating func stampToPersist() -> TAI64N? {
    guard greatest > .zero else { return nil }
    let margin =
      isAheadOfClock ? TimestampSource.marginAheadOfClock : TimestampSource.margin
    guard greatest.seconds &+ margin >= requestedLimit.seconds, isPlausible(greatest) else {
      return nil
    }
    requestedLimit = greatest.advanced(
      by: isAheadOfClock ? TimestampSource.slackAheadOfClock : TimestampSource.slack)
    return requestedLimit.moved(back: TimestampSource.slack)
  }

  /// The shell has stored this timestamp, or has failed to and will not try again.
  mutating func didPersist(_ stored: TAI64N) {
    storedLimit = max(storedLimit, stored.advanced(by: TimestampSource.slack))
    holdEnd = nil
  }

  /// What was requested and not confirmed will not be stored.
  mutating func forgetRequests() { requestedLimit = storedLimit }

  /// The timestamp to store when the program exits, so that the next run continues right after the
  /// last timestamp of this one. Nil if none was sent, or if it is implausible and therefore not
  /// persisted.
  var lastToPersist: TAI64N? {
    guard greatest > .zero, greatest <= requestedLimit else { return nil }
    return max(greatest, floor).moved(back: TimestampSource.slack)
  }

  private func isPlausible(_ stamp: TAI64N) -> Bool {
    stamp.seconds
      <= max(requestedLimit.seconds, TimestampSource.releaseDate) &+ TimestampSource.plausibleJump
  }
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

  /// False for a time after the end of TAI64, and for nanoseconds above 999,999,999.
  var isPossible: Bool { seconds < 1 << 63 && UInt64(nanoseconds) < nanosecondsPerSecond }

  func advanced(by duration: UInt64) -> TAI64N {
    TAI64N(seconds: seconds &+ duration, nanoseconds: nanoseconds)
  }

  func moved(back duration: UInt64) -> TAI64N {
    TAI64N(seconds: seconds > duration ? seconds &- duration : 0, nanoseconds: nanoseconds)
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
