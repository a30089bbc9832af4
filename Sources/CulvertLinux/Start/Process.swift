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

/// What a process does about itself before anything else.
public enum Hardening {
  /// Opens descriptors 0-2 on /dev/null where they are closed, and ignores SIGPIPE. The first call
  /// of the program: a socket that got number 1 would be written log lines to.
  public static func prepare() throws(SystemError) {
    try checked(clinux_process_prepare())
  }

  /// No core dumps, no ptrace by the same user (R9). An error is to be reported, no more.
  public static func forbidCoreDumps() -> SystemError? {
    let result = clinux_process_forbid_dumps()
    return result < 0 ? SystemError(code: -result) : nil
  }
}

/// The environment, as bytes.
public enum Environment {
  /// The value of `name`, without its NUL; nil where it is not set. It stays as long as nobody
  /// changes the environment, and nobody here does.
  public static func bytes(_ name: StaticString) -> UnsafeRawBufferPointer? {
    let key = UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
    guard let value = clinux_process_environment(key) else { return nil }
    var count = 0
    while value[count] != 0 { count += 1 }
    return UnsafeRawBufferPointer(start: value, count: count)
  }

  /// A decimal number of at most 9 digits and nothing else; nil otherwise.
  public static func integer(_ name: StaticString) -> Int? {
    guard let value = bytes(name), value.count >= 1, value.count <= 9 else { return nil }
    var number = 0
    for byte in value {
      guard byte >= 0x30, byte <= 0x39 else { return nil }
      number = number * 10 + Int(byte - 0x30)
    }
    return number
  }

  /// True where the variable is set to exactly `text`.
  public static func isSet(_ name: StaticString, to text: StaticString) -> Bool {
    guard let value = bytes(name), value.count == text.utf8CodeUnitCount else { return false }
    // Not elementsEqual: its generic code names arrays, which -no-allocations refuses.
    for index in 0..<value.count where value[index] != text.utf8Start[index] { return false }
    return true
  }
}

public enum Processors {
  /// CPUs that this process may run on, at least 1 and at most 64.
  public static var count: Int { min(64, Int(clinux_cpu_count())) }
}
