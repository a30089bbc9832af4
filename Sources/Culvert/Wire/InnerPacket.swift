/// The fields of a tunnelled IPv4 or IPv6 packet that routing needs, validated once.
struct InnerPacket: BitwiseCopyable {
  let source: IPAddress
  let destination: IPAddress
  /// The packet's own length; the rest of the buffer is padding (R14).
  let byteCount: Int
  /// DSCP and ECN.
  let trafficClass: UInt8

  @inline(__always)
  var family: IPAddress.Family { source.family }

  /// Nil unless the buffer holds a whole packet that `IPv4Header` or `IPv6Header` accepts.
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    // The header view checks the version again; the compiler merges the two checks.
    guard byteCount > 0 else { return nil }
    if bytes.byte(0) >> 4 == 4 {
      guard let header = IPv4Header(at: bytes, byteCount: byteCount) else { return nil }
      source = header.source
      destination = header.destination
      self.byteCount = header.totalByteCount
      trafficClass = header.trafficClass
    } else {
      guard let header = IPv6Header(at: bytes, byteCount: byteCount) else { return nil }
      source = header.source
      destination = header.destination
      self.byteCount = header.totalByteCount
      trafficClass = header.trafficClass
    }
  }

  /// The protocol of the datagram of which the packet is a fragment; nil if it is not a fragment.
  /// Extension headers that follow IPv6's fragment header count as UDP, because only the first
  /// fragment shows what comes after them.
  func fragmentedProtocol(at bytes: UnsafeMutableRawPointer) -> UInt8? {
    if family == .ipv4 {
      let header = IPv4Header(writtenAt: bytes)
      return header.fragmentField & 0x3fff == 0 ? nil : header.protocolNumber
    }
    let header = IPv6Header(writtenAt: bytes)
    guard IPv6Extensions.isExtension(header.nextHeader),
      let extensions = IPv6Extensions(of: header), extensions.fragmentHeaderByteOffset != 0
    else { return nil }
    let start = extensions.fragmentHeaderByteOffset
    guard bytes.loadBig(start &+ 2, as: UInt16.self) & 0xfff9 != 0 else { return nil }
    let number = bytes.byte(start)
    return IPv6Extensions.isExtension(number) ? IPProtocol.udp : number
  }

  /// The start of the UDP header, in a whole packet or a first fragment; nil for anything else, and
  /// for IPv6 extension headers other than a fragment header.
  ///
  /// - Parameter bytes: the packet that this value was read from.
  func datagramByteOffset(at bytes: UnsafeMutableRawPointer) -> Int? {
    switch family {
    case .ipv4:
      let header = IPv4Header(writtenAt: bytes)
      guard header.protocolNumber == IPProtocol.udp, header.fragmentByteOffset == 0 else {
        return nil
      }
      return header.headerByteCount
    case .ipv6:
      let number = IPv6Header(writtenAt: bytes).nextHeader
      if number == IPProtocol.udp { return IPv6Header.byteCount }
      let end = IPv6Header.byteCount + IPv6Extensions.fragmentHeaderByteCount
      guard number == IPProtocol.fragment, byteCount >= end,
        bytes.byte(IPv6Header.byteCount) == IPProtocol.udp,
        bytes.loadBig(IPv6Header.byteCount + 2, as: UInt16.self) & 0xfff8 == 0
      else { return nil }
      return end
    }
  }

  /// Sets the two ECN bits of the packet that this value was read from, and updates its checksum.
  func setECN(_ mark: UInt8, at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    let marked = trafficClass & ~ECN.mask | mark
    guard marked != trafficClass else { return }
    switch family {
    case .ipv4:
      if let header = IPv4Header(at: bytes, byteCount: byteCount) { header.trafficClass = marked }
    case .ipv6:
      if let header = IPv6Header(at: bytes, byteCount: byteCount) { header.trafficClass = marked }
    }
  }
}

/// The payload of a whole IP packet, after IPv4 options or IPv6 extension headers.
struct TransportContent: BitwiseCopyable {
  let source: IPAddress
  let destination: IPAddress
  let trafficClass: UInt8
  let protocolNumber: UInt8
  /// The transport header and its payload.
  let bytes: UnsafeMutableRawPointer
  let byteCount: Int

  /// Nil for a fragment, and for invalid lengths or chains of headers.
  init?(at start: UnsafeMutableRawPointer, byteCount: Int) {
    if let header = IPv4Header(at: start, byteCount: byteCount) {
      if header.isFragment { return nil }
      self.init(
        source: header.source, destination: header.destination,
        trafficClass: header.trafficClass, protocolNumber: header.protocolNumber,
        bytes: header.payload, byteCount: header.payloadByteCount)
      return
    }
    guard let header = IPv6Header(at: start, byteCount: byteCount),
      let chain = IPv6Extensions(of: header), chain.fragmentHeaderByteOffset == 0
    else { return nil }
    self.init(
      source: header.source, destination: header.destination, trafficClass: header.trafficClass,
      protocolNumber: chain.protocolNumber, bytes: start + chain.byteOffset,
      byteCount: header.totalByteCount &- chain.byteOffset)
  }

  private init(
    source: IPAddress, destination: IPAddress, trafficClass: UInt8, protocolNumber: UInt8,
    bytes: UnsafeMutableRawPointer, byteCount: Int
  ) {
    self.source = source
    self.destination = destination
    self.trafficClass = trafficClass
    self.protocolNumber = protocolNumber
    self.bytes = bytes
    self.byteCount = byteCount
  }
}

/// Explicit congestion notification across the tunnel (RFC 6040). The codepoints are the two low
/// bits of a traffic class.
enum ECN {
  static let mask: UInt8 = 0b11
  static let notCapable: UInt8 = 0b00
  static let capable1: UInt8 = 0b01
  static let capable0: UInt8 = 0b10
  static let congestionExperienced: UInt8 = 0b11

  /// The outer traffic class of a packet: its ECN codepoint (RFC 6040 section 4.1, normal mode).
  /// The DSCP stays inside, as it would reveal the kind of packet to an observer.
  @inline(__always)
  static func encapsulate(_ trafficClass: UInt8) -> UInt8 {
    trafficClass & mask
  }

  /// The ECN codepoint of a decapsulated packet (RFC 6040 section 4.2, figure 4), except that a
  /// marked packet of a sender that does not know ECN passes unchanged, as through the kernel's
  /// WireGuard. RFC 6040 drops it, but then a path that sets both bits loses every packet (R68).
  @inline(__always)
  static func combine(inner: UInt8, outer: UInt8) -> UInt8 {
    let inner = inner & mask
    switch outer & mask {
    case congestionExperienced: return inner == notCapable ? notCapable : congestionExperienced
    case capable1: return inner == capable0 ? capable1 : inner
    default: return inner
    }
  }
}

/// The protocol numbers that Culvert needs (IANA "Assigned Internet Protocol Numbers").
enum IPProtocol {
  static let hopByHop: UInt8 = 0
  static let icmp: UInt8 = 1
  static let tcp: UInt8 = 6
  static let udp: UInt8 = 17
  static let routing: UInt8 = 43
  static let fragment: UInt8 = 44
  static let icmpv6: UInt8 = 58
  static let destinationOptions: UInt8 = 60
}
