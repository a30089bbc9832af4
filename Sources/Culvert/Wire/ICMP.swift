/// Builds the ICMP error for a packet that cannot be delivered (RFC 792, RFC 4443). It does so in
/// place: the headers are written before the packet, and the quotation is not copied.
struct ICMPError: BitwiseCopyable {
  /// The start of the error packet in the buffer.
  let byteOffset: Int
  /// Bytes of the error packet.
  let byteCount: Int

  /// Bytes before the packet that are overwritten: IPv6 and ICMPv6 header. IPv4 needs only 28.
  static let headroomByteCount = IPv6Header.byteCount + headerByteCount

  private static let headerByteCount = 8
  /// Every host can receive this much (RFC 791 section 3.1; RFC 1812 section 4.3.2.3).
  private static let maximumIPv4ByteCount = 576
  /// The minimum IPv6 MTU (RFC 4443 section 2.4(c)).
  private static let maximumIPv6ByteCount = 1280
  /// Precedence "internetwork control", with which routers send errors (RFC 1812 section 4.3.2.5).
  private static let ipv4TrafficClass: UInt8 = 0xc0

  /// Writes the error about the packet at `packetByteOffset` in `buffer`.
  ///
  /// - Parameter packetByteOffset: at least `headroomByteCount`.
  /// - Parameter packetByteCount: bytes in the buffer from there on.
  /// - Parameter source: the sender of the error, of the packet's family; by default the packet's
  ///   own destination. It must not be an address of this host: Linux drops packets that arrive
  ///   from a TUN with a local source address as martians.
  /// - Returns: nil if no error may be sent: if the packet is invalid, is itself an ICMP error, is
  ///   a fragment other than the first, or has a source or destination that is not a single host
  ///   (RFC 1122 section 3.2.2, RFC 4443 section 2.4(e)).
  static func write(
    _ kind: ICMPErrorKind, in buffer: UnsafeMutableRawPointer, packetByteOffset: Int,
    packetByteCount: Int, source: IPAddress? = nil
  ) -> ICMPError? {
    guard packetByteOffset >= headroomByteCount, packetByteCount > 0 else { return nil }
    let bytes = buffer + packetByteOffset
    if let packet = IPv4Header(at: bytes, byteCount: packetByteCount) {
      let source = source ?? packet.destination
      guard isAnswerable(packet), source.isSingleHost, source.family == .ipv4 else { return nil }
      return write(kind, about: packet, source: source, at: packetByteOffset)
    }
    if let packet = IPv6Header(at: bytes, byteCount: packetByteCount) {
      let source = source ?? packet.destination
      guard isAnswerable(packet, kind), source.isSingleHost, source.family == .ipv6 else {
        return nil
      }
      return write(kind, about: packet, source: source, at: packetByteOffset)
    }
    return nil
  }

  // MARK: Conditions

  private static func isAnswerable(_ packet: IPv4Header) -> Bool {
    guard
      packet.fragmentByteOffset == 0, packet.source.isSingleHost,
      packet.destination.isSingleHost
    else { return false }
    guard packet.protocolNumber == IPProtocol.icmp else { return true }
    guard packet.payloadByteCount > 0 else { return false }
    switch packet.payload.byte(0) {
    // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
    case 3, 4, 5, 11, 12: return false
    default: return true
    }
  }

  private static func isAnswerable(_ packet: IPv6Header, _ kind: ICMPErrorKind) -> Bool {
    guard packet.source.isSingleHost else { return false }
    // "Packet too big" is also sent for multicast, for path MTU discovery.
    if !packet.destination.isSingleHost {
      guard case .packetTooBig = kind, packet.destination.isMulticast else { return false }
    }
    // An invalid chain may hide an ICMPv6 error.
    guard let inner = IPv6Extensions(of: packet), inner.fragmentByteOffset == 0 else {
      return false
    }
    guard inner.protocolNumber == IPProtocol.icmpv6 else { return true }
    guard inner.byteOffset < packet.totalByteCount else { return false }
    let type = packet.bytes.byte(inner.byteOffset)
    // Types below 128 are errors, and 137 is the redirect.
    return type >= 128 && type != 137
  }

  // MARK: Writing

  private static func write(
    _ kind: ICMPErrorKind, about packet: IPv4Header, source: IPAddress, at packetByteOffset: Int
  ) -> ICMPError {
    let headersByteCount = IPv4Header.minimumByteCount + headerByteCount
    let quotedByteCount = min(packet.totalByteCount, maximumIPv4ByteCount - headersByteCount)
    // Reuses the sender's identification, which is unique enough. Read before it is overwritten.
    let identification = packet.identification
    let destination = packet.source
    let icmp = packet.bytes - headerByteCount
    writeHeader(kind, family: .ipv4, at: icmp)
    var sum = Checksum()
    sum.add(icmp, byteCount: headerByteCount &+ quotedByteCount)
    icmp.storeBig(sum.value, 2)
    IPv4Header.write(
      at: packet.bytes - headersByteCount, totalByteCount: headersByteCount &+ quotedByteCount,
      trafficClass: ipv4TrafficClass, identification: identification,
      protocol: IPProtocol.icmp, source: source, destination: destination)
    return ICMPError(
      byteOffset: packetByteOffset &- headersByteCount,
      byteCount: headersByteCount &+ quotedByteCount)
  }

  private static func write(
    _ kind: ICMPErrorKind, about packet: IPv6Header, source: IPAddress, at packetByteOffset: Int
  ) -> ICMPError {
    let headersByteCount = headroomByteCount
    let quotedByteCount = min(packet.totalByteCount, maximumIPv6ByteCount - headersByteCount)
    let destination = packet.source
    let icmp = packet.bytes - headerByteCount
    let icmpByteCount = headerByteCount &+ quotedByteCount
    writeHeader(kind, family: .ipv6, at: icmp)
    var sum = Checksum()
    sum.addPseudoHeader(
      source: source, destination: destination, protocol: IPProtocol.icmpv6,
      byteCount: icmpByteCount)
    sum.add(icmp, byteCount: icmpByteCount)
    icmp.storeBig(sum.value, 2)
    IPv6Header.write(
      at: packet.bytes - headersByteCount, payloadByteCount: icmpByteCount,
      nextHeader: IPProtocol.icmpv6, source: source, destination: destination)
    return ICMPError(
      byteOffset: packetByteOffset &- headersByteCount,
      byteCount: headersByteCount &+ quotedByteCount)
  }

  /// Writes type, code, a zero checksum, and 4 bytes that only "too big" uses.
  private static func writeHeader(
    _ kind: ICMPErrorKind, family: IPAddress.Family, at icmp: UnsafeMutableRawPointer
  ) {
    let (type, code) = family == .ipv4 ? kind.ipv4TypeAndCode : kind.ipv6TypeAndCode
    icmp.storeByte(type, 0)
    icmp.storeByte(code, 1)
    icmp.storeBig(0 as UInt16, 2)
    icmp.storeBig(0 as UInt32, 4)
    guard case .packetTooBig(let mtu) = kind else { return }
    switch family {
    // RFC 1191 section 4: the lower 16 bits.
    case .ipv4: icmp.storeBig(UInt16(clamping: mtu), 6)
    case .ipv6: icmp.storeBig(mtu, 4)
    }
  }
}

/// The errors that Culvert sends, with their numbers in both families (RFC 792, RFC 1812
/// section 5.2.7.1, RFC 4443 section 3).
enum ICMPErrorKind: BitwiseCopyable {
  /// No allowed IP covers the destination.
  case noRoute
  /// The peer has no endpoint or does not answer handshakes.
  case hostUnreachable
  case administrativelyProhibited
  /// IPv4 calls it "fragmentation needed".
  case packetTooBig(mtu: UInt32)
  /// Not all fragments of a datagram arrived in time (F9).
  case reassemblyTimeExceeded

  var ipv4TypeAndCode: (type: UInt8, code: UInt8) {
    switch self {
    case .noRoute: (3, 0)
    case .hostUnreachable: (3, 1)
    case .administrativelyProhibited: (3, 13)
    case .packetTooBig: (3, 4)
    case .reassemblyTimeExceeded: (11, 1)
    }
  }

  var ipv6TypeAndCode: (type: UInt8, code: UInt8) {
    switch self {
    case .noRoute: (1, 0)
    case .hostUnreachable: (1, 3)
    case .administrativelyProhibited: (1, 1)
    case .packetTooBig: (2, 0)
    case .reassemblyTimeExceeded: (3, 1)
    }
  }
}

/// A received ICMP or ICMPv6 message (RFC 792, RFC 4443). Only errors about UDP datagrams are
/// interpreted.
struct ICMPMessage: BitwiseCopyable {
  enum Effect: BitwiseCopyable {
    /// - isPortClosed: whether the host was reached, and nothing listens there.
    case unreachable(isPortClosed: Bool)
    /// Bytes of the largest packet that fits; 0 from routers before RFC 1191.
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

  /// Nil if it is too short or its checksum is wrong.
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

  /// What the error means to the sender of the quoted packet; nil for any other message.
  var effect: Effect? {
    switch (family, bytes.byte(0), bytes.byte(1)) {
    case (.ipv4, 3, 4): .tooBig(mtu: Int(bytes.loadBig(6, as: UInt16.self)))
    // Network, host, protocol, port; administratively prohibited (RFC 1812 section 5.2.7.1).
    case (.ipv4, 3, 0...3), (.ipv4, 3, 9...13):
      .unreachable(isPortClosed: bytes.byte(1) == 3)
    case (.ipv6, 2, _): .tooBig(mtu: Int(min(bytes.loadBig(4, as: UInt32.self), 65_535)))
    case (.ipv6, 1, _): .unreachable(isPortClosed: bytes.byte(1) == 4)
    default: nil
    }
  }

  /// Nil if the error quotes no UDP datagram, or too little of it.
  var quotedDatagram: QuotedDatagram? {
    let quoted = bytes + ICMPMessage.headerByteCount
    let count = byteCount &- ICMPMessage.headerByteCount
    // The quotation may be truncated, so the views of whole packets would refuse it.
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
        // The first fragment of one of our datagrams.
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
