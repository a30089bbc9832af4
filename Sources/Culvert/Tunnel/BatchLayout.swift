/// How packets lie in a batch's bytes. The cipher works from one area to the other: what it reads
/// keeps its place, so that segments can be cut without a copy and a tag can be verified after the
/// one pass that decrypts; what it writes stands back to back, so that one call sends it all.
///
///     input   | lead | headroom | packet | headroom | packet | ... slack |
///     output  | lead | gap | header, text, tag | gap | header, text, tag | ... slack |
///
/// The gap is nothing where datagrams go to a socket, and room for IP and UDP headers where they
/// go into another tunnel: that one then reads them where they stand.
public enum BatchLayout {
  /// Bytes to use before each packet: enough for the cipher, for an ICMP error in front of an IPv6
  /// packet (48) with a virtio header before it (10-16), and for the transport header.
  public static let headroom = 64
  /// Bytes before all of it, which the cipher may read: what stands first may be given headers.
  static let lead = 64
  /// What the cipher may read or overwrite behind the last packet of an area.
  static let slack = TransportCipher.slack
  static let alignment = 16
  /// The largest datagram that UDP can carry, over either family.
  public static let maximumDatagram = 65_535
  /// The largest number of bytes for one send with UDP_SEGMENT: an IPv6 packet without extension
  /// headers, counted as the stricter IPv4 does.
  static let maximumSend = 65_487
  /// Segments in one such send: UDP_MAX_SEGMENTS of Linux before 6.9.
  public static let maximumSegments = 64
  /// Bytes of the area that sealed datagrams are written to: what one full read of the TUN makes
  /// at an MTU of 1420 or more (48 datagrams of 1452 bytes), and any single datagram.
  static let outputByteCount = 80 * 1024
  /// From one datagram to the next where several of up to `byteCount` bytes are received in one
  /// call: the batch goes on at multiples of its alignment.
  public static func stride(for byteCount: Int) -> Int {
    roundUp(headroom + byteCount, to: alignment)
  }
  /// Bytes for segment headers that are kept while the packet is cut.
  static let segmentHeaderByteCount = 128
}
