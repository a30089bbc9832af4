import Testing

@testable import Culvert

/// What must hold for a tunnel between any two calls.
struct TunnelInvariants {
  private static let verdicts = (0..<Verdict.count).compactMap(Verdict.init(rawValue:))
  private var counters = [UInt64](repeating: 0, count: verdicts.count)
  /// Send counters by local index: those of one session only grow.
  private var sendCounters: [UInt32: UInt64] = [:]

  /// - Returns: what is wrong; nil if nothing is.
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
    if node.tunnel.queuedHandshakes + node.freeHandshakeSlots != node.limits.handshakeRing {
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

/// Sent and delivered packets: each is delivered byte for byte, at most once, and only from a
/// permitted source.
struct PacketLedger {
  private struct Entry {
    var number: UInt64
    var source: Int
    var target: Int
    var isForbidden: Bool
  }

  /// Each packet contains its number, so no two are equal.
  private var sent: [[UInt8]: Entry] = [:]
  private var delivered: Set<UInt64> = []
  private var next: UInt64 = 0
  /// Deliveries by sender and receiver.
  private(set) var deliveries: [[Int]: Int] = [:]

  static func address(of node: Int, host: UInt8 = 1) -> IPAddress {
    ipv4(10, 0, UInt8(node), host)
  }

  static func address6(of node: Int) -> IPAddress {
    ipv6(0xfd00 << 48 | UInt64(node) << 32, 1)
  }

  /// A packet between two nodes that contains its number.
  ///
  /// - Parameter claimed: the node whose address is the packet's source; it is forged unless that
  ///   is the sender.
  mutating func make(
    from source: Int, claiming claimed: Int, to target: Int, byteCount: Int, isIPv6: Bool
  ) -> [UInt8] {
    let payload =
      name(next) + [UInt8](repeating: filling(next), count: max(0, byteCount - 48))
    let packet =
      isIPv6
      ? TestPacket.ipv6(
        from: PacketLedger.address6(of: claimed), to: PacketLedger.address6(of: target),
        payload: payload)
      : TestPacket.ipv4(
        from: PacketLedger.address(of: claimed), to: PacketLedger.address(of: target),
        payload: payload)
    enter(packet, from: source, claiming: claimed, to: target)
    return packet
  }

  /// TCP or UDP between two nodes, to be segmented; each segment contains its number.
  ///
  /// - Parameter size: bytes of payload of each segment, at least 8.
  mutating func makeSegments(
    from source: Int, claiming claimed: Int, to target: Int, count: Int, size: Int, flow: FlowPacket
  ) -> TunPacket {
    var flow = flow
    flow.sourcePort = 1000 + UInt16(source)
    flow.identification = UInt16(truncatingIfNeeded: next)
    flow.sequence = UInt32(truncatingIfNeeded: next &* 0x9e37_79b9)
    flow.payload = (0..<UInt64(count)).flatMap {
      name(next + $0) + [UInt8](repeating: filling(next + $0), count: size - 8)
    }
    // The last one may be shorter.
    flow.payload.removeLast(min(size - 8, Int(next % 5)))
    // The third byte of either address is the node; the host part is 1.
    flow.source = 1
    flow.destination = 1
    var model = PacketModel(flow.bytes)!
    for (place, node) in [(0, claimed), (1, target)] {
      let offset = flow.isIPv4 ? 12 + 4 * place + 2 : 8 + 16 * place + 3
      model.bytes[offset] = UInt8(node)
    }
    model.updateNetworkChecksum()
    model.leaveChecksum()
    let packet = TunPacket(model, flow.offload(segmentByteCount: size))
    for segment in packet.segments { enter(segment, from: source, claiming: claimed, to: target) }
    return packet
  }

  private func name(_ number: UInt64) -> [UInt8] {
    (0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
  }

  private func filling(_ number: UInt64) -> UInt8 {
    UInt8(truncatingIfNeeded: number &* 167 &+ 13)
  }

  private mutating func enter(
    _ packet: [UInt8], from source: Int, claiming claimed: Int, to target: Int
  ) {
    sent[packet] = Entry(
      number: next, source: source, target: target, isForbidden: source != claimed)
    next += 1
  }

  /// - Returns: what is wrong with the delivery; nil if nothing is.
  mutating func deliver(_ packet: [UInt8], at node: Int) -> String? {
    guard let entry = sent[packet] else { return "a packet that nobody sent, or not like this" }
    let number = entry.number
    guard entry.target == node else { return "packet \(number) came to a stranger" }
    guard !entry.isForbidden else { return "packet \(number) has a forged source" }
    guard delivered.insert(number).inserted else { return "packet \(number) came twice" }
    deliveries[[entry.source, node], default: 0] += 1
    return nil
  }
}
