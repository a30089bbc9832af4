/// What stands behind an IPv6 packet's extension headers (RFC 8200 section 4).
struct IPv6Extensions: BitwiseCopyable {
  /// Protocol number of the first header that is no extension; the fragment header's own next
  /// header in a fragment that is not the first, where nothing more can be known.
  let protocolNumber: UInt8
  /// Where that header, or the fragment's data, starts: bytes from the start of the packet.
  let byteOffset: Int
  /// Where the fragment header starts, bytes from the start of the packet; 0 for none.
  let fragmentHeaderByteOffset: Int
  /// Where the number of the fragment header stands, in the header before it; 0 for none.
  let fragmentNumberByteOffset: Int
  /// Where the data belongs in the whole datagram, in bytes; 0 without a fragment header.
  let fragmentByteOffset: Int

  static let fragmentHeaderByteCount = 8

  /// The number that says that nothing follows (RFC 8200 section 4.7).
  private static let noNextHeader: UInt8 = 59
  /// More than any real packet has; bounds the work for a made-up one.
  private static let maximumHeaderCount = 8

  /// Whether `number` is that of a header that this walks past.
  @inline(__always)
  static func isExtension(_ number: UInt8) -> Bool {
    number == IPProtocol.fragment || number == IPProtocol.hopByHop
      || number == IPProtocol.routing || number == IPProtocol.destinationOptions
  }

  /// Nil where the chain runs out of the packet, is too long, or holds a second fragment header
  /// (RFC 7112; F6).
  init?(of packet: IPv6Header) {
    let end = packet.totalByteCount
    var offset = IPv6Header.byteCount
    var number = packet.nextHeader
    // Where `number` stands.
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
        // Length in 8-byte units, without the first (RFC 8200 section 4.3).
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

  /// Whether the header that the chain ends in lies within the packet, as it has to in a first
  /// fragment (RFC 7112 section 5; F6). Of other headers than TCP's a byte will do: where more
  /// fragments follow there are eight, UDP's whole header (F7).
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
