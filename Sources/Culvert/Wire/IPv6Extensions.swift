/// What stands behind an IPv6 packet's extension headers (RFC 8200 section 4).
struct IPv6Extensions: BitwiseCopyable {
  /// Protocol number of the first header that is no extension; the fragment header's own next
  /// header in a fragment that is not the first, where nothing more can be known.
  let protocolNumber: UInt8
  /// Where that header, or the fragment's data, starts: bytes from the start of the packet.
  let byteOffset: Int
  /// Where the fragment header starts, bytes from the start of the packet; 0 for none.
  let fragmentHeaderByteOffset: Int
  /// Where the data belongs in the whole datagram, in bytes; 0 without a fragment header.
  let fragmentByteOffset: Int

  /// More than any real packet has; bounds the work for a made-up one.
  private static let maximumHeaderCount = 8

  /// Nil where the chain runs out of the packet, is too long, or holds a second fragment header
  /// (RFC 7112; F6).
  init?(of packet: IPv6Header) {
    let end = packet.totalByteCount
    var offset = IPv6Header.byteCount
    var number = packet.nextHeader
    var fragmentHeaderOffset = 0
    var fragmentOffset = 0
    var headerCount = 0
    while true {
      let isFragment = number == IPProtocol.fragment
      let isExtension =
        isFragment || number == IPProtocol.hopByHop || number == IPProtocol.routing
        || number == IPProtocol.destinationOptions
      guard isExtension else { break }
      guard headerCount < IPv6Extensions.maximumHeaderCount, end &- offset >= 8 else { return nil }
      headerCount &+= 1
      number = packet.bytes.byte(offset)
      if isFragment {
        guard fragmentHeaderOffset == 0 else { return nil }
        fragmentHeaderOffset = offset
        fragmentOffset = Int(packet.bytes.loadBig(offset &+ 2, as: UInt16.self) & 0xfff8)
        offset &+= 8
        if fragmentOffset != 0 { break }
      } else {
        // Length in 8-byte units, without the first (RFC 8200 section 4.3).
        offset &+= (Int(packet.bytes.byte(offset &+ 1)) &+ 1) &* 8
        guard offset <= end else { return nil }
      }
    }
    protocolNumber = number
    byteOffset = offset
    fragmentHeaderByteOffset = fragmentHeaderOffset
    fragmentByteOffset = fragmentOffset
  }
}
