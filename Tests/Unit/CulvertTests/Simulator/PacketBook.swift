#if !ONE_MODULE
  @testable import Culvert
#endif

/// Every packet that a program has written, to judge the packets that are delivered: each must be
/// delivered byte for byte, at most once, and only to the host that the sender's routes led to.
struct PacketBook {
  private struct Entry {
    /// The host that wrote it, and the one whose address it has as its source.
    var source: Int
    var claimed: Int
    /// The host that it was sent to; nil for none.
    var target: Int?
    var isDelivered = false
  }

  /// By hash of their bytes. Each packet contains its number, so no two are equal.
  private var entries: [UInt64: Entry] = [:]
  private var count: UInt64 = 0
  private(set) var deliveredCount = 0

  /// A packet between two hosts that contains its number, or TCP or UDP to be segmented, where each
  /// segment does.
  ///
  /// - Parameters:
  ///   - claimed: the host whose address is the source; it is forged unless that is the sender.
  ///   - addressee: the host whose address is the destination.
  ///   - target: the host that the sender's routes lead to.
  ///   - segmentCount: 0 for a packet that is complete.
  mutating func write(
    from source: Int, claiming claimed: Int, to addressee: Int, target: Int?, byteCount: Int,
    isIPv6: Bool, segmentCount: Int = 0
  ) -> TunPacket {
    let packet =
      segmentCount > 0
      ? segments(claimed, addressee, count: segmentCount, size: max(8, byteCount), isIPv6)
      : TunPacket(whole(claimed, addressee, byteCount: byteCount, isIPv6))
    let entry = Entry(source: source, claimed: claimed, target: target)
    for segment in packet.segments {
      entries[segment.withUnsafeBytes { PacketBook.hash($0) }] = entry
    }
    return packet
  }

  private mutating func nextName() -> [UInt8] {
    count += 1
    return withUnsafeBytes(of: count.littleEndian) { [UInt8]($0) }
  }

  private mutating func whole(
    _ claimed: Int, _ addressee: Int, byteCount: Int, _ isIPv6: Bool
  ) -> [UInt8] {
    let filling = UInt8(truncatingIfNeeded: count &* 167 &+ 13)
    let payload = nextName() + [UInt8](repeating: filling, count: max(0, byteCount - 48))
    return isIPv6
      ? TestPacket.ipv6(
        from: HostSettings.address6(of: claimed), to: HostSettings.address6(of: addressee),
        payload: payload)
      : TestPacket.ipv4(
        from: HostSettings.address(of: claimed), to: HostSettings.address(of: addressee),
        payload: payload)
  }

  private mutating func segments(
    _ claimed: Int, _ addressee: Int, count segmentCount: Int, size: Int, _ isIPv6: Bool
  ) -> TunPacket {
    var flow = FlowPacket(isIPv4: !isIPv6, isTCP: count % 2 == 0)
    flow.fragmentField = count % 3 == 0 ? 0 : 0x4000
    flow.sourcePort = 1000 + UInt16(truncatingIfNeeded: claimed)
    flow.identification = UInt16(truncatingIfNeeded: count)
    flow.sequence = UInt32(truncatingIfNeeded: count &* 0x9e37_79b9)
    for _ in 0..<segmentCount {
      flow.payload += nextName() + [UInt8](repeating: 7, count: size - 8)
    }
    // The last one may be shorter.
    flow.payload.removeLast(min(size - 8, Int(count % 5)))
    // The host part of both addresses; the rest is the number of the host.
    flow.source = 1
    flow.destination = 1
    var model = PacketModel(flow.bytes)!
    for (place, host) in [(0, claimed), (1, addressee)] {
      let offset = flow.isIPv4 ? 12 + 4 * place + 1 : 8 + 16 * place + 2
      model.set(host, at: offset)
    }
    model.updateNetworkChecksum()
    model.leaveChecksum()
    return TunPacket(model, flow.offload(segmentByteCount: size))
  }

  /// What is known about a packet that is delivered.
  struct Delivery {
    var source: Int
    var claimed: Int
  }

  enum Judgement {
    case delivered(Delivery)
    case wrong(String)
  }

  mutating func deliver(_ packet: UnsafeRawBufferPointer, at host: Int) -> Judgement {
    let hash = PacketBook.hash(packet)
    guard let entry = entries[hash] else { return .wrong("a packet that nobody sent, or not so") }
    guard entry.target == host else { return .wrong("a packet came to a stranger") }
    guard !entry.isDelivered else { return .wrong("a packet came twice") }
    entries[hash]?.isDelivered = true
    deliveredCount += 1
    return .delivered(Delivery(source: entry.source, claimed: entry.claimed))
  }

  private static func hash(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    var hash = UInt64(bytes.count) &* 0x9e37_79b9_7f4a_7c15
    var offset = 0
    while offset + 8 <= bytes.count {
      hash ^= bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      hash = (hash &* 0xbf58_476d_1ce4_e5b9) ^ (hash &>> 29)
      offset += 8
    }
    while offset < bytes.count {
      hash = (hash ^ UInt64(bytes[offset])) &* 0x94d0_49bb_1331_11eb
      offset += 1
    }
    return hash ^ hash &>> 32
  }
}
