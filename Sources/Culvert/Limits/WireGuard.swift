/// The constants that the WireGuard protocol fixes (whitepaper, Donenfeld 2020). What Culvert
/// chose itself stands in `Limits` and `Policy`; nothing here may be tuned.
public enum WireGuard {
  // Section 6.1, "Preliminaries".
  public static let rekeyAfterMessages: UInt64 = 1 << 60
  /// 2^64 - 2^13 - 1: the replay window's width below the end of the counter.
  public static let rejectAfterMessages: UInt64 = UInt64.max - (1 << 13)
  public static let rekeyAfterTime: UInt64 = 120 * nanosecondsPerSecond
  public static let rejectAfterTime: UInt64 = 180 * nanosecondsPerSecond
  public static let rekeyAttemptTime: UInt64 = 90 * nanosecondsPerSecond
  public static let rekeyTimeout: UInt64 = 5 * nanosecondsPerSecond
  public static let keepaliveTimeout: UInt64 = 10 * nanosecondsPerSecond

  // Section 5.4.7 and 6.6, cookies.
  public static let cookieLifetime: UInt64 = 120 * nanosecondsPerSecond

  // Section 5.4, message sizes in bytes on the wire.
  public static let initiationByteCount = 148
  public static let responseByteCount = 92
  public static let cookieReplyByteCount = 64
  public static let transportHeaderByteCount = 16
  public static let tagByteCount = 16
  /// The shortest transport data message: a keepalive, an empty plaintext and its tag.
  public static let keepaliveByteCount = transportHeaderByteCount + tagByteCount
  /// Section 5.4.6: plaintext is zero-padded to a multiple of this.
  public static let paddingByteCount = 16
  /// What a tunnelled packet costs on the wire, without outer IP and UDP headers.
  public static let overheadByteCount = keepaliveByteCount

  public static let keyByteCount = 32
  public static let macByteCount = 16
  public static let cookieNonceByteCount = 24
  public static let timestampByteCount = 12
}

/// One second in the unit of `Instant`.
public let nanosecondsPerSecond: UInt64 = 1_000_000_000
/// One millisecond in the unit of `Instant`.
public let nanosecondsPerMillisecond: UInt64 = 1_000_000
