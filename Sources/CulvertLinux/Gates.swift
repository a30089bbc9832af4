import CLinux
import Culvert

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

/// Lets workers through in the order of their tickets, one at a time.
struct Turnstile: BitwiseCopyable, @unchecked Sendable {
  private let turnstile: UnsafeMutablePointer<clinux_turnstile>

  init(carvingFrom arena: inout Arena) {
    turnstile = arena.carveBytes(MemoryLayout<clinux_turnstile>.stride, owner: "workers: locks")
      .baseAddress!.assumingMemoryBound(to: clinux_turnstile.self)
  }

  func prepare() { clinux_turnstile_prepare(turnstile) }
  /// Waits until all tickets before this one have left.
  func enter(_ ticket: UInt64) { clinux_turnstile_enter(turnstile, ticket) }
  /// Whether `enter` would go through at once.
  func isOpen(_ ticket: UInt64) -> Bool { clinux_turnstile_is_open(turnstile, ticket) != 0 }
  func leave() { clinux_turnstile_leave(turnstile) }
}

/// What keeps the workers apart, in the order in which it is taken.
struct Gates: BitwiseCopyable {
  /// Held by the worker that leads: it waits for events, reads and receives, and runs the control
  /// path.
  let lead: Lock
  /// In front of the last steps of the lanes.
  let outbound: Turnstile
  let inbound: Turnstile
  /// The tunnel's tables, and the log. Held for the table work of a batch, never over the cipher or
  /// the reading and writing of packets.
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
