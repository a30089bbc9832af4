#if !ONE_MODULE
  @testable import Culvert
#endif

/// A packet for a channel, built field by field the slow way. Shares no code with the core.
struct ChannelPacket {
  /// An IPv6 extension header; `rest` is all but its first byte.
  struct Extension {
    var number: UInt8
    var rest: [UInt8]

    /// Destination options, all of them padding.
    static func options(_ byteCount: Int) -> Extension {
      let padding = [1, UInt8(byteCount - 4)] + [UInt8](repeating: 0, count: byteCount - 4)
      return Extension(number: 60, rest: [UInt8(byteCount / 8 - 1)] + padding)
    }
  }

  var source: IPAddress
  var destination: IPAddress
  var sourcePort: UInt16 = 7000
  var destinationPort: UInt16 = 51_820
  var payload: [UInt8] = []
  var trafficClass: UInt8 = 0
  var identification: UInt32 = 1
  var ipv4Options: [UInt8] = []
  var extensions: [Extension] = []
  /// Protocol and bytes that follow the network header instead of UDP.
  var other: (number: UInt8, bytes: [UInt8])?
  /// The values of UDP's length and checksum fields, if they are to be wrong.
  var lengthField: Int?
  var checksumField: UInt16?

  private var isIPv4: Bool { source.family == .ipv4 }
  private var number: UInt8 { other?.number ?? 17 }

  static func big(_ value: Int, _ byteCount: Int) -> [UInt8] {
    (0..<byteCount).reversed().map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }

  static func bytes(of address: IPAddress) -> [UInt8] {
    let words =
      address.family == .ipv4
      ? [address.high >> 32] : [address.high >> 32, address.high, address.low >> 32, address.low]
    return words.flatMap { big(Int(UInt32(truncatingIfNeeded: $0)), 4) }
  }

  private var addresses: [UInt8] {
    ChannelPacket.bytes(of: source) + ChannelPacket.bytes(of: destination)
  }

  /// The transport header and what follows it.
  var transport: [UInt8] {
    if let other { return other.bytes }
    let count = 8 + payload.count
    let length = ChannelPacket.big(lengthField ?? count, 2)
    let ports = ChannelPacket.big(Int(sourcePort), 2) + ChannelPacket.big(Int(destinationPort), 2)
    let pseudo = addresses + ChannelPacket.big(count, 4) + [0, 17]
    let sum = ~PacketModel.sum(pseudo + ports + ChannelPacket.big(count, 2) + [0, 0] + payload)
    let checksum = checksumField ?? (sum == 0 ? 0xffff : sum)
    return ports + length + ChannelPacket.big(Int(checksum), 2) + payload
  }

  var bytes: [UInt8] {
    let first = extensions.first?.number ?? number
    return header(chain(transport), next: first, fragmentField: 0, options: ipv4Options)
  }

  /// Extension headers and what follows them.
  private func chain(_ content: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = []
    for (index, header) in extensions.enumerated() {
      bytes.append(index + 1 < extensions.count ? extensions[index + 1].number : number)
      bytes += header.rest
    }
    return bytes + content
  }

  private func header(
    _ content: [UInt8], next: UInt8, fragmentField: Int, options: [UInt8]
  ) -> [UInt8] {
    if isIPv4 {
      var header: [UInt8] = [0x45 + UInt8(options.count / 4), trafficClass]
      header += ChannelPacket.big(20 + options.count + content.count, 2)
      header += ChannelPacket.big(Int(identification & 0xffff), 2)
      header += ChannelPacket.big(fragmentField, 2) + [64, number, 0, 0] + addresses + options
      header.replaceSubrange(10..<12, with: ChannelPacket.big(Int(~PacketModel.sum(header)), 2))
      return header + content
    }
    return ChannelPacket.big(6 << 28 | Int(trafficClass) << 20, 4)
      + ChannelPacket.big(content.count, 2) + [next, 64] + addresses + content
  }

  /// The packet in fragments with `size` bytes of data each, a multiple of 8. IPv6 extension
  /// headers are in the fragmentable part.
  func fragments(_ size: Int) -> [[UInt8]] {
    let content = isIPv4 ? transport : chain(transport)
    let first = extensions.first?.number ?? number
    return stride(from: 0, to: content.count, by: size).map { offset in
      let part = Array(content[offset..<min(offset + size, content.count)])
      let isLast = offset + size >= content.count
      if isIPv4 {
        return header(
          part, next: 0, fragmentField: offset / 8 | (isLast ? 0 : 0x2000),
          options: offset == 0 ? ipv4Options : [])
      }
      let fragment =
        [first, 0] + ChannelPacket.big(offset | (isLast ? 0 : 1), 2)
        + ChannelPacket.big(Int(identification), 4)
      return header(fragment + part, next: 44, fragmentField: 0, options: [])
    }
  }

  /// An ICMP or ICMPv6 message from `source`.
  ///
  /// - Parameter word: the four bytes after the checksum.
  static func icmp(
    _ type: UInt8, _ code: UInt8, word: Int = 0, quoting quoted: [UInt8], from source: IPAddress,
    to destination: IPAddress
  ) -> ChannelPacket {
    var packet = ChannelPacket(source: source, destination: destination)
    var message = [type, code, 0, 0] + big(word, 4) + quoted
    var pseudo: [UInt8] = []
    if source.family == .ipv6 {
      pseudo = packet.addresses + big(message.count, 4) + [0, 0, 0, 58]
    }
    message.replaceSubrange(2..<4, with: big(Int(~PacketModel.sum(pseudo + message)), 2))
    packet.other = (source.family == .ipv4 ? 1 : 58, message)
    return packet
  }
}
