@testable import Culvert

/// What holds of a tunnel whenever none of its functions runs.
struct TunnelInvariants {
  private static let verdicts = (0..<Verdict.count).compactMap(Verdict.init(rawValue:))
  private var counters = [UInt64](repeating: 0, count: verdicts.count)
  /// Send counters by local index: one session's only grows.
  private var sendCounters: [UInt32: UInt64] = [:]

  /// - Returns: what does not hold; nil where all does.
  mutating func check(_ node: TunnelNode, at now: Instant) -> String? {
    for verdict in TunnelInvariants.verdicts {
      let count = node.count(verdict)
      if count < counters[Int(verdict.rawValue)] { return "\(verdict) went back" }
      counters[Int(verdict.rawValue)] = count
    }
    var indices = 0
    var heldSlots = 0
    var next = node.tunnel.firstPeer
    while let id = next {
      let peer = node.state(id)
      if let problem = checkIndices(node, peer, &indices) ?? checkSessions(peer) { return problem }
      heldSlots += peer.staged.heldSlots
      if Int(peer.staged.packetCount) > node.limits.stagedPacketsPerPeer {
        return "more is staged than one peer may"
      }
      if node.tunnel.isUp, peer.timers.next < node.nextDeadline(at: now) {
        return "a timer is not in the schedule"
      }
      next = node.tunnel.peer(after: id)
    }
    if indices != node.indexCount { return "\(node.indexCount) indices for \(indices) uses" }
    if heldSlots + node.freeStagingSlots != node.limits.stagingSlots {
      return "staging slots have leaked"
    }
    if node.tunnel.handshakeRing.count + node.freeHandshakeSlots != node.limits.handshakeRing {
      return "handshake slots have leaked"
    }
    return nil
  }

  private func checkIndices(
    _ node: TunnelNode, _ peer: Peer, _ count: inout Int
  ) -> String? {
    let uses: [(UInt32, IndexKind)] = [
      (peer.handshake.localIndex, .handshake), (peer.keypairs.current.localIndex, .keypair),
      (peer.keypairs.previous.localIndex, .keypair), (peer.keypairs.next.localIndex, .keypair),
    ]
    for (index, kind) in uses where index != 0 {
      count += 1
      guard let entry = node.tunnel.indices.find(index) else { return "an index is not found" }
      if entry.peer != peer.id { return "an index names another peer" }
      if entry.kind != kind.rawValue { return "an index has the wrong kind" }
    }
    return nil
  }

  private mutating func checkSessions(_ peer: Peer) -> String? {
    let current = peer.keypairs.current
    guard current.exists else { return nil }
    if current.sendCounter < sendCounters[current.localIndex, default: 0] {
      return "a send counter went back"
    }
    sendCounters[current.localIndex] = current.sendCounter
    if current.sendCounter > WireGuard.rejectAfterMessages { return "a counter passed its limit" }
    return nil
  }
}
