import Testing

@testable import Culvert

/// What was sent, and what came out: byte for byte, once at most, and only from who may.
struct PacketLedger {
  private var sent: [UInt64: [UInt8]] = [:]
  private var targets: [UInt64: Int] = [:]
  private var forbidden: Set<UInt64> = []
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

  /// A packet between two nodes that names itself.
  ///
  /// - Parameter claimed: the node whose address it has as its source: another one's is forbidden.
  mutating func make(
    from source: Int, claiming claimed: Int, to target: Int, byteCount: Int, isIPv6: Bool
  ) -> [UInt8] {
    let number = next
    next += 1
    var payload = (0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
    payload.append(UInt8(source))
    payload += [UInt8](
      repeating: UInt8(truncatingIfNeeded: number &* 167 &+ 13), count: max(0, byteCount - 49))
    let packet =
      isIPv6
      ? TestPacket.ipv6(
        from: PacketLedger.address6(of: claimed), to: PacketLedger.address6(of: target),
        payload: payload)
      : TestPacket.ipv4(
        from: PacketLedger.address(of: claimed), to: PacketLedger.address(of: target),
        payload: payload)
    sent[number] = packet
    targets[number] = target
    if source != claimed { forbidden.insert(number) }
    return packet
  }

  /// - Returns: what is wrong with the delivery; nil where nothing is.
  mutating func deliver(_ packet: [UInt8], at node: Int) -> String? {
    let header = packet[0] >> 4 == 4 ? 20 : 40
    guard packet.count > header + 8 else { return "a packet that nobody sent" }
    let number = (0..<8).reduce(0) { $0 | UInt64(packet[header + $1]) << (8 * UInt64($1)) }
    guard sent[number] == packet else { return "packet \(number) was altered" }
    guard targets[number] == node else { return "packet \(number) came to a stranger" }
    guard !forbidden.contains(number) else { return "packet \(number) has a forged source" }
    guard delivered.insert(number).inserted else { return "packet \(number) came twice" }
    deliveries[[Int(packet[header + 8]), node], default: 0] += 1
    return nil
  }
}
