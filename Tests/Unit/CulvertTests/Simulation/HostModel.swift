@testable import Culvert

/// A naive model of a host's kernel, which reassembles fragments and sends and receives UDP, and of
/// a router that fragments. Shares no code with the core.
struct HostModel {
  struct Datagram: Equatable {
    var payload: [UInt8]
    var source: Endpoint
    var destination: Endpoint
    var trafficClass: UInt8
  }

  /// A part of a datagram's payload.
  private struct Part {
    var offset: Int
    var bytes: [UInt8]
    var isLast: Bool
  }

  /// Received fragments, by addresses and identification.
  private var parts: [[UInt8]: [Part]] = [:]
  private var nextIdentification: UInt32 = 1

  private static func number(_ bytes: ArraySlice<UInt8>) -> Int {
    bytes.reduce(0) { $0 << 8 | Int($1) }
  }

  private static func address(_ bytes: ArraySlice<UInt8>) -> IPAddress {
    if bytes.count == 4 { return IPAddress(ipv4: UInt32(number(bytes))) }
    let half = bytes.startIndex + 8
    let word = { (bytes: ArraySlice<UInt8>) in bytes.reduce(UInt64(0)) { $0 << 8 | UInt64($1) } }
    return IPAddress(ipv6High: word(bytes[..<half]), low: word(bytes[half...]))
  }

  // MARK: Receiving

  /// Receives a packet without options or extensions; nil if it is invalid or its datagram
  /// incomplete.
  mutating func receive(_ packet: [UInt8]) -> Datagram? {
    guard let model = PacketModel(packet) else { return nil }
    let isIPv4 = model.isIPv4
    if isIPv4, PacketModel.sum(Array(packet[..<20])) != 0xffff { return nil }
    var part = Part(offset: 0, bytes: Array(packet[(isIPv4 ? 20 : 40)...]), isLast: true)
    var key = model.addresses
    if isIPv4 {
      part.offset = Int(model.word(6) & 0x1fff) * 8
      part.isLast = packet[6] & 0x20 == 0
      key += packet[4..<6]
    } else if packet[6] == 44 {
      guard part.bytes.count > 8 else { return nil }
      part.offset = Int(model.word(42) & 0xfff8)
      part.isLast = packet[43] & 1 == 0
      key += packet[44..<48]
      part.bytes.removeFirst(8)
    }
    guard let content = add(part, key) else { return nil }
    return HostModel.datagram(
      content, addresses: model.addresses,
      trafficClass: isIPv4 ? packet[1] : UInt8(truncatingIfNeeded: model.word(0) >> 4))
  }

  private mutating func add(_ part: Part, _ key: [UInt8]) -> [UInt8]? {
    if part.offset == 0, part.isLast { return part.bytes }
    parts[key, default: []].removeAll { $0.offset == part.offset }
    parts[key, default: []].append(part)
    var content: [UInt8] = []
    for part in parts[key, default: []].sorted(by: { $0.offset < $1.offset }) {
      guard part.offset == content.count else { return nil }
      content += part.bytes
      guard part.isLast else { continue }
      parts[key] = nil
      return content
    }
    return nil
  }

  private static func datagram(
    _ content: [UInt8], addresses: [UInt8], trafficClass: UInt8
  ) -> Datagram? {
    guard content.count >= 8, number(content[4..<6]) == content.count else { return nil }
    let pseudo = addresses + ChannelPacket.big(content.count, 4) + [0, 17]
    let hasChecksum = content[6] != 0 || content[7] != 0
    if hasChecksum, PacketModel.sum(pseudo + content) != 0xffff { return nil }
    let half = addresses.count / 2
    let end = { (host: ArraySlice<UInt8>, port: Int) in
      Endpoint(address: address(host), port: UInt16(number(content[port..<port + 2])))
    }
    return Datagram(
      payload: Array(content[8...]), source: end(addresses[..<half], 0),
      destination: end(addresses[half...], 2), trafficClass: trafficClass)
  }

  // MARK: Sending

  /// The packets of a datagram, at most `mtu` bytes each.
  mutating func packets(of datagram: Datagram, mtu: Int) -> [[UInt8]] {
    var model = ChannelPacket(
      source: datagram.source.address, destination: datagram.destination.address)
    model.sourcePort = datagram.source.port
    model.destinationPort = datagram.destination.port
    model.payload = datagram.payload
    model.trafficClass = datagram.trafficClass
    model.identification = nextIdentification
    nextIdentification += 1
    let isIPv4 = model.source.family == .ipv4
    let whole = model.bytes
    return whole.count <= mtu ? [whole] : model.fragments((mtu - (isIPv4 ? 20 : 48)) & ~7)
  }

  // MARK: Routing

  enum Routed {
    case packets([[UInt8]])
    /// An ICMPv6 error for the sender.
    case tooBig([UInt8])
  }

  /// A router that forwards a packet over a link of `mtu` bytes. Its errors come from the packet's
  /// destination address.
  static func route(_ packet: [UInt8], mtu: Int) -> Routed {
    guard packet.count > mtu, let model = PacketModel(packet) else { return .packets([packet]) }
    guard model.isIPv4 else {
      return .tooBig(
        ChannelPacket.icmp(
          2, 0, word: mtu, quoting: Array(packet.prefix(1232)), from: address(packet[24..<40]),
          to: address(packet[8..<24])
        ).bytes)
    }
    let size = (mtu - 20) & ~7
    let payload = Array(packet[20...])
    let fragments = stride(from: 0, to: payload.count, by: size).map { offset in
      let part = payload[offset..<min(offset + size, payload.count)]
      var fragment = Array(packet[..<20]) + part
      let field = Int(model.word(6)) + offset / 8
      let isLast = offset + size >= payload.count
      fragment.replaceSubrange(2..<4, with: ChannelPacket.big(fragment.count, 2))
      fragment.replaceSubrange(6..<8, with: ChannelPacket.big(isLast ? field : field | 0x2000, 2))
      fragment.replaceSubrange(10..<12, with: [0, 0])
      let sum = ~PacketModel.sum(Array(fragment[..<20]))
      fragment.replaceSubrange(10..<12, with: ChannelPacket.big(Int(sum), 2))
      return fragment
    }
    return .packets(fragments)
  }
}
