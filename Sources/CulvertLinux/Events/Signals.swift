import CLinux

/// Signals as something to read. Opened before any thread, which inherit that they are blocked.
package struct Signals: ~Copyable {
  private let descriptor: FileDescriptor

  package enum Signal: Int32, Sendable, BitwiseCopyable {
    case terminate = 1
    case interrupt = 2
    /// The terminal went: the end in the foreground, nothing for a daemon.
    case hangup = 3
    /// SIGUSR1: log the counters.
    case counters = 4
  }

  package init() throws(SystemError) {
    descriptor = FileDescriptor(taking: try checked(clinux_signals_open()))
  }

  /// From here on a signal waits until there is a descriptor to read it from.
  static func hold() throws(SystemError) {
    try checked(clinux_signals_hold())
  }

  /// For epoll.
  package var raw: Int32 { descriptor.raw }

  /// The next signal, nil when there is none.
  package func next() -> Signal? {
    Signal(rawValue: clinux_signals_next(descriptor.raw))
  }
}
