#if !ONE_MODULE
  @testable import Culvert
#endif

/// A TCP or UDP packet, field by field; by default a plain segment of data.
struct FlowPacket {
  var isIPv4 = true
  var isTCP = true
  /// Last bytes of the addresses.
  var source: UInt8 = 1
  var destination: UInt8 = 2
  var sourcePort: UInt16 = 40_000
  var destinationPort: UInt16 = 443
  var trafficClass: UInt8 = 0
  var flowLabel: UInt32 = 0
  var timeToLive: UInt8 = 64
  var identification: UInt16 = 0
  var fragmentField: UInt16 = 0x4000
  /// IPv4 options, a multiple of 4 bytes, or an IPv6 destination options header without its first
  /// byte.
  var networkOptions: [UInt8] = []
  var sequence: UInt32 = 1
  var acknowledgement: UInt32 = 77
  var flags: UInt8 = 0x10
  var window: UInt16 = 512
  var urgent: UInt16 = 0
  var tcpOptions: [UInt8] = []
  var payload: [UInt8] = []

  /// A timestamp option with padding, 12 bytes, as in nearly every TCP segment.
  static func timestamp(_ value: UInt32) -> [UInt8] {
    [1, 1, 8, 10] + big(value) + big(9 as UInt32)
  }

  private static func big(_ value: UInt32) -> [UInt8] {
    [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) }
  }

  private static func big(_ value: UInt16) -> [UInt8] {
    [UInt8(value >> 8), UInt8(value & 0xff)]
  }

  private var transport: [UInt8] {
    var fields: [[UInt8]] = [FlowPacket.big(sourcePort), FlowPacket.big(destinationPort)]
    if isTCP {
      let offset = UInt8(20 + tcpOptions.count) << 2
      fields += [FlowPacket.big(sequence), FlowPacket.big(acknowledgement), [offset, flags]]
      fields += [FlowPacket.big(window), [0, 0], FlowPacket.big(urgent), tcpOptions]
    } else {
      fields += [FlowPacket.big(UInt16(8 + payload.count)), [0, 0]]
    }
    return Array(fields.joined()) + payload
  }

  private var network: [UInt8] {
    let number: UInt8 = isTCP ? 6 : 17
    var fields: [[UInt8]]
    if isIPv4 {
      let header = 20 + networkOptions.count
      fields = [[0x40 | UInt8(header / 4), trafficClass]]
      fields += [FlowPacket.big(UInt16(header + transport.count)), FlowPacket.big(identification)]
      fields += [FlowPacket.big(fragmentField), [timeToLive, number, 0, 0]]
      fields += [[10, 0, 0, source], [10, 0, 0, destination], networkOptions]
    } else {
      let options = networkOptions.isEmpty ? [] : [number] + networkOptions
      let prefix: [UInt8] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
      fields = [FlowPacket.big(6 << 28 | UInt32(trafficClass) << 20 | flowLabel)]
      fields += [FlowPacket.big(UInt16(options.count + transport.count))]
      fields += [[options.isEmpty ? number : 60, timeToLive]]
      fields += [prefix, [source], prefix, [destination], options]
    }
    return Array(fields.joined())
  }

  /// The packet with both checksums.
  var bytes: [UInt8] { written(leaving: false) }

  /// The packet with the pseudo-header's sum where the transport checksum belongs.
  var unfinishedBytes: [UInt8] { written(leaving: true) }

  private func written(leaving: Bool) -> [UInt8] {
    var model = PacketModel(network + transport)!
    model.updateChecksums()
    if leaving { model.leaveChecksum() }
    return model.bytes
  }

  /// The offload that a TUN would report.
  func offload(segmentByteCount: Int) -> PacketOffload {
    PacketOffload(
      segmentation: isTCP ? (isIPv4 ? .tcpIPv4 : .tcpIPv6) : .udp, needsChecksum: true,
      checksumStart: network.count, checksumOffset: isTCP ? 16 : 6,
      segmentByteCount: segmentByteCount)
  }

  /// A random packet with a segmentation offload, as a kernel may produce it.
  static func random(
    payloadByteCount: Int, using random: inout some RandomNumberGenerator
  ) -> FlowPacket {
    var packet = FlowPacket(isIPv4: .random(using: &random), isTCP: .random(using: &random))
    packet.trafficClass = .random(in: 0...255, using: &random)
    packet.flowLabel = .random(in: 0...0xf_ffff, using: &random)
    packet.identification = .random(in: 0...0xffff, using: &random)
    packet.fragmentField = Bool.random(using: &random) ? 0x4000 : 0
    packet.sequence = .random(in: 0...UInt32.max, using: &random)
    packet.acknowledgement = .random(in: 0...UInt32.max, using: &random)
    packet.flags = 0x10 | .random(in: 0...255, using: &random)
    packet.window = .random(in: 0...0xffff, using: &random)
    packet.tcpOptions = (0..<4 * Int.random(in: 0...10, using: &random)).map { _ in
      .random(in: 0...255, using: &random)
    }
    if Int.random(in: 0..<4, using: &random) == 0 {
      packet.networkOptions =
        packet.isIPv4
        ? [UInt8](repeating: 1, count: 4 * Int.random(in: 1...10, using: &random))
        : [1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }
    packet.payload = (0..<payloadByteCount).map { _ in .random(in: 0...255, using: &random) }
    return packet
  }
}
