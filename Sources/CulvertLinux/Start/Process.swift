import CLinux
import Culvert

/// Runs the process in the background, as wireguard-go does. The caller's command returns when the
/// interface and its socket exist, or with an error if they cannot be created.
///
/// If the child ends without a report, the caller gets its exit status.
package struct Daemon: ~Copyable {
  /// -1 in the foreground and after the report.
  private var report: Int32
  private let inherited: InheritedDescriptors?

  private init(report: Int32, inherited: InheritedDescriptors? = nil) {
    self.report = report
    self.inherited = inherited
  }

  deinit {
    if report >= 0 { _ = clinux_file_close(report) }
  }

  /// Stays in the foreground. Reports are ignored.
  package static var foreground: Daemon { Daemon(report: -1) }

  /// Forks, and returns only in the child, which is in a new session. Call it before creating
  /// threads, the arena, `Signals` or `Epoll`.
  package static func fork() throws(SystemError) -> Daemon {
    Daemon(report: try checked(clinux_daemon_fork()))
  }

  /// The same, and closes all other descriptors that the caller has left open, except 0-2.
  static func fork(keeping inherited: InheritedDescriptors) throws(SystemError) -> Daemon {
    let daemon = Daemon(report: try checked(clinux_daemon_fork()), inherited: inherited)
    inherited.closeOthers(daemon.report)
    return daemon
  }

  package var isBackground: Bool { report >= 0 }

  /// Reports that the tunnel is up: the caller's command exits with 0, descriptors 0-2 become
  /// /dev/null (only descriptor 0 with `keepsOutput`, for a log), and the working directory becomes
  /// "/". Later calls do nothing.
  package mutating func reportSuccess(keepsOutput: Bool) {
    inherited?.closeFiles()
    send(status: 0, keepsOutput: keepsOutput)
  }

  /// Reports failure: the caller's command exits with `status` (1 if it is 0) once this process has
  /// ended. The reason has already been written to stderr, which is still the caller's.
  package mutating func reportFailure(status: UInt8) {
    send(status: status == 0 ? 1 : status, keepsOutput: true)
  }

  private mutating func send(status: UInt8, keepsOutput: Bool) {
    if report < 0 { return }
    // An error means that the parent is gone or that /dev/null is missing. The tunnel runs anyway.
    _ = clinux_daemon_report(report, Int32(status), keepsOutput ? 1 : 0)
    report = -1
  }
}

/// Protection of the process itself.
package enum Hardening {
  /// Opens /dev/null for each of the descriptors 0-2 that is closed, and ignores SIGPIPE. Must be
  /// the program's first call: otherwise a socket could get descriptor 1 and receive log lines.
  package static func prepare() throws(SystemError) {
    try checked(clinux_process_prepare())
  }

  /// Forbids core dumps, and ptrace by the same user (R9). The caller only reports the error, if
  /// there is one.
  package static func forbidCoreDumps() -> SystemError? {
    let result = clinux_process_forbid_dumps()
    return result < 0 ? SystemError(code: -result) : nil
  }
}

package enum Processors {
  /// CPUs that this process may run on, at least 1 and at most 64.
  package static var count: Int { min(64, Int(clinux_cpu_count())) }
}

/// One zeroed, page-aligned, private mapping: the region that the arena is carved from. It is
/// unmapped when the value is destroyed.
///
/// Public, because Embedded Swift does not see the deinit of a package type in another module.
public struct MemoryRegion: ~Copyable {
  package let bytes: UnsafeMutableRawBufferPointer

  /// Maps `byteCount` bytes, at least 1. Throws ENOMEM, also for `Arena.unaddressable`.
  package init(byteCount: Int) throws(SystemError) {
    guard byteCount < Arena.unaddressable else { throw .ENOMEM }
    var error: Int32 = 0
    guard let start = clinux_memory_map(byteCount, &error) else {
      throw SystemError(code: -error)
    }
    bytes = UnsafeMutableRawBufferPointer(start: start, count: byteCount)
  }

  deinit {
    _ = clinux_memory_unmap(bytes.baseAddress, bytes.count)
  }

  /// Locks `part` (page-aligned) in RAM and excludes it from core dumps (R9). Nil on success. The
  /// caller only reports the error (ENOMEM or EPERM because of RLIMIT_MEMLOCK, EINVAL on old
  /// kernels).
  package static func protect(_ part: UnsafeMutableRawBufferPointer) -> SystemError? {
    if part.count == 0 { return nil }
    // Both are tried, even if the first fails.
    let dumps = clinux_memory_exclude_from_dumps(part.baseAddress, part.count)
    let lock = clinux_memory_lock(part.baseAddress, part.count)
    if lock < 0 { return SystemError(code: -lock) }
    return dumps < 0 ? SystemError(code: -dumps) : nil
  }
}
