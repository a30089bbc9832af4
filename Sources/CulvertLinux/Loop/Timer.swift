import CLinux
import Culvert

/// The one timer, armed to the tunnel's next deadline.
public struct Timer: ~Copyable {
  private let descriptor: FileDescriptor
  private let isBoottime: Int32
  /// What the kernel's timer stands at, so that arming it to the same instant costs no call.
  private var armed: Deadline = .never

  public init() throws(SystemError) {
    var isBoottime: Int32 = 0
    descriptor = FileDescriptor(taking: try checked(clinux_timer_open(&isBoottime)))
    self.isBoottime = isBoottime
  }

  /// For epoll: readable once the timer has fired.
  @inline(__always)
  public var raw: Int32 { descriptor.raw }

  /// Fires once, at `deadline`; at once where that is past; not at all for `never`.
  public mutating func arm(_ deadline: Deadline) {
    if deadline == armed { return }
    armed = deadline
    // Neither can fail: the descriptor is a timer, and the shim keeps the time in range.
    if let instant = deadline.instant {
      _ = clinux_timer_arm(descriptor.raw, isBoottime, instant.nanoseconds)
    } else {
      _ = clinux_timer_disarm(descriptor.raw)
    }
  }

  /// Fires once, at an instant; nil disarms.
  public mutating func arm(_ instant: Instant?) {
    if let instant { arm(Deadline(instant)) } else { arm(Deadline.never) }
  }

  public mutating func disarm() {
    arm(Deadline.never)
  }

  /// Takes the expiry off. True where the timer had fired.
  @discardableResult
  public mutating func acknowledge() -> Bool {
    let hasFired = clinux_timer_acknowledge(descriptor.raw) != 0
    if hasFired { armed = .never }
    return hasFired
  }
}

/// The timer together with what it was last set to. All workers move it, under the tunnel's lock.
struct Alarm: ~Copyable {
  private var timer: Timer
  /// What the timer stands at.
  private var armed = Deadline.never

  init(_ timer: consuming Timer) {
    self.timer = timer
  }

  /// For epoll.
  var raw: Int32 { timer.raw }

  /// Arms the timer where the deadline has come nearer.
  ///
  /// An armed timer that fires early costs one look; arming it anew with every packet that moves a
  /// deadline would cost a call each.
  mutating func arm(_ deadline: Deadline) {
    guard deadline < armed else { return }
    timer.arm(deadline)
    armed = deadline
  }

  /// The timer has fired.
  mutating func acknowledge() {
    timer.acknowledge()
    armed = .never
  }
}
