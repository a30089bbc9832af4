import CLinux
import Culvert

/// A small file that outlives the process: the last TAI64N stamp sent (R28). It is replaced as a
/// whole, so that a crash leaves the old contents or the new.
public struct StateFile {
  private let directory: UnsafePointer<CChar>
  private let name: InterfaceName

  public static var defaultDirectory: StaticString { "/var/lib/culvert" }

  /// The file of one interface.
  ///
  /// - Parameter directory: NUL-terminated, never freed (an argument); nil for the default. It is
  ///   created when it is missing, its parent is not.
  public init(_ name: InterfaceName, in directory: UnsafePointer<CChar>? = nil) {
    self.name = name
    // String literals are NUL-terminated.
    let literal = UnsafeRawPointer(StateFile.defaultDirectory.utf8Start)
    self.directory = directory ?? literal.assumingMemoryBound(to: CChar.self)
  }

  /// The file's byte count, or -errno: -ENOENT where there is none, -EMSGSIZE where it is longer
  /// than the buffer.
  public func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    name.withCString { clinux_state_read(directory, $0, buffer.baseAddress, buffer.count) }
  }

  /// Replaces the file. 0 or -errno (EROFS, ENOSPC, EACCES): to be reported, no more. Waits for
  /// the disk, so it is called seldom.
  public func write(_ bytes: UnsafeRawBufferPointer) -> Int32 {
    name.withCString { clinux_state_write(directory, $0, bytes.baseAddress, bytes.count) }
  }
}

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
