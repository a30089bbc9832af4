/// A time at which something is due, or `never`.
public struct Deadline: Comparable, Sendable, BitwiseCopyable {
  /// `UInt64.max` stands for never: no clock reaches it (584 years of uptime).
  var nanoseconds: UInt64

  public static var never: Deadline { Deadline(nanoseconds: .max) }

  @inline(__always)
  init(nanoseconds: UInt64) {
    self.nanoseconds = nanoseconds
  }

  @inline(__always)
  public init(_ instant: Instant) {
    self.nanoseconds = instant.nanoseconds
  }

  @inline(__always)
  public static func after(_ duration: UInt64, from now: Instant) -> Deadline {
    Deadline(now.advanced(by: duration))
  }

  /// The instant, or nil for never.
  public var instant: Instant? {
    nanoseconds == .max ? nil : Instant(nanoseconds: nanoseconds)
  }

  @inline(__always)
  public var isSet: Bool { nanoseconds != .max }

  @inline(__always)
  public func isDue(at now: Instant) -> Bool {
    nanoseconds <= now.nanoseconds && isSet
  }

  @inline(__always)
  public static func < (left: Deadline, right: Deadline) -> Bool {
    left.nanoseconds < right.nanoseconds
  }
}
