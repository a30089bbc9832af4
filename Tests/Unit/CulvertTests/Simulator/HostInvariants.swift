#if !ONE_MODULE
  @testable import Culvert
#endif

/// What must hold for the tunnel of a host between any two calls.
struct HostInvariants {
  private var counters = [UInt64](repeating: 0, count: Int(Verdict.count))
  private var checks = 0

  /// - Parameter isThorough: also looks at every peer of a host with many.
  /// - Returns: what is wrong; nil if nothing is.
  mutating func check(_ host: SimulatedHost, at now: Instant, isThorough: Bool) -> String? {
    for verdict in counters.indices {
      let count = host.tunnel.counters[Verdict(rawValue: UInt8(verdict))!]
      if count < counters[verdict] { return "a counter went back" }
      counters[verdict] = count
    }
    if host.tunnel.nextDeadline(at: host.local(now)).isDue(at: host.local(now)) {
      return "a deadline in the past after the timers were run"
    }
    if host.tunnel.queuedHandshakes + host.tunnel.handshakePool.freeCount
      != host.limits.handshakeRing
    {
      return "handshake slots have leaked"
    }
    if host.tunnel.initiations.count > 0 { return "an initiation is due and was not sent" }
    if host.tunnel.counters[.routingLoop] > 0 { return "a loop where there is none" }
    checks += 1
    guard isThorough || host.settings.peers.count <= 16 || checks % 64 == 0 else { return nil }
    return checkPeers(of: host, at: now)
  }

  private func checkPeers(of host: SimulatedHost, at now: Instant) -> String? {
    var indices = 0
    var heldSlots = 0
    var peers = 0
    var problem: String?
    var most = 0
    let next = host.tunnel.nextDeadline(at: host.local(now))
    host.withPeers { peer in
      peers += 1
      heldSlots += peer.pointee.staged.heldSlots
      problem = problem ?? checkIndices(of: peer, host, &indices) ?? checkSessions(of: peer)
      if Int(peer.pointee.staged.packetCount) > host.limits.stagedPacketsPerPeer {
        problem = problem ?? "more is staged than one peer may"
      }
      most = max(most, peer.pointee.staged.heldSlots)
      if host.tunnel.isUp, peer.pointee.timers.next < next {
        problem = problem ?? "a timer is not in the schedule"
      }
      if peer.pointee.path?.endpoint == FaultyNetwork.forger {
        problem = problem ?? "a peer roamed by a message that is not authentic"
      }
      if peer.pointee.timers.wantsInitiation, !peer.pointee.timers.work.isSet {
        problem = problem ?? "an initiation is requested and not due"
      }
    }
    if let problem { return problem }
    if peers != host.settings.peers.count { return "peers are not as configured" }
    if indices != host.tunnel.indices.count { return "indices have leaked" }
    if heldSlots + host.tunnel.stagingPool.freeCount != host.limits.stagingSlots {
      return "staging slots have leaked"
    }
    let largest = host.tunnel.stagingShares.largest.map { host.tunnel.peers[$0].staged.heldSlots }
    if largest ?? 0 != most { return "another peer holds more staging slots" }
    if !host.tunnel.isUp, indices != 0 || heldSlots != 0 {
      return "a tunnel holds state while down"
    }
    return nil
  }

  private func checkIndices(
    of peer: UnsafeMutablePointer<Peer>, _ host: SimulatedHost, _ count: inout Int
  ) -> String? {
    let uses: [(UInt32, IndexKind)] = [
      (peer.pointee.handshake.localIndex, .handshake),
      (peer.pointee.keypairs.current.localIndex, .keypair),
      (peer.pointee.keypairs.previous.localIndex, .keypair),
      (peer.pointee.keypairs.next.localIndex, .keypair),
    ]
    for (index, kind) in uses where index != 0 {
      count += 1
      guard let entry = host.tunnel.indices.find(index) else { return "an index is not found" }
      if entry.peer != peer.pointee.id { return "an index names another peer" }
      if entry.kind != kind.rawValue { return "an index has the wrong kind" }
    }
    return nil
  }

  private func checkSessions(of peer: UnsafeMutablePointer<Peer>) -> String? {
    peer.pointee.keypairs.current.sendCounter > WireGuard.rejectAfterMessages
      ? "a counter passed its limit" : nil
  }
}
