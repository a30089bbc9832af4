#if !ONE_MODULE
  @testable import Culvert
#endif

/// A fragment, parsed from an array the slow way.
struct FragmentModel {
  enum Reading {
    case whole([UInt8], isAtomic: Bool)
    case fragment(FragmentModel)
    case refused(FragmentVerdict)
  }

  let isIPv4: Bool
  /// The packet without the bytes after its end.
  let packet: [UInt8]
  /// Where the fragment header starts; 0 for IPv4.
  let fragmentHeader: Int
  /// Where the number of the fragment header is.
  let numberOffset: Int
  let data: [UInt8]
  let offset: Int
  let isLast: Bool

  static func read(_ bytes: [UInt8], maximumByteCount: Int) -> Reading {
    guard let version = bytes.first.map({ $0 >> 4 }) else { return .refused(.malformed) }
    return version == 4
      ? readIPv4(bytes, maximumByteCount) : readIPv6(bytes, maximumByteCount)
  }

  private static func word(_ bytes: [UInt8], _ offset: Int) -> Int {
    Int(bytes[offset]) * 256 + Int(bytes[offset + 1])
  }

  private static func readIPv4(_ bytes: [UInt8], _ maximumByteCount: Int) -> Reading {
    guard bytes.count >= 20 else { return .refused(.malformed) }
    let header = Int(bytes[0] & 15) * 4
    let total = word(bytes, 2)
    guard header >= 20, header <= total, total <= bytes.count else { return .refused(.malformed) }
    let packet = Array(bytes[..<total])
    let field = word(bytes, 6)
    let (offset, isLast) = (field % 0x2000 * 8, field & 0x2000 == 0)
    if offset == 0, isLast { return .whole(packet, isAtomic: false) }
    guard sum(Array(bytes[..<header])) == 0xffff else { return .refused(.badChecksum) }
    let data = Array(packet[header...])
    if data.isEmpty || !isLast && data.count % 8 != 0 { return .refused(.badLength) }
    let end = header + offset + data.count
    if end > 65_535 { return .refused(.impossibleLength) }
    if end > maximumByteCount { return .refused(.tooLarge) }
    return .fragment(
      FragmentModel(
        isIPv4: true, packet: packet, fragmentHeader: 0, numberOffset: 0, data: data,
        offset: offset, isLast: isLast))
  }

  private static func readIPv6(_ bytes: [UInt8], _ maximumByteCount: Int) -> Reading {
    guard bytes.count >= 40, bytes[0] >> 4 == 6 else { return .refused(.malformed) }
    let total = 40 + word(bytes, 4)
    guard total <= bytes.count, total > 40 || bytes[6] != 0 else { return .refused(.malformed) }
    let packet = Array(bytes[..<total])
    guard let chain = headers(packet) else { return .refused(.brokenHeaderChain) }
    guard let index = chain.firstIndex(where: { $0.number == 44 }) else {
      return .whole(packet, isAtomic: false)
    }
    let start = chain[index].offset
    let field = word(packet, start + 2)
    let (offset, isLast) = (field / 8 * 8, field % 2 == 0)
    let numberOffset = index == 0 ? 6 : chain[index - 1].offset
    if offset == 0 {
      let upper = chain.last!
      let minimum = upper.number == 6 ? 20 : upper.number == 59 ? 0 : 1
      if total - upper.offset < minimum { return .refused(.brokenHeaderChain) }
      if isLast {
        var whole = Array(packet[..<start] + packet[(start + 8)...])
        whole[numberOffset] = packet[start]
        setLength(&whole)
        return .whole(whole, isAtomic: true)
      }
      if start + 8 > 192 { return .refused(.headersTooLong) }
    }
    let data = Array(packet[(start + 8)...])
    if data.isEmpty || !isLast && data.count % 8 != 0 { return .refused(.badLength) }
    let end = start + offset + data.count
    if end - 40 > 65_535 { return .refused(.impossibleLength) }
    if end > maximumByteCount { return .refused(.tooLarge) }
    return .fragment(
      FragmentModel(
        isIPv4: false, packet: packet, fragmentHeader: start, numberOffset: numberOffset,
        data: data, offset: offset, isLast: isLast))
  }

  /// The headers after the IPv6 header with their numbers, up to the first that is not an
  /// extension, or to a fragment header with an offset.
  private static func headers(_ packet: [UInt8]) -> [(number: UInt8, offset: Int)]? {
    var chain: [(number: UInt8, offset: Int)] = [(packet[6], 40)]
    while let (number, offset) = chain.last, [0, 43, 44, 60].contains(number) {
      guard chain.count <= 8, offset + 8 <= packet.count else { return nil }
      if number == 44 {
        guard chain.filter({ $0.number == 44 }).count == 1 else { return nil }
        if word(packet, offset + 2) >= 8 { break }
      }
      let byteCount = number == 44 ? 8 : Int(packet[offset + 1]) * 8 + 8
      guard offset + byteCount <= packet.count else { return nil }
      chain.append((packet[offset], offset + byteCount))
    }
    return chain
  }

  // MARK: Its datagram

  /// The reassembly key, without the sender.
  var key: [UInt8] {
    isIPv4
      ? [4] + packet[12..<20] + [packet[9]] + packet[4..<6]
      : [6] + packet[8..<40] + packet[(fragmentHeader + 4)..<(fragmentHeader + 8)]
  }

  /// The part of the address that identifies the source.
  var source: [UInt8] { isIPv4 ? [4] + packet[12..<16] : [6] + packet[8..<16] }

  /// ECN codepoint.
  var mark: UInt8 { isIPv4 ? packet[1] % 4 : packet[1] >> 4 % 4 }

  /// The datagram that starts with this fragment and has this payload.
  func packet(around payload: [UInt8], isMarked: Bool) -> [UInt8] {
    if isIPv4 {
      var header = Array(packet[..<(packet.count - data.count)])
      if isMarked { header[1] |= 3 }
      let total = header.count + payload.count
      header.replaceSubrange(2..<4, with: [UInt8(total >> 8 & 255), UInt8(total & 255)])
      header.replaceSubrange(6..<8, with: [0, 0])
      TestFragment.writeChecksum(&header)
      return header + payload
    }
    var header = Array(packet[..<fragmentHeader])
    header[numberOffset] = packet[fragmentHeader]
    if isMarked { header[1] |= 0x30 }
    var whole = header + payload
    FragmentModel.setLength(&whole)
    return whole
  }

  private static func setLength(_ packet: inout [UInt8]) {
    packet[4] = UInt8((packet.count - 40) >> 8 & 255)
    packet[5] = UInt8((packet.count - 40) & 255)
  }

  private static func sum(_ bytes: [UInt8]) -> Int {
    var sum = 0
    for index in stride(from: 0, to: bytes.count - 1, by: 2) { sum += word(bytes, index) }
    if bytes.count % 2 == 1 { sum += Int(bytes[bytes.count - 1]) * 256 }
    while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
    return sum
  }

  // MARK: The error about it

  /// The ICMP error about the missing fragments; nil if none may be sent.
  func timeExceeded() -> [UInt8]? {
    isIPv4 ? timeExceededIPv4() : timeExceededIPv6()
  }

  private func timeExceededIPv4() -> [UInt8]? {
    let (from, to) = (Array(packet[12..<16]), Array(packet[16..<20]))
    for address in [from, to] where [0, 127].contains(address[0]) || address[0] >= 224 {
      return nil
    }
    if packet[9] == 1, [3, 4, 5, 11, 12].contains(data[0]) { return nil }
    let quoted = Array(packet.prefix(548))
    var message: [UInt8] = [11, 1, 0, 0, 0, 0, 0, 0] + quoted
    let check = ~FragmentModel.sum(message)
    message.replaceSubrange(2..<4, with: [UInt8(check >> 8 & 255), UInt8(check & 255)])
    let total = 20 + message.count
    var header: [UInt8] = [0x45, 0xc0, UInt8(total >> 8), UInt8(total & 255)] + packet[4..<6]
    header += [0, 0, 64, 1, 0, 0] + to + from
    TestFragment.writeChecksum(&header)
    return header + message
  }

  private func timeExceededIPv6() -> [UInt8]? {
    let (from, to) = (Array(packet[8..<24]), Array(packet[24..<40]))
    for address in [from, to] {
      if address[0] == 0xff || address[..<15].allSatisfy({ $0 == 0 }) && address[15] <= 1 {
        return nil
      }
    }
    guard let upper = FragmentModel.headers(packet)?.last else { return nil }
    if upper.number == 58 {
      let type = packet[upper.offset]
      if type < 128 || type == 137 { return nil }
    }
    let quoted = Array(packet.prefix(1232))
    var message: [UInt8] = [3, 1, 0, 0, 0, 0, 0, 0] + quoted
    let length = [UInt8(message.count >> 8), UInt8(message.count & 255)]
    let summed: [[UInt8]] = [to, from, [0, 0], length, [0, 0, 0, 58], message]
    let check = ~FragmentModel.sum(Array(summed.joined()))
    message.replaceSubrange(2..<4, with: [UInt8(check >> 8 & 255), UInt8(check & 255)])
    let fields: [[UInt8]] = [[0x60, 0, 0, 0], length, [58, 64], to, from, message]
    return Array(fields.joined())
  }
}

/// A fragment, or a whole packet, as fields. Addresses are short names: 10.0.0.`source`, or
/// 2001:db8:0:`source`::1.
struct TestFragment {
  var isIPv4 = true
  var source: UInt8 = 1
  var destination: UInt8 = 200
  /// Protocol number of the payload.
  var number: UInt8 = 17
  var identification: UInt32 = 7
  var byteOffset = 0
  var hasMore = false
  var trafficClass: UInt8 = 0
  /// 1 or more; may differ between the fragments of a datagram.
  var timeToLive: UInt8 = 64
  /// IPv4 options, a multiple of 4 bytes.
  var options: [UInt8] = []
  /// IPv4's don't-fragment flag; a fragment may have it (F13).
  var mayNotBeFragmented = false
  /// IPv6 headers before the fragment header: number and bytes of each, of which the first byte is
  /// the next header.
  var extensions: [(number: UInt8, bytes: [UInt8])] = []
  /// False for an IPv6 packet without a fragment header.
  var hasFragmentHeader = true
  var payload: [UInt8] = []

  var bytes: [UInt8] { isIPv4 ? ipv4Bytes : ipv6Bytes }

  var headerByteCount: Int { bytes.count - payload.count }

  private var ipv4Bytes: [UInt8] {
    let headerByteCount = 20 + options.count
    var field = UInt16(truncatingIfNeeded: byteOffset / 8) & 0x1fff
    if hasMore { field |= 0x2000 }
    if mayNotBeFragmented { field |= 0x4000 }
    var bytes: [UInt8] = [0x40 | UInt8(headerByteCount / 4), trafficClass]
    bytes += big(UInt16(truncatingIfNeeded: headerByteCount + payload.count))
    bytes += big(UInt16(truncatingIfNeeded: identification)) + big(field)
    bytes += [timeToLive, number, 0, 0, 10, 0, 0, source, 10, 0, 0, destination] + options
    TestFragment.writeChecksum(&bytes)
    return bytes + payload
  }

  private var ipv6Bytes: [UInt8] {
    var chain: [UInt8] = []
    let fragmentNumber = hasFragmentHeader ? 44 : number
    for (index, header) in extensions.enumerated() {
      let next = index + 1 < extensions.count ? extensions[index + 1].number : fragmentNumber
      chain += [next] + header.bytes.dropFirst()
    }
    if hasFragmentHeader {
      let field = UInt16(truncatingIfNeeded: byteOffset) & 0xfff8 | (hasMore ? 1 : 0)
      chain += [number, 0] + big(field) + big(UInt16(truncatingIfNeeded: identification >> 16))
      chain += big(UInt16(truncatingIfNeeded: identification))
    }
    var bytes: [UInt8] = [0x60 | trafficClass >> 4, trafficClass << 4, 0, 9]
    bytes += big(UInt16(truncatingIfNeeded: chain.count + payload.count))
    bytes += [extensions.first?.number ?? fragmentNumber, timeToLive]
    bytes += [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, source, 0, 0, 0, 0, 0, 0, 0, 1]
    bytes += [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, destination, 0, 0, 0, 0, 0, 0, 0, 2]
    return bytes + chain + payload
  }

  /// The fragments of this datagram, `size` bytes of its payload each, a multiple of 8.
  func cut(_ size: Int) -> [TestFragment] {
    stride(from: 0, to: payload.count, by: size).map { offset in
      var fragment = self
      fragment.byteOffset = offset
      fragment.payload = Array(payload[offset..<min(offset + size, payload.count)])
      fragment.hasMore = offset + size < payload.count
      return fragment
    }
  }

  /// The packet before fragmentation.
  var whole: TestFragment {
    var packet = self
    packet.hasFragmentHeader = false
    packet.mayNotBeFragmented = false
    return packet
  }

  /// Writes the checksum of an IPv4 header that fills the array.
  static func writeChecksum(_ header: inout [UInt8]) {
    header[10] = 0
    header[11] = 0
    var sum = 0
    for index in stride(from: 0, to: header.count, by: 2) {
      sum += Int(header[index]) << 8 | Int(header[index + 1])
    }
    while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
    header[10] = UInt8(~sum >> 8 & 0xff)
    header[11] = UInt8(~sum & 0xff)
  }

  private func big(_ word: UInt16) -> [UInt8] {
    [UInt8(word >> 8), UInt8(word & 0xff)]
  }
}
