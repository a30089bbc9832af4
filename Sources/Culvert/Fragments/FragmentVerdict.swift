/// What became of a packet given to the `Reassembler`, and of the datagrams that it was putting
/// together. Every way to lose one has a name and a counter; none is an error of the program.
public enum FragmentVerdict: UInt8, CountedVerdict {
  // Packets: each one given to `Reassembler.add` counts once among these.
  /// No fragment.
  case whole
  /// An IPv6 fragment that is a whole packet (RFC 6946; F5).
  case atomic
  /// Kept.
  case held
  /// The fragment that made its datagram whole.
  case reassembled
  /// The same bytes in the same place as a fragment that came before (F3).
  case duplicate
  /// No IP packet, or lengths that contradict each other.
  case malformed
  /// An IPv4 header whose checksum is wrong.
  case badChecksum
  /// IPv6 headers that run out of the first fragment, are too many, or hold a second fragment
  /// header (RFC 7112; F6).
  case brokenHeaderChain
  /// More headers before the fragment's data than a slot has room for.
  case headersTooLong
  /// Without data, or not the last and not a multiple of 8 bytes (F7).
  case badLength
  /// Header, offset and data end beyond what a length field can say (F2).
  case impossibleLength
  /// A legal datagram, but larger than the limits allow.
  case tooLarge
  /// All slots hold packets that are in use.
  case noSlot
  /// Of a datagram that was discarded before, and whose time is not over.
  case poisoned

  // Packets again; these discard the whole datagram.
  /// Some of its bytes have been there before, and it is no duplicate (F3).
  case overlap
  /// A second last fragment, which ends elsewhere (F10).
  case differentEnd
  /// Data beyond the last fragment, or the other way round (F10).
  case beyondEnd
  /// More fragments than the datagram can need (F1).
  case tooManyFragments
  /// Some fragments say that their sender understands congestion marks, some that it does not
  /// (F12).
  case brokenCongestionMark

  // Datagrams that were given up before they were whole.
  /// The oldest of a full ring, for a newer one (F4).
  case evicted
  /// Its time was over (F9).
  case expired
  /// Flushed, with its sender or with all of them (F10).
  case removed

  /// An expired datagram whose sender was told.
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
