import CLinux
import Culvert

/// The one timer, armed to the earliest deadline.
package struct Timer: ~Copyable {
  private let descriptor: FileDescriptor
  private let isBoottime: Int32
  /// The deadline that the kernel's timer is set to, so that the same deadline costs no call.
  private var armed: Deadline = .never

  package init() throws(SystemError) {
    var isBoottime: Int32 = 0
    descriptor = FileDescriptor(taking: try checked(clinux_timer_open(&isBoottime)))
    self.isBoottime = isBoottime
  }

  /// For epoll: readable once the timer has fired.
  @inline(__always)
  package var raw: Int32 { descriptor.raw }

  /// Arms the timer if `deadline` is earlier than what it is set to.
  ///
  /// A timer that fires too early costs one look at the deadlines. To move it with every packet
  /// that postpones a deadline would cost a system call each.
  package mutating func armIfEarlier(_ deadline: Deadline) {
    if deadline < armed { arm(deadline) }
  }

  /// Fires once, at `deadline`; at once if that is past; not at all for `never`.
  package mutating func arm(_ deadline: Deadline) {
    if deadline == armed { return }
    armed = deadline
    // Neither can fail: the descriptor is a timer, and the shim keeps the time in range.
    if let instant = deadline.instant {
      _ = clinux_timer_arm(descriptor.raw, isBoottime, instant.nanoseconds)
    } else {
      _ = clinux_timer_disarm(descriptor.raw)
    }
  }

  /// Clears the expiry. True if the timer had fired; if not, it has been armed again since.
  @discardableResult
  package mutating func acknowledge() -> Bool {
    let hasFired = clinux_timer_acknowledge(descriptor.raw) != 0
    if hasFired { armed = .never }
    return hasFired
  }
}
