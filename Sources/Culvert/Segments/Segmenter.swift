/// Cuts a packet into segments in place, as the kernel's own segmentation would (tcp_gso_segment,
/// __udp_gso_segment, inet_gso_segment).
///
///     | headers | payload 0 | payload 1 | payload 2 |
///               | ...headers| payload 1 |
///                           ^ cut(1) starts before payload 1, over the end of payload 0
///
/// No payload moves: a segment's headers are written over the bytes before its payload. Segments
/// are therefore cut in order, and each must be used before the next one is cut.
///
/// As in the kernel, the checksum field of a packet is trusted to hold the pseudo-header's sum.
/// With an IPv6 routing header, only the sender knows which address that sum contains.
struct Segmenter: BitwiseCopyable {
  private enum Work: UInt8, BitwiseCopyable {
    case nothing
    case checksum
    case tcp
    case udp
  }

  private let packet: UnsafeMutableRawPointer
  /// A copy of the headers, which the first segments may overwrite.
  private let headers: UnsafeMutableRawPointer
  private let packetByteCount: Int
  private var headerByteCount = 0
  private var transportByteOffset = 0
  /// Relative to `transportByteOffset`.
  private var checksumOffset = 0
  private var segmentByteCount = 0
  /// The sum of an IPv4 header without its length, identification and checksum.
  private var headerSum = Checksum()
  private var work = Work.nothing
  private var isIPv4 = false
  /// The next segment for `cut`.
  private var next = 0
  /// At least 1. Only the packet's size limits it, as a segment may have a single byte of payload.
  private(set) var segmentCount = 1

  /// Bytes for the copy of the headers; longer headers are refused. After 40 for IPv6 and 60 for
  /// TCP, 28 are left for extension headers.
  static let headersByteCount = 128

  /// Nil if `offload` does not match the packet: another protocol, inconsistent lengths, a checksum
  /// field in another place, or a fragment. A packet that needs no work is not examined.
  /// - Parameter byteCount: bytes of the whole packet, at most 65575.
  /// - Parameter headers: `headersByteCount` bytes for the exclusive use of this value.
  @inline(__always)
  init?(
    at packet: UnsafeMutableRawPointer, byteCount: Int, offload: PacketOffload,
    headers: UnsafeMutableRawPointer
  ) {
    self.packet = packet
    self.headers = headers
    packetByteCount = byteCount
    guard offload.needsChecksum || offload.segmentation != .none else { return }
    guard validate(offload) else { return nil }
  }

  /// Bytes of segment `index`, headers included.
  @inline(__always)
  func byteCount(_ index: Int) -> Int {
    if index &+ 1 < segmentCount { return headerByteCount &+ segmentByteCount }
    return packetByteCount &- index &* segmentByteCount
  }

  /// Turns segment `index` into a packet of `byteCount(index)` bytes and returns its start. Called
  /// once for each segment, in order from 0.
  @inline(__always)
  mutating func cut(_ index: Int) -> UnsafeMutableRawPointer {
    precondition(index == next && index < segmentCount)
    next &+= 1
    switch work {
    case .nothing: return packet
    case .checksum:
      finishChecksum(packet, byteCount: packetByteCount)
      return packet
    case .tcp, .udp: return write(index)
    }
  }

  // MARK: Validation

  private mutating func validate(_ offload: PacketOffload) -> Bool {
    transportByteOffset = offload.checksumStart
    checksumOffset = offload.checksumOffset
    guard offload.segmentation != .none else {
      work = .checksum
      return fieldLiesInPayload()
    }
    guard offload.needsChecksum, offload.segmentByteCount > 0, findTransport(offload.segmentation)
    else { return false }
    let transport = packet + transportByteOffset
    let transportByteCount = packetByteCount &- transportByteOffset
    if work == .tcp {
      guard checksumOffset == TCPHeader.checksumOffset,
        let header = TCPHeader(at: transport, byteCount: transportByteCount)
      else { return false }
      headerByteCount = transportByteOffset &+ header.headerByteCount
    } else {
      guard checksumOffset == UDPHeader.checksumOffset,
        let header = UDPHeader(at: transport, byteCount: transportByteCount),
        header.totalByteCount == transportByteCount
      else { return false }
      headerByteCount = transportByteOffset &+ UDPHeader.byteCount
    }
    guard headerByteCount <= Segmenter.headersByteCount else { return false }
    segmentByteCount = offload.segmentByteCount
    let payloadByteCount = packetByteCount &- headerByteCount
    segmentCount = max(1, (payloadByteCount &+ segmentByteCount &- 1) / segmentByteCount)
    keepHeaders()
    return true
  }

  /// For a checksum without segments: the field may be any word after the IP header.
  private func fieldLiesInPayload() -> Bool {
    guard packetByteCount > 0 else { return false }
    let minimum =
      packet.byte(0) >> 4 == 4 ? Int(packet.byte(0) & 0xf) &* 4 : IPv6Header.byteCount
    return transportByteOffset >= max(minimum, IPv4Header.minimumByteCount)
      && checksumOffset & 1 == 0
      && transportByteOffset &+ checksumOffset &+ 2 <= packetByteCount
  }

  /// Verifies that the packet has the protocols of `segmentation`, fills the buffer, is not a
  /// fragment, and has its transport header at `transportByteOffset`.
  private mutating func findTransport(_ segmentation: PacketOffload.Segmentation) -> Bool {
    work = segmentation == .udp ? .udp : .tcp
    let number = work == .udp ? IPProtocol.udp : IPProtocol.tcp
    if segmentation != .tcpIPv6, let header = IPv4Header(at: packet, byteCount: packetByteCount) {
      isIPv4 = true
      return header.totalByteCount == packetByteCount && !header.isFragment
        && header.protocolNumber == number && header.headerByteCount == transportByteOffset
    }
    guard segmentation != .tcpIPv4,
      let header = IPv6Header(at: packet, byteCount: packetByteCount),
      header.totalByteCount == packetByteCount, let extensions = IPv6Extensions(of: header)
    else { return false }
    return extensions.fragmentHeaderByteOffset == 0 && extensions.protocolNumber == number
      && extensions.byteOffset == transportByteOffset
  }

  private mutating func keepHeaders() {
    headers.copyMemory(from: packet, byteCount: headerByteCount)
    guard isIPv4 else { return }
    headerSum.add(headers, byteCount: 2)
    headerSum.add(headers + 6, byteCount: 4)
    headerSum.add(headers + 12, byteCount: transportByteOffset &- 12)
  }

  // MARK: Cutting

  private func write(_ index: Int) -> UnsafeMutableRawPointer {
    let bytes = packet + index &* segmentByteCount
    let byteCount = byteCount(index)
    bytes.copyMemory(from: headers, byteCount: headerByteCount)
    if isIPv4 {
      let length = UInt16(truncatingIfNeeded: byteCount)
      let identification =
        headers.loadBig(4, as: UInt16.self) &+ UInt16(truncatingIfNeeded: index)
      var sum = headerSum
      sum.add(length)
      sum.add(identification)
      bytes.storeBig(length, 2)
      bytes.storeBig(identification, 4)
      bytes.storeBig(sum.value, 10)
    } else {
      bytes.storeBig(UInt16(truncatingIfNeeded: byteCount &- IPv6Header.byteCount), 4)
    }
    writeTransport(index, bytes + transportByteOffset, byteCount &- transportByteOffset)
    finishChecksum(bytes, byteCount: byteCount)
    return bytes
  }

  private func writeTransport(_ index: Int, _ bytes: UnsafeMutableRawPointer, _ byteCount: Int) {
    let length = UInt16(truncatingIfNeeded: byteCount)
    if work == .tcp {
      let sequence = bytes.loadBig(4, as: UInt32.self)
      bytes.storeBig(sequence &+ UInt32(truncatingIfNeeded: index &* segmentByteCount), 4)
      var flags = bytes.byte(13)
      if index > 0 { flags &= ~TCPHeader.cwrFlag }
      if index &+ 1 < segmentCount { flags &= ~(TCPHeader.finFlag | TCPHeader.pshFlag) }
      bytes.storeByte(flags, 13)
    } else {
      bytes.storeBig(length, 4)
    }
    // The pseudo-header contains the length, so its sum changes too.
    let whole = UInt16(truncatingIfNeeded: packetByteCount &- transportByteOffset)
    let field = bytes.loadBig(checksumOffset, as: UInt16.self)
    bytes.storeBig(~Checksum.updated(~field, from: whole, to: length), checksumOffset)
  }

  /// Completes the checksum: adds everything from the transport header on to the sum in the field.
  private func finishChecksum(_ bytes: UnsafeMutableRawPointer, byteCount: Int) {
    var sum = Checksum()
    sum.add(bytes + transportByteOffset, byteCount: byteCount &- transportByteOffset)
    // Only UDP has its field at offset 6, and only in UDP does 0 have a special meaning.
    let value = checksumOffset == UDPHeader.checksumOffset ? sum.udpValue : sum.value
    bytes.storeBig(value, transportByteOffset &+ checksumOffset)
  }
}
