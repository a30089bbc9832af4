/// The constants of the WireGuard protocol (whitepaper, Donenfeld 2020). None of them may be
/// changed; Culvert's own choices are in `Limits` and `Policy`.
public enum WireGuard {
  // Section 6.1, "Preliminaries".
  static let rekeyAfterMessages: UInt64 = 1 << 60
  /// 2^64 - 2^13 - 1: below the end of the counter by the width of the replay window.
  static let rejectAfterMessages: UInt64 = UInt64.max - (1 << 13)
  static let rekeyAfterTime: UInt64 = 120 * nanosecondsPerSecond
  static let rejectAfterTime: UInt64 = 180 * nanosecondsPerSecond
  static let rekeyAttemptTime: UInt64 = 90 * nanosecondsPerSecond
  static let rekeyTimeout: UInt64 = 5 * nanosecondsPerSecond
  static let keepaliveTimeout: UInt64 = 10 * nanosecondsPerSecond

  // Sections 5.4.7 and 6.6, cookies.
  static let cookieLifetime: UInt64 = 120 * nanosecondsPerSecond

  // Section 5.4, message sizes in bytes on the wire.
  static let initiationByteCount = 148
  static let responseByteCount = 92
  static let cookieReplyByteCount = 64
  static let transportHeaderByteCount = 16
  static let tagByteCount = 16
  /// The shortest transport data message: a keepalive, an empty plaintext and its tag.
  static let keepaliveByteCount = transportHeaderByteCount + tagByteCount
  /// Section 5.4.6: plaintext is zero-padded to a multiple of this.
  package static let paddingByteCount = 16
  /// The overhead of a tunnelled packet on the wire, without outer IP and UDP headers.
  public static let overheadByteCount = keepaliveByteCount

  public static let keyByteCount = 32
  static let macByteCount = 16
  static let cookieNonceByteCount = 24
  package static let timestampByteCount = 12
}

/// One second in the unit of `Instant`.
public let nanosecondsPerSecond: UInt64 = 1_000_000_000
/// One millisecond in the unit of `Instant`.
package let nanosecondsPerMillisecond: UInt64 = 1_000_000
