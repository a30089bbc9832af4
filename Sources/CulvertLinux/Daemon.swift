import CLinux

/// Going into the background the way wireguard-go does: the caller's command ends only when the
/// interface and its socket are there, and with an error when they are not.
///
/// A child that ends without a report, on whichever path, hands its exit status to the caller.
public struct Daemon: ~Copyable {
  /// -1 in the foreground and after the report.
  private var report: Int32

  private init(report: Int32) {
    self.report = report
  }

  deinit {
    if report >= 0 { _ = clinux_file_close(report) }
  }

  /// Stays in the foreground; reports go nowhere.
  public static var foreground: Daemon { Daemon(report: -1) }

  /// Forks, and returns in the child only, in a session of its own. Before any thread, the arena,
  /// `Signals` and `Epoll`.
  public static func fork() throws(SystemError) -> Daemon {
    Daemon(report: try checked(clinux_daemon_fork()))
  }

  public var isBackground: Bool { report >= 0 }

  /// In service: the caller's command ends with 0, and descriptors 0-2 become /dev/null
  /// (`keepsOutput`: only 0, for when LOG_LEVEL asks for a log). Once; later calls do nothing.
  public mutating func reportSuccess(keepsOutput: Bool) {
    send(status: 0, keepsOutput: keepsOutput)
  }

  /// Failed: the caller's command ends with `status`, not 0, once this process has ended. The
  /// reason has been written to stderr, which is still the caller's.
  public mutating func reportFailure(status: UInt8) {
    send(status: status == 0 ? 1 : status, keepsOutput: true)
  }

  private mutating func send(status: UInt8, keepsOutput: Bool) {
    if report < 0 { return }
    // An error means that nobody waits or that /dev/null is missing: neither stops a tunnel.
    _ = clinux_daemon_report(report, Int32(status), keepsOutput ? 1 : 0)
    report = -1
  }
}
