/// What became of a datagram in a channel. Fragments on their way have verdicts of their own
/// (`FragmentVerdict`).
public enum DatagramVerdict: UInt8, Sendable, BitwiseCopyable {
  // Outward.
  case sent
  /// Larger than the tunnel's MTU; sent in fragments.
  case sentInFragments
  /// There is no local address of the destination's family.
  case noAddress
  /// Larger than UDP, or one batch in fragments, can carry; or than may go whole with DF.
  case tooLarge

  // Inward.
  case received
  /// A fragment, kept or dropped by the reassembler.
  case fragment
  /// No packet, no UDP, or lengths that contradict each other.
  case malformed
  /// To another address, of another protocol, or to a port that is not open.
  case notOurs
  /// The checksum is wrong, or missing over IPv6 (F8).
  case badChecksum
  /// The source is no single host.
  case badSource
  /// An ICMP error about a datagram of ours: its destination is unreachable.
  case unreachable
  /// An ICMP error about a datagram of ours: it exceeds the path's MTU.
  case tooLargeForPath
  case closed

  /// Raw values are 0 up to this.
  public static var count: UInt8 { closed.rawValue + 1 }

  /// The counter's name in the output of SIGUSR1.
  public var name: StaticString {
    switch self {
    case .sent: "datagram-sent"
    case .sentInFragments: "datagram-sent-in-fragments"
    case .noAddress: "datagram-no-address"
    case .tooLarge: "datagram-too-large"
    case .received: "datagram-received"
    case .fragment: "datagram-fragment"
    case .malformed: "datagram-malformed"
    case .notOurs: "datagram-not-ours"
    case .badChecksum: "datagram-bad-checksum"
    case .badSource: "datagram-bad-source"
    case .unreachable: "datagram-unreachable"
    case .tooLargeForPath: "datagram-too-large-for-path"
    case .closed: "datagram-closed"
    }
  }
}

/// How often each was given, since start.
public struct DatagramCounters: BitwiseCopyable {
  private let counts: UnsafeMutablePointer<UInt64>

  init(carvingFrom arena: inout Arena) {
    counts =
      arena.carve(UInt64.self, count: Int(DatagramVerdict.count), owner: "counters").baseAddress!
  }

  @inline(__always)
  func add(_ verdict: DatagramVerdict) {
    counts[Int(verdict.rawValue)] &+= 1
  }

  public subscript(verdict: DatagramVerdict) -> UInt64 {
    counts[Int(verdict.rawValue)]
  }
}
