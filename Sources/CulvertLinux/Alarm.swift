import Culvert

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
