/// What `Joiner` needs to know about a packet for the TUN. It is determined right after decryption,
/// when packets can still be processed independently of each other.
///
/// A packet may be joined if the kernel would join it (inet_gro_receive, ipv6_gro_receive,
/// tcp_gro_receive, udp_gro_receive_segment) and `Segmenter` could restore it byte for byte.
struct JoinCandidate: BitwiseCopyable {
  enum Kind: UInt8, BitwiseCopyable {
    /// Not a valid packet.
    case unreadable
    /// Its addresses are known, but it has no ports, or they are unknown.
    case other
    case tcp4
    case tcp6
    case udp4
    case udp6
  }

  private(set) var kind = Kind.unreadable
  /// True if the packet meets every rule that does not depend on other packets: valid checksums, no
  /// IP options, a payload.
  private(set) var isJoinable = false
  /// Bytes of the IP and transport headers, 28-100; only for packets with ports.
  private(set) var headerByteCount: UInt8 = 0
  /// Bytes after those headers.
  private(set) var payloadByteCount: UInt16 = 0
  /// A digest of both addresses: equal for packets between the same hosts, in the same direction.
  private(set) var addresses: UInt32 = 0
  /// Both ports in memory order.
  private(set) var ports: UInt32 = 0

  /// A packet that was not examined.
  init() {}

  init(at packet: UnsafeMutableRawPointer, byteCount: Int) {
    if let header = IPv4Header(at: packet, byteCount: byteCount) {
      read(header, byteCount: byteCount)
    } else if let header = IPv6Header(at: packet, byteCount: byteCount) {
      read(header, byteCount: byteCount)
    }
  }

  @inline(__always)
  private mutating func read(_ header: IPv4Header, byteCount: Int) {
    kind = .other
    addresses = JoinCandidate.digest(
      header.bytes.loadUnaligned(fromByteOffset: 12, as: UInt64.self), 0, 0, 0)
    // In the fragment field only "do not fragment" may be set.
    guard header.headerByteCount == IPv4Header.minimumByteCount,
      header.totalByteCount == byteCount,
      header.fragmentField & ~IPv4Header.doNotFragmentFlag == 0,
      header.hasIntactChecksum, header.checksum != 0xffff
    else { return }
    // The pseudo-header's addresses.
    var sum = Checksum()
    sum.add(header.bytes + 12, byteCount: 8)
    if header.protocolNumber == IPProtocol.tcp {
      readTCP(.tcp4, header.payload, header.payloadByteCount, IPv4Header.minimumByteCount, sum)
    } else if header.protocolNumber == IPProtocol.udp {
      readUDP(.udp4, header.payload, header.payloadByteCount, IPv4Header.minimumByteCount, sum)
    }
  }

  @inline(__always)
  private mutating func read(_ header: IPv6Header, byteCount: Int) {
    kind = .other
    let (source, destination) = (header.source, header.destination)
    addresses = JoinCandidate.digest(
      source.high, source.low, destination.high, destination.low)
    guard header.totalByteCount == byteCount else { return }
    var sum = Checksum()
    sum.add(header.bytes + 8, byteCount: 32)
    if header.nextHeader == IPProtocol.tcp {
      readTCP(.tcp6, header.payload, header.payloadByteCount, IPv6Header.byteCount, sum)
    } else if header.nextHeader == IPProtocol.udp {
      readUDP(.udp6, header.payload, header.payloadByteCount, IPv6Header.byteCount, sum)
    }
  }

  @inline(__always)
  private mutating func readTCP(
    _ kind: Kind, _ bytes: UnsafeMutableRawPointer, _ byteCount: Int, _ networkByteCount: Int,
    _ addressSum: Checksum
  ) {
    guard let header = TCPHeader(at: bytes, byteCount: byteCount) else { return }
    readPorts(kind, bytes, byteCount, networkByteCount, header.headerByteCount)
    // Ones' complement has two zeros. Segmentation never writes 0xffff, so a packet with that
    // checksum could not be restored byte for byte.
    guard header.flags & ~TCPHeader.pshFlag == TCPHeader.ackFlag, bytes.byte(12) & 0xf == 0,
      payloadByteCount > 0, header.checksum != 0xffff
    else { return }
    isJoinable = JoinCandidate.isIntact(bytes, byteCount, IPProtocol.tcp, addressSum)
  }

  @inline(__always)
  private mutating func readUDP(
    _ kind: Kind, _ bytes: UnsafeMutableRawPointer, _ byteCount: Int, _ networkByteCount: Int,
    _ addressSum: Checksum
  ) {
    guard let header = UDPHeader(at: bytes, byteCount: byteCount) else { return }
    readPorts(kind, bytes, byteCount, networkByteCount, UDPHeader.byteCount)
    guard header.totalByteCount == byteCount, payloadByteCount > 0, header.checksum != 0 else {
      return
    }
    isJoinable = JoinCandidate.isIntact(bytes, byteCount, IPProtocol.udp, addressSum)
  }

  @inline(__always)
  private mutating func readPorts(
    _ kind: Kind, _ bytes: UnsafeMutableRawPointer, _ byteCount: Int, _ networkByteCount: Int,
    _ transportByteCount: Int
  ) {
    self.kind = kind
    ports = bytes.loadUnaligned(as: UInt32.self)
    headerByteCount = UInt8(truncatingIfNeeded: networkByteCount &+ transportByteCount)
    payloadByteCount = UInt16(truncatingIfNeeded: byteCount &- transportByteCount)
  }

  @inline(__always)
  private static func isIntact(
    _ bytes: UnsafeMutableRawPointer, _ byteCount: Int, _ number: UInt8, _ addressSum: Checksum
  ) -> Bool {
    var sum = addressSum
    sum.add(UInt16(number))
    sum.add(UInt16(truncatingIfNeeded: byteCount))
    sum.add(bytes, byteCount: byteCount)
    return sum.isIntact
  }

  /// Needs no secret: if two pairs of hosts have the same digest, packets are only joined less
  /// often.
  @inline(__always)
  private static func digest(_ a: UInt64, _ b: UInt64, _ c: UInt64, _ d: UInt64) -> UInt32 {
    // Any distinct odd numbers.
    let sum =
      a &* 0x9e37_79b9_7f4a_7c15 &+ b &* 0xbf58_476d_1ce4_e5b9 &+ c &* 0x94d0_49bb_1331_11eb
      &+ d &* 0xd6e8_feb8_6659_fd93
    return UInt32(truncatingIfNeeded: sum >> 32)
  }

  var isTCP: Bool { kind == .tcp4 || kind == .tcp6 }
  var isIPv4: Bool { kind == .tcp4 || kind == .udp4 }
  var hasPorts: Bool { kind != .unreadable && kind != .other }
}
