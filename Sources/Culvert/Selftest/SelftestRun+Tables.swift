/// The tables, under seeded operations. What they have to answer, Tests/Selftest finds out with a
/// set, a list and a dictionary.
extension SelftestRun {
  /// Counters on both sides of 2^32, and the last ones that there are.
  @_optimize(size)
  mutating func replay() {
    let bits = arena.carve(UInt64.self, count: ReplayWindow.wordCount, owner: "selftest")
    var window = ReplayWindow(bits: bits.baseAddress!)
    var greatest: UInt64 = 0
    // The first one, the draws, and the last ones.
    for index in 0..<16_389 {
      let step = UInt64(number(below: 16_384))
      var counter: UInt64
      switch number(below: 8) {
      case 0...3: counter = greatest &+ 1 &+ step & 3
      case 4: counter = greatest &+ step >> 4
      case 5: counter = greatest &- 8184 &- step & 15
      default: counter = greatest &- step
      }
      if index == 0 { counter = 1 << 32 - 9000 }
      if index > 16_384 {
        counter =
          WireGuard.rejectAfterMessages &- 2 &+ UInt64(truncatingIfNeeded: index - 16_385)
      }
      let isAccepted = window.accept(counter)
      digest.add(isAccepted)
      if isAccepted { greatest = max(greatest, counter) }
    }
  }

  /// Prefixes of few different bits, so that most lie in others.
  @_optimize(size)
  mutating func routing() {
    let limits = Limits(
      peers: 4, allowedIPs: 48, stagedPacketsPerPeer: 1, stagingSlots: 1, handshakeRing: 1,
      rateLimiterEntries: 1, batchPackets: 1, batchByteCount: 1, maximumMTU: 1)
    var table = AllowedIPs(carvingFrom: &arena, limits: limits)
    table.prepare()
    for _ in 0..<4096 {
      let high = random.uint64() & 0xf000_0003_0000_0001
      let low = random.uint64() & 0x8000_0000_0000_0001
      let isIPv4 = number(below: 2) == 0
      let length = number(below: 256) % (isIPv4 ? 33 : 129)
      let peer = UInt32(number(below: 4))
      let address =
        isIPv4
        ? IPAddress(ipv4: UInt32(truncatingIfNeeded: high >> 32))
        : IPAddress(ipv6High: high, low: low)
      guard let prefix = IPPrefix(address, length: length) else { continue }
      switch number(below: 8) {
      case 0...1: digest.add(table.insert(prefix, peer: peer))
      case 2: digest.add(table.remove(prefix, peer: peer))
      case 3: if length == 0 { table.removeAll(peer: peer) }
      default: digest.add(UInt64(table.route(address) ?? .max))
      }
    }
    digest.add(UInt64(table.count))
  }

  /// Which of many deadlines is due first, and what one peer's timers do when nobody answers:
  /// initiations until it is given up, then the wiping of its keys. In the 293rd year of uptime.
  @_optimize(size)
  mutating func timers() {
    var schedule = Schedule(carvingFrom: &arena, peers: 32)
    for _ in 0..<4096 {
      let peer = UInt32(number(below: 32))
      // No two are equal, so that there is one first.
      let deadline = Deadline(nanoseconds: random.uint64() & ~31 | UInt64(peer))
      switch number(below: 4) {
      case 0: schedule.remove(peer)
      case 1:
        if let top = schedule.top {
          schedule.replaceTop(
            Deadline(nanoseconds: deadline.nanoseconds & ~31 | UInt64(top.peer)))
        }
      default: schedule.lower(peer, to: deadline)
      }
      digest.add(schedule.top?.deadline.nanoseconds ?? .max)
    }
    silence()
  }

  @inline(never) @_optimize(size)
  private mutating func silence() {
    var loopback = Loopback(carvingFrom: &arena, at: Instant(nanoseconds: 1 << 63 | 1))
    loopback.start(isSeeded: false)
    loopback.stage(byteCount: 64)
    for _ in 0..<48 {
      guard let due = loopback.nextDeadline(of: Loopback.initiator).instant else { break }
      loopback.now = due
      loopback.advance(Loopback.initiator)
      loopback.transfer(from: Loopback.initiator)
      digest.add(due.nanoseconds)
      digest.add(UInt64(loopback.inbound.count))
    }
  }

  /// Instants, deadlines and stamps at the edges of 32 and 64 bits.
  @_optimize(size)
  mutating func time() {
    let stamp = bytes(12)
    for index in 0..<SelftestRun.edgeCount {
      let edge = SelftestRun.edge(index)
      let duration = random.uint64() >> (edge & 63)
      let now = Instant(nanoseconds: edge)
      let later = now.advanced(by: duration)
      digest.add(later.nanoseconds)
      digest.add(later.since(now))
      digest.add(now.since(Instant(nanoseconds: duration)))
      digest.add(Deadline(later).isDue(at: now))
      digest.add(Deadline.after(edge, from: Instant(nanoseconds: duration)).isDue(at: later))
      let wall = WallTime(seconds: edge, nanoseconds: UInt32(truncatingIfNeeded: duration))
      let time = TAI64N(wall)
      time.write(to: stamp)
      digest.add(stamp, byteCount: 12)
      time.next.write(to: stamp)
      digest.add(stamp, byteCount: 12)
      digest.add(time < TAI64N(at: stamp))
    }
  }
}
