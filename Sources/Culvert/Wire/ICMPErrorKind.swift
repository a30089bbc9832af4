/// The errors that Culvert sends, with their numbers in both families (RFC 792, RFC 1812
/// section 5.2.7.1, RFC 4443 section 3).
enum ICMPErrorKind: BitwiseCopyable {
  /// No allowed IP covers the destination.
  case noRoute
  /// The peer has no endpoint, or its handshake got no answer.
  case hostUnreachable
  case administrativelyProhibited
  /// IPv4 calls it "fragmentation needed".
  case packetTooBig(mtu: UInt32)
  /// The rest of a fragmented datagram did not come in time (F9).
  case reassemblyTimeExceeded

  var ipv4TypeAndCode: (type: UInt8, code: UInt8) {
    switch self {
    case .noRoute: (3, 0)
    case .hostUnreachable: (3, 1)
    case .administrativelyProhibited: (3, 13)
    case .packetTooBig: (3, 4)
    case .reassemblyTimeExceeded: (11, 1)
    }
  }

  var ipv6TypeAndCode: (type: UInt8, code: UInt8) {
    switch self {
    case .noRoute: (1, 0)
    case .hostUnreachable: (1, 3)
    case .administrativelyProhibited: (1, 1)
    case .packetTooBig: (2, 0)
    case .reassemblyTimeExceeded: (3, 1)
    }
  }
}
