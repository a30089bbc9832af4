import CLinux

public enum Processors {
  /// CPUs that this process may run on, at least 1 and at most 64.
  public static var count: Int { min(64, Int(clinux_cpu_count())) }
}
