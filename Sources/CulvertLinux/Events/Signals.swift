import CLinux

/// A descriptor that signals are read from. Opened before any thread is started: threads inherit
/// that the signals are blocked.
package struct Signals: ~Copyable {
  private let descriptor: FileDescriptor

  package enum Signal: Int32, Sendable, BitwiseCopyable {
    case terminate = 1
    case interrupt = 2
    /// The terminal was closed: ends a foreground process, ignored by a daemon.
    case hangup = 3
    /// SIGUSR1: log the counters.
    case counters = 4
  }

  package init() throws(SystemError) {
    descriptor = FileDescriptor(taking: try checked(clinux_signals_open()))
  }

  /// Blocks the signals: from here on they wait until a descriptor reads them.
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
