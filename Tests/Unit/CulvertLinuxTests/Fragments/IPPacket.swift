/// An IP packet as bytes, parsed and built the slow way. Shares no code with the core.
struct IPPacket: Equatable {
  static let udp: UInt8 = 17
  private static let fragment: UInt8 = 44

  var bytes: [UInt8]

  init(_ bytes: [UInt8]) {
    self.bytes = bytes
  }

  var isIPv4: Bool { bytes[0] >> 4 == 4 }

  func word(_ offset: Int) -> Int { Int(bytes[offset]) << 8 | Int(bytes[offset + 1]) }

  mutating func set(_ word: Int, at offset: Int) {
    bytes[offset] = UInt8(word >> 8 & 0xff)
    bytes[offset + 1] = UInt8(word & 0xff)
  }

  /// Whether its length field is right.
  var isAsLongAsItSays: Bool { bytes.count == (isIPv4 ? word(2) : word(4) + 40) }

  var source: ArraySlice<UInt8> { isIPv4 ? bytes[12..<16] : bytes[8..<24] }

  var destination: ArraySlice<UInt8> { isIPv4 ? bytes[16..<20] : bytes[24..<40] }

  // MARK: A fragment

  /// For IPv6, the offset of the fragment header; nil if there is none.
  private var fragmentHeader: Int? {
    let headers = headers
    return headers.number == IPPacket.fragment ? headers.end : nil
  }

  /// Offset and protocol of what follows the IPv4 header with its options, or the IPv6 headers that
  /// may precede a fragment header.
  private var headers: (end: Int, number: UInt8) {
    if isIPv4 { return (Int(bytes[0] & 0xf) * 4, bytes[9]) }
    var number = bytes[6]
    var end = 40
    // Hop-by-hop options, routing header, destination options (RFC 8200 section 4.1).
    while number == 0 || number == 43 || number == 60 {
      number = bytes[end]
      end += (Int(bytes[end + 1]) + 1) * 8
    }
    return (end, number)
  }

  var isFragment: Bool { isIPv4 ? word(6) & 0x3fff != 0 : fragmentHeader != nil }

  /// True for all but the last fragment.
  var hasMore: Bool {
    isIPv4 ? word(6) & 0x2000 != 0 : fragmentHeader.map { word($0 + 2) & 1 != 0 } ?? false
  }

  var byteOffset: Int {
    isIPv4 ? (word(6) & 0x1fff) * 8 : fragmentHeader.map { word($0 + 2) & 0xfff8 } ?? 0
  }

  /// The data after the headers of a fragment.
  var data: ArraySlice<UInt8> {
    bytes[(fragmentHeader.map { $0 + 8 } ?? headers.end)...]
  }

  // MARK: A whole packet

  /// Protocol number of the transport: UDP, ICMP or ICMPv6.
  var number: UInt8 { headers.number }

  /// Offset of the transport header, after all extension headers.
  var transport: Int { headers.end }

  /// The data after the 8-byte UDP or ICMP header.
  var payload: [UInt8] { Array(bytes[(transport + 8)...]) }

  /// Whether the UDP length matches the packet; true for other protocols.
  var hasRightUDPLength: Bool {
    number != IPPacket.udp || word(transport + 4) == bytes.count - transport
  }

  /// Whether the checksums are right; the transport checksum must be present.
  var hasRightChecksums: Bool {
    if isIPv4, IPPacket.sum(bytes[..<transport]) != 0xffff { return false }
    return word(checksumOffset) != 0 && transportSum == 0xffff
  }

  private var checksumOffset: Int { transport + (number == IPPacket.udp ? 6 : 2) }

  /// IPv4's ICMP has no pseudo-header.
  private var transportSum: Int {
    let message = bytes[transport...]
    if isIPv4, number != IPPacket.udp { return IPPacket.sum(message) }
    let length = [UInt8(message.count >> 8 & 0xff), UInt8(message.count & 0xff), 0, number]
    // Lengths above 65,535 do not occur here.
    return IPPacket.sum(source + destination + length + message)
  }

  /// RFC 1071, word by word.
  static func sum(_ bytes: some Sequence<UInt8>) -> Int {
    var sum = 0
    var isHigh = true
    for byte in bytes {
      sum += isHigh ? Int(byte) << 8 : Int(byte)
      isHigh.toggle()
    }
    while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
    return sum
  }

  mutating func writeChecksums() {
    if isIPv4 {
      set(0, at: 10)
      set(~IPPacket.sum(bytes[..<transport]), at: 10)
    }
    set(0, at: checksumOffset)
    let value = ~transportSum & 0xffff
    set(value == 0 && number == IPPacket.udp ? 0xffff : value, at: checksumOffset)
  }

  /// Without the fields that differ between IPv4 datagrams: identification and header checksum.
  var withoutIdentification: IPPacket {
    guard isIPv4 else { return self }
    var packet = self
    packet.set(0, at: 4)
    packet.set(0, at: 10)
    return packet
  }

  /// The packet with source and destination swapped, as the other end would send it back. No
  /// checksum changes.
  var withSwappedAddresses: IPPacket {
    var packet = self
    let start = isIPv4 ? 12 : 8
    packet.bytes.replaceSubrange(start..<(start + 2 * source.count), with: destination + source)
    return packet
  }

  /// A packet from `source` to `destination`, 4 or 16 bytes each; the caller must write its
  /// checksums.
  /// - Parameter message: transport header and payload.
  /// - Parameter options: of IPv4; a multiple of 4 bytes.
  static func make(
    from source: [UInt8], to destination: [UInt8], number: UInt8, message: [UInt8],
    options: [UInt8] = []
  ) -> IPPacket {
    let length = [UInt8(message.count >> 8 & 0xff), UInt8(message.count & 0xff)]
    var packet = IPPacket([0x60, 0, 0, 0] + length + [number, 64])
    if source.count == 4 {
      packet.bytes = [0x45 + UInt8(options.count / 4), 0, 0, 0, 0, 0, 0, 0, 64, number, 0, 0]
    }
    packet.bytes += source + destination + options + message
    if source.count == 4 { packet.set(packet.bytes.count, at: 2) }
    packet.writeChecksums()
    return packet
  }
}
