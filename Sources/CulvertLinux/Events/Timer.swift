import CLinux
import Culvert

/// The process's only timer, armed for the earliest deadline.
package struct Timer: ~Copyable {
  private let descriptor: FileDescriptor
  private let isBoottime: Int32
  /// The deadline for which the kernel's timer is armed. Arming it for the same deadline again
  /// costs no system call.
  private var armed: Deadline = .never

  package init() throws(SystemError) {
    var isBoottime: Int32 = 0
    descriptor = FileDescriptor(taking: try checked(clinux_timer_open(&isBoottime)))
    self.isBoottime = isBoottime
  }

  /// For epoll: readable once the timer has fired.
  @inline(__always)
  package var raw: Int32 { descriptor.raw }

  /// Arms the timer if `deadline` is earlier than the one for which it is armed.
  ///
  /// If the timer fires too early, this only costs a check of the deadlines. Postponing it with
  /// each packet that postpones a deadline would cost a system call per packet.
  package mutating func armIfEarlier(_ deadline: Deadline) {
    if deadline < armed { arm(deadline) }
  }

  /// Fires once at `deadline`, immediately if that has passed, and not at all for `never`.
  package mutating func arm(_ deadline: Deadline) {
    if deadline == armed { return }
    armed = deadline
    // Neither call can fail: the descriptor is a timer, and CLinux keeps the time in range.
    if let instant = deadline.instant {
      _ = clinux_timer_arm(descriptor.raw, isBoottime, instant.nanoseconds)
    } else {
      _ = clinux_timer_disarm(descriptor.raw)
    }
  }

  /// Clears the expiry. Returns true if the timer had fired, false if it has been re-armed since.
  @discardableResult
  package mutating func acknowledge() -> Bool {
    let hasFired = clinux_timer_acknowledge(descriptor.raw) != 0
    if hasFired { armed = .never }
    return hasFired
  }
}
