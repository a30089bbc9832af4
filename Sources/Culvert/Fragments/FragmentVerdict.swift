/// The outcomes of packets in the `Reassembler`, and of datagrams under reassembly. Every loss has
/// a name and a counter. None of them is a fault of the program.
public enum FragmentVerdict: UInt8, CountedVerdict {
  // Packets: `Reassembler.add` counts each packet once, under one of these or of the next group.
  /// Not a fragment.
  case whole
  /// An IPv6 packet that is its only fragment (RFC 6946; F5).
  case atomic
  /// Kept until the others arrive.
  case held
  /// The fragment that completed its datagram.
  case reassembled
  /// The same bytes in the same place as an earlier fragment (F3).
  case duplicate
  /// Not an IP packet, or inconsistent lengths.
  case malformed
  /// An IPv4 header whose checksum is wrong.
  case badChecksum
  /// IPv6 headers that extend beyond the first fragment, are too many, or contain a second fragment
  /// header (RFC 7112; F6).
  case brokenHeaderChain
  /// The headers before the fragment's data do not fit into a slot.
  case headersTooLong
  /// No data, or not a multiple of 8 bytes although more fragments follow (F7).
  case badLength
  /// Header, offset and data exceed what a length field can hold (F2).
  case impossibleLength
  /// A legal datagram, but larger than the limits allow.
  case tooLarge
  /// All slots hold completed packets that are in use.
  case noSlot
  /// Its datagram was discarded and has not expired yet.
  case poisoned

  // Packets that discard their datagram.
  /// It overlaps an earlier fragment and is no duplicate (F3).
  case overlap
  /// A second last fragment with another end (F10).
  case differentEnd
  /// Data beyond the last fragment, or a last fragment before other data (F10).
  case beyondEnd
  /// More fragments than the datagram can need (F1).
  case tooManyFragments
  /// Some fragments support congestion marks and some do not (F12).
  case brokenCongestionMark

  // Datagrams that were never completed.
  /// Replaced by a new datagram, because the ring was full (F4).
  case evicted
  /// It waited too long (F9).
  case expired
  /// Removed with its sender, or with all senders (F10).
  case removed

  /// An expired datagram whose sender got an ICMP error.
  case timeExceededSent

  public static var count: UInt8 { timeExceededSent.rawValue + 1 }

  public var name: StaticString {
    switch self {
    case .whole: "fragment-none"
    case .atomic: "fragment-atomic"
    case .held: "fragment-held"
    case .reassembled: "fragment-reassembled"
    case .duplicate: "fragment-duplicate"
    case .malformed: "fragment-malformed"
    case .badChecksum: "fragment-bad-checksum"
    case .brokenHeaderChain: "fragment-broken-header-chain"
    case .headersTooLong: "fragment-headers-too-long"
    case .badLength: "fragment-bad-length"
    case .impossibleLength: "fragment-impossible-length"
    case .tooLarge: "fragment-too-large"
    case .noSlot: "fragment-no-slot"
    case .poisoned: "fragment-poisoned"
    case .overlap: "fragment-overlap"
    case .differentEnd: "fragment-different-end"
    case .beyondEnd: "fragment-beyond-end"
    case .tooManyFragments: "fragment-too-many"
    case .brokenCongestionMark: "fragment-broken-congestion-mark"
    case .evicted: "fragment-evicted"
    case .expired: "fragment-expired"
    case .removed: "fragment-removed"
    case .timeExceededSent: "fragment-time-exceeded-sent"
    }
  }
}
