/// What a whole IP packet carries: the header behind IPv4 options or IPv6 extension headers.
struct TransportContent: BitwiseCopyable {
  let source: IPAddress
  let destination: IPAddress
  let trafficClass: UInt8
  let protocolNumber: UInt8
  /// The transport header and what follows it.
  let bytes: UnsafeMutableRawPointer
  let byteCount: Int

  /// Nil for a fragment, and where the lengths or the chain of headers make no sense.
  init?(at start: UnsafeMutableRawPointer, byteCount: Int) {
    if let header = IPv4Header(at: start, byteCount: byteCount) {
      if header.isFragment { return nil }
      self.init(
        source: header.source, destination: header.destination,
        trafficClass: header.trafficClass, protocolNumber: header.protocolNumber,
        bytes: header.payload, byteCount: header.payloadByteCount)
      return
    }
    guard let header = IPv6Header(at: start, byteCount: byteCount),
      let chain = IPv6Extensions(of: header), chain.fragmentHeaderByteOffset == 0
    else { return nil }
    self.init(
      source: header.source, destination: header.destination, trafficClass: header.trafficClass,
      protocolNumber: chain.protocolNumber, bytes: start + chain.byteOffset,
      byteCount: header.totalByteCount &- chain.byteOffset)
  }

  private init(
    source: IPAddress, destination: IPAddress, trafficClass: UInt8, protocolNumber: UInt8,
    bytes: UnsafeMutableRawPointer, byteCount: Int
  ) {
    self.source = source
    self.destination = destination
    self.trafficClass = trafficClass
    self.protocolNumber = protocolNumber
    self.bytes = bytes
    self.byteCount = byteCount
  }
}
