import CLinux

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
