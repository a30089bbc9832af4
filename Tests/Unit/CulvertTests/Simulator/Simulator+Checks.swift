#if !ONE_MODULE
  @testable import Culvert
#endif

/// What must hold when the trouble is over.
extension Simulator {
  /// By then, every pair must have exchanged a packet. The longest way: data is sent into a session
  /// that the other end no longer has, so the new handshake begins after 15 s; then the initiation
  /// is answered with a cookie, or both ends have started one at the same time, so another one
  /// follows after rekey-timeout, jitter, and the delay of who yields.
  static let longestRecovery =
    WireGuard.keepaliveTimeout + WireGuard.rekeyTimeout + Policy.handshakeJitter
    + 2 * (WireGuard.rekeyTimeout + Policy.handshakeJitter + Policy.overruledInitiationDelay)
    + TimestampSource.holdTime + nanosecondsPerSecond

  /// Ends all trouble, and corrects what users have set wrongly. Clocks stay wrong, except those of
  /// hosts that have lost their timestamp: nothing else could make their initiations acceptable.
  func heal() {
    network.isHealed = true
    network.sides = []
    runTasks(all: true)
    for host in hosts {
      host.resume = now
      host.disk.thaw(at: now)
      host.setUp(true, at: now)
      host.setMTU(Policy.defaultMTU)
      if lostState.contains(host.number), let stamp = keys.greatest[host.number] {
        while TAI64N(host.wall(now)) <= stamp {
          host.wallOffset += 1_000_000 * Int64(nanosecondsPerSecond)
        }
      }
      touch(host.number)
    }
    // What was sent before arrives first; a late datagram from an old address would lead its peer
    // there.
    pass(FaultyNetwork.longestDelay + nanosecondsPerSecond)
    var generator = plan.generator(90)
    for (left, right) in links {
      // It is enough if one of the two knows where the other is.
      correct(right, at: left, endpoint: !plan.isHub && generator.next() % 2 == 0)
      correct(left, at: right, endpoint: true)
    }
  }

  private func correct(_ other: Int, at number: Int, endpoint: Bool) {
    introduce(other, at: number)
    let host = hosts[number]
    let key = hosts[other].publicKey
    guard let peer = host.settings.peer(of: other) else { return }
    let right = presharedKeys[[min(number, other), max(number, other)]]
    let none = [UInt8](repeating: 0, count: WireGuard.keyByteCount)
    if peer.presharedKey != right ?? none { host.setPresharedKey(right ?? none, of: key) }
    if host.settings.owners[other] != key { host.route(other, to: key) }
    if endpoint, host.currentEndpoint(of: key) != hosts[other].endpoint {
      host.setEndpoint(hosts[other].endpoint, of: key, at: now)
    }
  }

  /// Whatever has happened, two hosts with packets to send find each other again, and then no
  /// packet is lost.
  func checkLiveness() {
    let begin = now
    arrived = []
    var waiting = links
    while problem == nil, !waiting.isEmpty {
      for (left, right) in waiting {
        writeProbe(from: left, to: right)
        writeProbe(from: right, to: left)
      }
      pass(nanosecondsPerSecond)
      waiting.removeAll { arrived.contains([$0.0, $0.1]) && arrived.contains([$0.1, $0.0]) }
      guard waiting.isEmpty || now.since(begin) < Simulator.longestRecovery else {
        let (left, right) = waiting[0]
        let way = arrived.contains([left, right]) ? "\(right) to \(left)" : "\(left) to \(right)"
        return fail("no packet arrives from \(way) after the end of all trouble", left)
      }
    }
    recovery = now.since(begin)
    // If a clock has leapt, a session ends earlier at one end than at the other, which still sends.
    guard lastLeap.map({ now.since($0) > WireGuard.rejectAfterTime }) ?? true else { return }
    for _ in 0..<3 where problem == nil { checkEachPacketArrives() }
  }

  /// Writes a packet each way between all pairs. If a session has just ended, they wait for another
  /// one, which may take a second attempt.
  private func checkEachPacketArrives() {
    arrived = []
    for (left, right) in links {
      writeProbe(from: left, to: right)
      writeProbe(from: right, to: left)
    }
    var ways = links.flatMap { [[$0.0, $0.1], [$0.1, $0.0]] }
    let begin = now
    while problem == nil, !ways.isEmpty {
      pass(nanosecondsPerSecond)
      ways.removeAll { arrived.contains($0) }
      if let way = ways.first, now.since(begin) >= Simulator.longestRecovery {
        fail("a packet from \(way[0]) to \(way[1]) is lost after the end of all trouble", way[0])
      }
    }
  }

  /// Idle tunnels end their sessions, free all memory, and never wake again.
  func checkSilence() {
    for host in hosts {
      for peer in host.settings.peers where peer.keepalive > 0 {
        host.setKeepalive(0, of: peer.key, at: now)
      }
      touch(host.number)
    }
    pass(1200 * nanosecondsPerSecond)
    for host in hosts where problem == nil {
      fail(host.invariants.check(host, at: now, isThorough: true), host.number)
      if host.wake(now) != .max { fail("an idle tunnel wakes", host.number) }
      if host.tunnel.indices.count != 0 { fail("an idle tunnel has sessions", host.number) }
      if host.tunnel.stagingPool.freeCount != host.limits.stagingSlots {
        fail("an idle tunnel holds staged packets", host.number)
      }
      if host.tunnel.handshakePool.freeCount != host.limits.handshakeRing {
        fail("an idle tunnel holds handshake messages", host.number)
      }
    }
  }
}
