@testable import Culvert

/// Packets of several flows, as a tunnel may deliver them: mostly data that continues, mixed with
/// all kinds of packets that must not be joined.
struct JoinTraffic {
  private var flows: [FlowPacket] = []
  private var random: SeededGenerator
  private var sent: [[UInt8]] = []
  /// Segment size of each flow.
  private var sizes: [Int] = []
  private var hasFixedIdentification: [Bool] = []

  init(seed: UInt64, flowCount: Int) {
    random = SeededGenerator(seed: seed)
    for number in 0..<flowCount {
      var flow = FlowPacket(isIPv4: number % 2 == 0, isTCP: number % 3 != 2)
      // Some between the same hosts, some with the same ports.
      flow.source = UInt8(1 + number / 4)
      flow.sourcePort = UInt16(1000 + number % 4)
      flow.sequence = .random(in: 0xffff_0000...UInt32.max, using: &random)
      flow.identification = .random(in: 0xfff0...0xffff, using: &random)
      flow.fragmentField = Bool.random(using: &random) ? 0x4000 : 0
      if Bool.random(using: &random) { flow.tcpOptions = FlowPacket.timestamp(UInt32(number)) }
      flows.append(flow)
      sizes.append([1, 10, 64, 200].randomElement(using: &random)!)
      hasFixedIdentification.append(flow.fragmentField != 0 && Bool.random(using: &random))
    }
  }

  /// Mostly ACK with PSH; each other flag; no flags.
  private static let flags: [UInt8] = [
    0x18, 0x18, 0x18, 0x18, 0x11, 0x12, 0x14, 0x30, 0x50, 0x90, 0x19, 0,
  ]

  mutating func packets(_ count: Int) -> [[UInt8]] {
    sent = []
    while sent.count < count {
      let flow = Int.random(in: 0..<flows.count, using: &random)
      let run = Int.random(in: 1...5, using: &random)
      for _ in 0..<run where sent.count < count {
        let isUsual = Int.random(in: 0..<6, using: &random) != 0
        sent.append(isUsual ? data(flow) : unusual(flow))
      }
      // Two packets that were reordered on the path.
      if sent.count >= 2, Int.random(in: 0..<12, using: &random) == 0 {
        sent.swapAt(sent.count - 1, sent.count - 2)
      }
    }
    return sent
  }

  private mutating func data(_ index: Int, byteCount: Int? = nil) -> [UInt8] {
    var packet = flows[index]
    packet.payload = random.bytes(byteCount ?? sizes[index])
    flows[index].sequence &+= UInt32(packet.payload.count)
    if !hasFixedIdentification[index] { flows[index].identification &+= 1 }
    return packet.bytes
  }

  private mutating func unusual(_ index: Int) -> [UInt8] {
    switch Int.random(in: 0..<16, using: &random) {
    case 0: return sent.randomElement(using: &random) ?? data(index)
    case 1: return data(index, byteCount: Int.random(in: 0...sizes[index], using: &random))
    case 2: return data(index, byteCount: sizes[index] + 1)
    case 3: flows[index].acknowledgement &+= 1
    case 4: flows[index].window &+= 1
    case 5: flows[index].trafficClass ^= 3
    case 6: flows[index].timeToLive ^= 1
    case 7: flows[index].identification &+= 1
    case 8: flows[index].sequence &+= 1
    case 9: flows[index].flowLabel ^= 1
    case 10:
      if !flows[index].tcpOptions.isEmpty { flows[index].tcpOptions[7] &+= 1 }
    case 11:
      let flags = JoinTraffic.flags.randomElement(using: &random)!
      return altered(index) { $0.flags = flags }
    case 12: return altered(index) { $0.fragmentField = 0x2000 }
    case 13:
      return altered(index) {
        $0.networkOptions = $0.isIPv4 ? [1, 1, 1, 1] : [0, 1, 4, 0, 0, 0, 0]
      }
    case 14:
      var packet = data(index)
      let place = Int.random(in: 0..<packet.count, using: &random)
      packet[place] ^= 1 << Int.random(in: 0..<8, using: &random)
      return packet
    default:
      let packet = data(index)
      return Bool.random(using: &random) ? packet + [0] : packet.dropLast()
    }
    return data(index)
  }

  /// One packet of a flow that differs in some way.
  private mutating func altered(_ index: Int, _ change: (inout FlowPacket) -> Void) -> [UInt8] {
    let flow = flows[index]
    change(&flows[index])
    let bytes = data(index)
    let (sequence, identification) = (flows[index].sequence, flows[index].identification)
    flows[index] = flow
    flows[index].sequence = sequence
    flows[index].identification = identification
    return bytes
  }
}
