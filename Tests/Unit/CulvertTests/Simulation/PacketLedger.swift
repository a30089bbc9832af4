@testable import Culvert

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
