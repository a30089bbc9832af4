/// How packets lie in a batch's bytes: each has room before it, so that headers are written in
/// place, and behind it, for padding and the tag.
///
///     | headroom 64 ... transport header 16 | packet | padding < 16 | tag 16 | ...
enum BatchLayout {
  /// Enough for an ICMP error in front of an IPv6 packet (48), and for the transport header.
  static let headroom = 64
  /// Padding and tag.
  static let tailroom = WireGuard.paddingByteCount + WireGuard.tagByteCount
  static let alignment = 16
  /// The largest datagram that UDP can carry, over either family.
  static let maximumDatagram = 65_535
}
