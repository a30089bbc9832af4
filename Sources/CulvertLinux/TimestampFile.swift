import Culvert

/// Where the horizon of handshake timestamps outlives the process (R28): without a real-time
/// clock, a device that boots again would otherwise start with timestamps that its peers have
/// already seen, and would be refused.
public struct TimestampFile {
  private let file: StateFile

  public init(_ file: StateFile) {
    self.file = file
  }

  /// Nil where nothing usable is stored.
  func read() -> TAI64N? {
    var bytes: (UInt64, UInt64) = (0, 0)
    return withUnsafeMutableBytes(of: &bytes) { buffer -> TAI64N? in
      guard file.read(into: buffer) == WireGuard.timestampByteCount else { return nil }
      return TAI64N(at: UnsafeRawPointer(buffer.baseAddress!))
    }
  }

  /// Nil on success.
  func write(_ stamp: TAI64N) -> SystemError? {
    var bytes: (UInt64, UInt64) = (0, 0)
    return withUnsafeMutableBytes(of: &bytes) { buffer -> SystemError? in
      stamp.write(to: buffer.baseAddress!)
      let result = file.write(
        UnsafeRawBufferPointer(rebasing: buffer[..<WireGuard.timestampByteCount]))
      return result < 0 ? SystemError(code: -result) : nil
    }
  }
}
