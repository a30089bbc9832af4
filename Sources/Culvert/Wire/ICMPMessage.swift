/// A received ICMP or ICMPv6 message (RFC 792, RFC 4443), of which only errors about UDP datagrams
/// are of interest.
struct ICMPMessage: BitwiseCopyable {
  enum Effect: BitwiseCopyable {
    case unreachable
    /// Bytes of the largest packet that goes through; 0 where a router of old did not say.
    case tooBig(mtu: Int)
  }

  /// Addresses and ports of the datagram that an error quotes.
  struct QuotedDatagram: BitwiseCopyable {
    let source: IPAddress
    let destination: IPAddress
    let sourcePort: UInt16
    let destinationPort: UInt16
  }

  private let bytes: UnsafeMutableRawPointer
  private let byteCount: Int
  private let family: IPAddress.Family

  private static let headerByteCount = 8

  /// Nil where it is too short, or its checksum is wrong.
  init?(_ content: TransportContent) {
    guard content.byteCount >= ICMPMessage.headerByteCount else { return nil }
    var sum = Checksum()
    if content.source.family == .ipv6 {
      sum.addPseudoHeader(
        source: content.source, destination: content.destination, protocol: IPProtocol.icmpv6,
        byteCount: content.byteCount)
    }
    sum.add(content.bytes, byteCount: content.byteCount)
    guard sum.isIntact else { return nil }
    bytes = content.bytes
    byteCount = content.byteCount
    family = content.source.family
  }

  /// What an error means for the sender of what it quotes; nil for all that is no concern of UDP.
  var effect: Effect? {
    switch (family, bytes.byte(0), bytes.byte(1)) {
    case (.ipv4, 3, 4): .tooBig(mtu: Int(bytes.loadBig(6, as: UInt16.self)))
    // Network, host, protocol, port; administratively prohibited (RFC 1812 section 5.2.7.1).
    case (.ipv4, 3, 0...3), (.ipv4, 3, 9...13): .unreachable
    case (.ipv6, 2, _): .tooBig(mtu: Int(min(bytes.loadBig(4, as: UInt32.self), 65_535)))
    case (.ipv6, 1, _): .unreachable
    default: nil
    }
  }

  /// Nil where the error quotes no UDP datagram, or too little of it.
  var quotedDatagram: QuotedDatagram? {
    let quoted = bytes + ICMPMessage.headerByteCount
    let count = byteCount &- ICMPMessage.headerByteCount
    // The quotation is cut short, so the views that prove whole packets would refuse it.
    switch family {
    case .ipv4:
      guard count >= IPv4Header.minimumByteCount, quoted.byte(0) >> 4 == 4 else { return nil }
      let headerByteCount = Int(quoted.byte(0) & 0xf) &* 4
      guard headerByteCount >= IPv4Header.minimumByteCount, count >= headerByteCount &+ 4,
        quoted.byte(9) == IPProtocol.udp, quoted.loadBig(6, as: UInt16.self) & 0x1fff == 0
      else { return nil }
      return quotation(.ipv4, quoted, sourceAt: 12, portsAt: headerByteCount)
    case .ipv6:
      guard count >= IPv6Header.byteCount &+ 4, quoted.byte(0) >> 4 == 6 else { return nil }
      var offset = IPv6Header.byteCount
      if quoted.byte(6) == IPProtocol.fragment {
        // Of our own datagrams that are cut, the first fragment.
        guard count >= offset &+ 12, quoted.byte(offset) == IPProtocol.udp,
          quoted.loadBig(offset &+ 2, as: UInt16.self) & 0xfff8 == 0
        else { return nil }
        offset &+= 8
      } else if quoted.byte(6) != IPProtocol.udp {
        return nil
      }
      return quotation(.ipv6, quoted, sourceAt: 8, portsAt: offset)
    }
  }

  private func quotation(
    _ family: IPAddress.Family, _ quoted: UnsafeMutableRawPointer, sourceAt: Int, portsAt: Int
  ) -> QuotedDatagram {
    QuotedDatagram(
      source: IPAddress(family, at: quoted + sourceAt),
      destination: IPAddress(family, at: quoted + sourceAt + family.byteCount),
      sourcePort: quoted.loadBig(portsAt, as: UInt16.self),
      destinationPort: quoted.loadBig(portsAt &+ 2, as: UInt16.self))
  }
}
