/// A view of a UDP datagram (RFC 768). The initialiser checks all lengths, so the fields can be
/// read without further checks.
struct UDPHeader: BitwiseCopyable {
  let bytes: UnsafeMutableRawPointer

  static let byteCount = 8
  /// The offset of the checksum in the header.
  static let checksumOffset = 6

  /// Nil unless the length field covers the header and lies within the buffer.
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard byteCount >= UDPHeader.byteCount else { return nil }
    let totalByteCount = Int(bytes.loadBig(4, as: UInt16.self))
    guard totalByteCount >= UDPHeader.byteCount, totalByteCount <= byteCount else { return nil }
    self.bytes = bytes
  }

  private init(writtenAt bytes: UnsafeMutableRawPointer) {
    self.bytes = bytes
  }

  /// Writes a header, 8 bytes, with checksum 0 ("none"). `updateChecksum` fills in the checksum
  /// once the payload is there.
  /// - Parameter totalByteCount: of header and payload, 8-65535.
  @discardableResult
  static func write(
    at bytes: UnsafeMutableRawPointer, totalByteCount: Int, source: UInt16, destination: UInt16
  ) -> UDPHeader {
    bytes.storeBig(source, 0)
    bytes.storeBig(destination, 2)
    bytes.storeBig(UInt16(truncatingIfNeeded: totalByteCount), 4)
    bytes.storeBig(0 as UInt16, checksumOffset)
    return UDPHeader(writtenAt: bytes)
  }

  @inline(__always)
  var source: UInt16 { bytes.loadBig(0, as: UInt16.self) }

  @inline(__always)
  var destination: UInt16 { bytes.loadBig(2, as: UInt16.self) }

  /// Bytes of header and payload.
  @inline(__always)
  var totalByteCount: Int { Int(bytes.loadBig(4, as: UInt16.self)) }

  @inline(__always)
  var payloadByteCount: Int { totalByteCount &- UDPHeader.byteCount }

  @inline(__always)
  var payload: UnsafeMutableRawPointer { bytes + UDPHeader.byteCount }

  /// 0 means no checksum.
  @inline(__always)
  var checksum: UInt16 {
    get { bytes.loadBig(UDPHeader.checksumOffset, as: UInt16.self) }
    nonmutating set { bytes.storeBig(newValue, UDPHeader.checksumOffset) }
  }

  /// Sets the number of bytes of header and payload, 8-65535.
  func setTotalByteCount(_ byteCount: Int) {
    bytes.storeBig(UInt16(truncatingIfNeeded: byteCount), 4)
  }

  /// Verifies the checksum of header and payload. A missing checksum is only allowed in IPv4
  /// (RFC 768, RFC 8200 section 8.1; F8).
  func hasIntactChecksum(source: IPAddress, destination: IPAddress) -> Bool {
    if checksum == 0 { return source.family == .ipv4 }
    return sum(source: source, destination: destination).isIntact
  }

  /// Computes the checksum over header and payload.
  func updateChecksum(source: IPAddress, destination: IPAddress) {
    checksum = 0
    checksum = sum(source: source, destination: destination).udpValue
  }

  private func sum(source: IPAddress, destination: IPAddress) -> Checksum {
    var sum = Checksum()
    sum.addPseudoHeader(
      source: source, destination: destination, protocol: IPProtocol.udp,
      byteCount: totalByteCount)
    sum.add(bytes, byteCount: totalByteCount)
    return sum
  }
}

/// A view of a TCP segment (RFC 9293 section 3.1). The initialiser checks the header's length, so
/// the fields can be read without further checks.
struct TCPHeader: BitwiseCopyable {
  let bytes: UnsafeMutableRawPointer

  static let minimumByteCount = 20
  /// The offset of the checksum in the header.
  static let checksumOffset = 16

  static let finFlag: UInt8 = 0x01
  static let synFlag: UInt8 = 0x02
  static let rstFlag: UInt8 = 0x04
  static let pshFlag: UInt8 = 0x08
  static let ackFlag: UInt8 = 0x10
  static let urgFlag: UInt8 = 0x20
  static let eceFlag: UInt8 = 0x40
  static let cwrFlag: UInt8 = 0x80

  /// Nil unless the data offset covers the fixed header and lies within the buffer.
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard byteCount >= TCPHeader.minimumByteCount else { return nil }
    let headerByteCount = Int(bytes.byte(12) >> 4) &* 4
    guard headerByteCount >= TCPHeader.minimumByteCount, headerByteCount <= byteCount else {
      return nil
    }
    self.bytes = bytes
  }

  @inline(__always)
  var source: UInt16 { bytes.loadBig(0, as: UInt16.self) }

  @inline(__always)
  var destination: UInt16 { bytes.loadBig(2, as: UInt16.self) }

  @inline(__always)
  var sequence: UInt32 {
    get { bytes.loadBig(4, as: UInt32.self) }
    nonmutating set { bytes.storeBig(newValue, 4) }
  }

  @inline(__always)
  var acknowledgement: UInt32 { bytes.loadBig(8, as: UInt32.self) }

  /// Bytes of the header with its options, 20-60.
  @inline(__always)
  var headerByteCount: Int { Int(bytes.byte(12) >> 4) &* 4 }

  @inline(__always)
  var flags: UInt8 {
    get { bytes.byte(13) }
    nonmutating set { bytes.storeByte(newValue, 13) }
  }

  @inline(__always)
  var window: UInt16 { bytes.loadBig(14, as: UInt16.self) }

  @inline(__always)
  var checksum: UInt16 {
    get { bytes.loadBig(TCPHeader.checksumOffset, as: UInt16.self) }
    nonmutating set { bytes.storeBig(newValue, TCPHeader.checksumOffset) }
  }
}
