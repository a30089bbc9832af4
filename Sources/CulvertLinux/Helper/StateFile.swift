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
  /// Waits for the disk, so only the helper process may do this.
  func write(_ bytes: UnsafeRawBufferPointer) -> Int32 {
    name.withCString { clinux_state_write(directory, $0, bytes.baseAddress, bytes.count) }
  }
}

/// Stores a handshake timestamp across restarts (R28). Without it, a device that boots without a
/// real-time clock would start again with timestamps that its peers have already seen, and they
/// would refuse its handshakes. The helper process does the work.
struct TimestampFile {
  /// The interface's at startup, also of its configuration socket.
  let name: InterfaceName
  private let hop: Int

  /// The file of the tunnel `hop`, which had this name at startup.
  init(_ name: InterfaceName, hop: Int) {
    self.name = name
    self.hop = hop
  }

  /// Requests the stored timestamp. The reply is a `Helper.Reply.stored`.
  func read() { Helper.send(.read, tag: hop, name) }

  /// Requests that the file is replaced. The reply is a `Helper.Reply.didStore`.
  ///
  /// - Returns: nil, or why the request could not be sent.
  func write(_ stamp: TAI64N) -> SystemError? {
    let result = Helper.send(.write, tag: hop, name, stamp)
    return result < 0 ? SystemError(code: -result) : nil
  }
}
