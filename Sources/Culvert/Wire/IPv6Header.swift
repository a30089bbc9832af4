/// A view of an IPv6 packet (RFC 8200 section 3). The initialiser checks all lengths, so the fields
/// can be read without further checks.
struct IPv6Header: BitwiseCopyable {
  let bytes: UnsafeMutableRawPointer

  static let byteCount = 40

  /// Nil unless the buffer starts with an IPv6 header whose payload lies within the buffer (R14).
  /// Jumbograms are refused, as no buffer can hold one (RFC 2675 section 2).
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard byteCount >= IPv6Header.byteCount, bytes.byte(0) >> 4 == 6 else { return nil }
    let payloadByteCount = Int(bytes.loadBig(4, as: UInt16.self))
    guard
      payloadByteCount <= byteCount &- IPv6Header.byteCount,
      payloadByteCount != 0 || bytes.byte(6) != IPProtocol.hopByHop
    else { return nil }
    self.bytes = bytes
  }

  /// A header that has been validated or written before.
  @inline(__always)
  init(writtenAt bytes: UnsafeMutableRawPointer) {
    self.bytes = bytes
  }

  /// Writes a header, 40 bytes.
  /// - Parameter payloadByteCount: bytes after the header, 0-65535.
  /// - Parameter flowLabel: 20 bits.
  @discardableResult
  static func write(
    at bytes: UnsafeMutableRawPointer, payloadByteCount: Int, trafficClass: UInt8 = 0,
    flowLabel: UInt32 = 0, hopLimit: UInt8 = 64, nextHeader: UInt8, source: IPAddress,
    destination: IPAddress
  ) -> IPv6Header {
    bytes.storeBig(6 << 28 | UInt32(trafficClass) << 20 | flowLabel & 0xf_ffff, 0)
    bytes.storeBig(UInt16(truncatingIfNeeded: payloadByteCount), 4)
    bytes.storeByte(nextHeader, 6)
    bytes.storeByte(hopLimit, 7)
    bytes.storeBig(source.high, 8)
    bytes.storeBig(source.low, 16)
    bytes.storeBig(destination.high, 24)
    bytes.storeBig(destination.low, 32)
    return IPv6Header(writtenAt: bytes)
  }

  /// Always 40; the counterpart of `IPv4Header.headerByteCount`.
  @inline(__always)
  var headerByteCount: Int { IPv6Header.byteCount }

  @inline(__always)
  var payloadByteCount: Int { Int(bytes.loadBig(4, as: UInt16.self)) }

  /// Bytes of header and payload, 40-65575.
  @inline(__always)
  var totalByteCount: Int { IPv6Header.byteCount &+ payloadByteCount }

  @inline(__always)
  var payload: UnsafeMutableRawPointer { bytes + IPv6Header.byteCount }

  /// DSCP and ECN (RFC 2474, RFC 3168).
  @inline(__always)
  var trafficClass: UInt8 {
    get { UInt8(truncatingIfNeeded: bytes.loadBig(0, as: UInt16.self) >> 4) }
    nonmutating set {
      let word = bytes.loadBig(0, as: UInt16.self) & 0xf00f | UInt16(newValue) << 4
      bytes.storeBig(word, 0)
    }
  }

  @inline(__always)
  var flowLabel: UInt32 { bytes.loadBig(0, as: UInt32.self) & 0xf_ffff }

  @inline(__always)
  var nextHeader: UInt8 {
    get { bytes.byte(6) }
    nonmutating set { bytes.storeByte(newValue, 6) }
  }

  @inline(__always)
  var hopLimit: UInt8 {
    get { bytes.byte(7) }
    nonmutating set { bytes.storeByte(newValue, 7) }
  }

  @inline(__always)
  var source: IPAddress { IPAddress(.ipv6, at: bytes + 8) }

  @inline(__always)
  var destination: IPAddress { IPAddress(.ipv6, at: bytes + 24) }

  /// Sets the number of bytes after the header, 0-65535.
  func setPayloadByteCount(_ byteCount: Int) {
    bytes.storeBig(UInt16(truncatingIfNeeded: byteCount), 4)
  }

  /// Removes a fragment header by moving the headers before it forward over it. They get its next
  /// header and the length of the whole packet. Returns this header in its new place.
  /// - Parameter byteOffset: the start of the fragment header, from this header.
  /// - Parameter numberByteOffset: the next-header field that names the fragment header.
  /// - Parameter totalByteCount: bytes of the packet without it, 40-65575.
  @inline(__always)
  func removeFragmentHeader(
    at byteOffset: Int, numberByteOffset: Int, totalByteCount: Int
  ) -> IPv6Header {
    let number = bytes.byte(byteOffset)
    let moved = bytes + IPv6Extensions.fragmentHeaderByteCount
    moved.copyMemory(from: bytes, byteCount: byteOffset)
    moved.storeByte(number, numberByteOffset)
    let header = IPv6Header(writtenAt: moved)
    header.setPayloadByteCount(totalByteCount &- IPv6Header.byteCount)
    return header
  }
}

/// The result of walking an IPv6 packet's extension headers (RFC 8200 section 4).
struct IPv6Extensions: BitwiseCopyable {
  /// The protocol number of the first header that is not an extension header. In a fragment other
  /// than the first it is the fragment header's next header, because the rest is unknown.
  let protocolNumber: UInt8
  /// The start of that header, or of the fragment's data, in the packet.
  let byteOffset: Int
  /// The start of the fragment header in the packet; 0 for none.
  let fragmentHeaderByteOffset: Int
  /// The offset of the next-header field that names the fragment header; 0 for none.
  let fragmentNumberByteOffset: Int
  /// The offset of the data in the whole datagram, in bytes; 0 without a fragment header.
  let fragmentByteOffset: Int

  static let fragmentHeaderByteCount = 8

  /// The number for "nothing follows" (RFC 8200 section 4.7).
  private static let noNextHeader: UInt8 = 59
  /// More than real packets have. Limits the work for forged ones.
  private static let maximumHeaderCount = 8

  /// Whether `number` is an extension header that `init` skips.
  @inline(__always)
  static func isExtension(_ number: UInt8) -> Bool {
    number == IPProtocol.fragment || number == IPProtocol.hopByHop
      || number == IPProtocol.routing || number == IPProtocol.destinationOptions
  }

  /// Nil if the chain exceeds the packet, is too long, or contains a second fragment header (RFC
  /// 7112; F6).
  init?(of packet: IPv6Header) {
    let end = packet.totalByteCount
    var offset = IPv6Header.byteCount
    var number = packet.nextHeader
    // The offset of `number` in the packet.
    var numberOffset = 6
    var fragmentHeaderOffset = 0
    var fragmentNumberOffset = 0
    var fragmentOffset = 0
    var headerCount = 0
    while IPv6Extensions.isExtension(number) {
      let isFragment = number == IPProtocol.fragment
      guard headerCount < IPv6Extensions.maximumHeaderCount, end &- offset >= 8 else { return nil }
      headerCount &+= 1
      number = packet.bytes.byte(offset)
      if isFragment {
        guard fragmentHeaderOffset == 0 else { return nil }
        fragmentHeaderOffset = offset
        fragmentNumberOffset = numberOffset
        fragmentOffset = Int(packet.bytes.loadBig(offset &+ 2, as: UInt16.self) & 0xfff8)
        offset &+= 8
        if fragmentOffset != 0 { break }
      } else {
        // The length in units of 8 bytes, not counting the first 8 (RFC 8200 section 4.3).
        numberOffset = offset
        offset &+= (Int(packet.bytes.byte(offset &+ 1)) &+ 1) &* 8
        guard offset <= end else { return nil }
      }
    }
    protocolNumber = number
    byteOffset = offset
    fragmentHeaderByteOffset = fragmentHeaderOffset
    fragmentNumberByteOffset = fragmentNumberOffset
    fragmentByteOffset = fragmentOffset
  }

  /// Whether the upper-layer header lies within the packet, as it must in a first fragment (RFC
  /// 7112 section 5; F6). For headers other than TCP's, one byte is enough: if more fragments
  /// follow, there are at least eight bytes, which is UDP's whole header (F7).
  func endsInUpperHeader(of packet: IPv6Header) -> Bool {
    let minimum =
      switch protocolNumber {
      case IPv6Extensions.noNextHeader: 0
      case IPProtocol.tcp: TCPHeader.minimumByteCount
      default: 1
      }
    return packet.totalByteCount &- byteOffset >= minimum
  }
}
