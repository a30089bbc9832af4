#if !ONE_MODULE
  @testable import Culvert
#endif

/// The disk of a host, which holds the file with its timestamp. It takes time to write, sometimes
/// long, and a crash loses what is not written yet.
struct SimulatedDisk {
  private struct Write {
    var stamp: TAI64N
    var begin: Instant
    var end: Instant
  }

  /// The contents of the file.
  private(set) var stored: TAI64N?
  /// Nanoseconds that a write takes. If 0, the program waits for it, otherwise the tunnel does.
  var latency: UInt64 = 0
  /// Whether a timestamp that was sent may not be covered by the file: the file was lost, or the
  /// tunnel stopped waiting for it (R41).
  var hasLost = false

  private var writes: [Write] = []
  private var hangEnd = Instant(nanoseconds: 0)

  /// Writes of a hanging disk end at this time, at the earliest.
  mutating func hang(until end: Instant) {
    guard latency > 0 else { return }
    hangEnd = max(hangEnd, end)
    for index in writes.indices { writes[index].end = max(writes[index].end, hangEnd) }
  }

  /// Ends the hanging.
  mutating func thaw(at now: Instant) {
    hangEnd = now
    for index in writes.indices { writes[index].end = min(writes[index].end, now) }
  }

  var isWriting: Bool { !writes.isEmpty }

  /// When the next write ends, in nanoseconds.
  var due: UInt64 { writes.first?.end.nanoseconds ?? .max }

  mutating func write(_ stamp: TAI64N, at now: Instant) {
    guard latency > 0 else {
      stored = stamp
      return
    }
    let start = max(now, writes.last?.end ?? now)
    writes.append(
      Write(stamp: stamp, begin: now, end: max(start.advanced(by: latency), hangEnd)))
  }

  /// The timestamp of the next write that has ended.
  mutating func finish(at now: Instant) -> TAI64N? {
    guard let write = writes.first, write.end <= now else { return nil }
    writes.removeFirst()
    stored = write.stamp
    if write.end.since(write.begin) >= TimestampSource.holdTime {
      // The tunnel has not waited for the writes after it either.
      for index in writes.indices { writes[index].begin = write.begin }
    }
    return write.stamp
  }

  /// The program ends. What it writes last is stored if the disk does not hang.
  mutating func crash(isOrderly: Bool, at now: Instant) {
    while finish(at: now) != nil {}
    if isOrderly, hangEnd <= now, let last = writes.last { stored = last.stamp }
    // The tunnel may have stopped waiting.
    let isLate = writes.contains { now.since($0.begin) >= TimestampSource.holdTime }
    if isLate, !isOrderly || hangEnd > now { hasLost = true }
    writes = []
  }

  mutating func lose() {
    stored = nil
    hasLost = true
  }
}
