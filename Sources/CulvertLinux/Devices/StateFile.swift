import CLinux
import Culvert

/// A small file that outlives the process and stores the last TAI64N timestamp (R28). It is
/// replaced atomically: after a crash it has either the old contents or the new.
struct StateFile {
  private let directory: UnsafePointer<CChar>
  private let name: InterfaceName

  static var defaultDirectory: StaticString { "/var/lib/culvert" }

  /// The file of one interface.
  ///
  /// - Parameter directory: NUL-terminated, never freed (an argument); nil for the default. It is
  ///   created if it is missing; its parent is not.
  init(_ name: InterfaceName, in directory: UnsafePointer<CChar>? = nil) {
    self.name = name
    // String literals are NUL-terminated.
    let literal = UnsafeRawPointer(StateFile.defaultDirectory.utf8Start)
    self.directory = directory ?? literal.assumingMemoryBound(to: CChar.self)
  }

  /// The file's byte count, or -errno: -ENOENT if it does not exist, -EMSGSIZE if it is longer than
  /// the buffer.
  func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    name.withCString { clinux_state_read(directory, $0, buffer.baseAddress, buffer.count) }
  }

  /// Replaces the file. Returns 0 or -errno (EROFS, ENOSPC, EACCES), which the caller only reports.
  /// Waits for the disk, so it must be called rarely.
  func write(_ bytes: UnsafeRawBufferPointer) -> Int32 {
    name.withCString { clinux_state_write(directory, $0, bytes.baseAddress, bytes.count) }
  }
}

/// Stores the horizon of handshake timestamps across restarts (R28). Without it, a device that
/// boots without a real-time clock would start again with timestamps that its peers have already
/// seen, and they would refuse its handshakes.
struct TimestampFile {
  private let file: StateFile

  init(_ file: StateFile) {
    self.file = file
  }

  /// Nil if nothing usable is stored.
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
