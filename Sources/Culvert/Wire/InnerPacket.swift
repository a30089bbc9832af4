/// The door for tunnelled packets, in both directions: what routing needs of an IPv4 or IPv6
/// packet, checked once.
struct InnerPacket: BitwiseCopyable {
  let source: IPAddress
  let destination: IPAddress
  /// The packet's own length; what the buffer holds beyond it is padding (R14).
  let byteCount: Int
  /// DSCP and ECN.
  let trafficClass: UInt8

  @inline(__always)
  var family: IPAddress.Family { source.family }

  /// Nil unless the buffer holds one whole packet by the rules of `IPv4Header` and `IPv6Header`.
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    // A header view repeats the version check, which the compiler folds into this one.
    guard byteCount > 0 else { return nil }
    if bytes.byte(0) >> 4 == 4 {
      guard let header = IPv4Header(at: bytes, byteCount: byteCount) else { return nil }
      source = header.source
      destination = header.destination
      self.byteCount = header.totalByteCount
      trafficClass = header.trafficClass
    } else {
      guard let header = IPv6Header(at: bytes, byteCount: byteCount) else { return nil }
      source = header.source
      destination = header.destination
      self.byteCount = header.totalByteCount
      trafficClass = header.trafficClass
    }
  }
  /// Sets the two ECN bits of the packet that this was read from, checksum included.
  func setECN(_ mark: UInt8, at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    let marked = trafficClass & ~ECN.mask | mark
    guard marked != trafficClass else { return }
    switch family {
    case .ipv4:
      if let header = IPv4Header(at: bytes, byteCount: byteCount) { header.trafficClass = marked }
    case .ipv6:
      if let header = IPv6Header(at: bytes, byteCount: byteCount) { header.trafficClass = marked }
    }
  }
}
