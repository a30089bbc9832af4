import CLinux
import Culvert

/// The locks and turnstiles of the workers, in the order in which a worker acquires them.
struct Gates: BitwiseCopyable {
  /// Held by the leader, the one worker that waits for events, reads and receives, and runs the
  /// control path. Guards `EventLoop`.
  let lead: Lock
  /// Keep the batches of each lane in order during its last steps.
  let outbound: Turnstile
  let inbound: Turnstile
  /// Guards the tunnels' tables, the channels and flows, the timer and the logs. It is held for one
  /// table step of a batch, but never during encryption or a system call that moves packets.
  let tunnel: Lock

  init(carvingFrom arena: inout Arena) {
    lead = Lock(carvingFrom: &arena)
    outbound = Turnstile(carvingFrom: &arena)
    inbound = Turnstile(carvingFrom: &arena)
    tunnel = Lock(carvingFrom: &arena)
  }

  func prepare() {
    lead.prepare()
    outbound.prepare()
    inbound.prepare()
    tunnel.prepare()
  }
}

/// A lock that workers share, in the arena.
struct Lock: BitwiseCopyable, @unchecked Sendable {
  private let lock: UnsafeMutablePointer<clinux_lock>

  init(carvingFrom arena: inout Arena) {
    lock = arena.carveBytes(MemoryLayout<clinux_lock>.stride, owner: "workers: locks")
      .baseAddress!.assumingMemoryBound(to: clinux_lock.self)
  }

  func prepare() { clinux_lock_prepare(lock) }
  func acquire() { clinux_lock_acquire(lock) }
  func release() { clinux_lock_release(lock) }
}

/// Admits the batches of a lane one at a time, in the order of their tickets.
struct Turnstile: BitwiseCopyable, @unchecked Sendable {
  fileprivate let turnstile: UnsafeMutablePointer<clinux_turnstile>

  init(carvingFrom arena: inout Arena) {
    turnstile = arena.carveBytes(MemoryLayout<clinux_turnstile>.stride, owner: "workers: locks")
      .baseAddress!.assumingMemoryBound(to: clinux_turnstile.self)
  }

  func prepare() { clinux_turnstile_prepare(turnstile) }

  /// - Parameter number: the lane's batches are numbered from 0, without gaps.
  func ticket(_ number: UInt64) -> Ticket { Ticket(turnstile: self, number: number) }
}

/// A batch's place in the order of its lane. `leave` must be called once for every ticket.
struct Ticket: BitwiseCopyable {
  fileprivate let turnstile: Turnstile
  fileprivate let number: UInt64

  /// Waits until all batches with earlier tickets have left. Returns at once after the first time.
  func waitForTurn() { clinux_turnstile_enter(turnstile.turnstile, number) }
  /// Whether `waitForTurn` would return at once.
  var isNext: Bool { clinux_turnstile_is_open(turnstile.turnstile, number) != 0 }
  /// Admits the next batch. Call it only after `waitForTurn`.
  func leave() { clinux_turnstile_leave(turnstile.turnstile) }
}
