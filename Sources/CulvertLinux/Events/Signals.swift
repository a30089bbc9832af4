import CLinux

/// A descriptor from which signals are read, except those that were ignored at start: they stay
/// ignored (R58). It must be opened before any thread is started, because threads inherit the set
/// of blocked signals.
package struct Signals: ~Copyable {
  private let descriptor: FileDescriptor

  package enum Signal: Int32, Sendable, BitwiseCopyable {
    case terminate = 1
    case interrupt = 2
    /// Ends a foreground process, because its terminal is gone. A daemon reads its configuration
    /// files again.
    case hangup = 3
    /// SIGUSR1: log the counters.
    case counters = 4
  }

  package init() throws(SystemError) {
    descriptor = FileDescriptor(taking: try checked(clinux_signals_open()))
  }

  /// Blocks the signals. From then on they stay pending until they are read from a descriptor.
  static func hold() throws(SystemError) {
    try checked(clinux_signals_hold())
  }

  /// For epoll.
  package var raw: Int32 { descriptor.raw }

  /// The next signal; nil if there is none.
  package func next() -> Signal? {
    Signal(rawValue: clinux_signals_next(descriptor.raw))
  }
}
