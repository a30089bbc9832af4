/// What the fragments of one datagram have in common (RFC 791 section 3.2, RFC 8200 section 4.5),
/// and who they came from: source, destination and identification, for IPv4 the protocol too, and
/// the sender's number (F8).
struct FragmentKey: BitwiseCopyable {
  /// The addresses as they lie in the header: IPv4's two in `word0`, IPv6's in all four.
  let word0: UInt64
  let word1: UInt64
  let word2: UInt64
  let word3: UInt64
  /// Sender, and below it IPv6's identification, or IPv4's protocol and identification.
  let tail: UInt64
  let family: IPAddress.Family

  @inline(__always)
  init(_ header: IPv4Header, sender: UInt32) {
    word0 = header.bytes.loadUnaligned(fromByteOffset: 12, as: UInt64.self)
    word1 = 0
    word2 = 0
    word3 = 0
    tail =
      UInt64(sender) << 32 | UInt64(header.protocolNumber) << 16 | UInt64(header.identification)
    family = .ipv4
  }

  @inline(__always)
  init(_ header: IPv6Header, identification: UInt32, sender: UInt32) {
    word0 = header.bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    word1 = header.bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
    word2 = header.bytes.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
    word3 = header.bytes.loadUnaligned(fromByteOffset: 32, as: UInt64.self)
    tail = UInt64(sender) << 32 | UInt64(identification)
    family = .ipv6
  }

  @inline(__always)
  var sender: UInt32 { UInt32(truncatingIfNeeded: tail >> 32) }

  /// What stands for the source where sources share the ring: an IPv4 address, or the first half
  /// of an IPv6 address, as its second half costs whoever has the first nothing.
  @inline(__always)
  var sourceWord: UInt64 {
    family == .ipv4 ? UInt64(UInt32(truncatingIfNeeded: word0.littleEndian)) : word0
  }

  @inline(__always)
  static func == (left: FragmentKey, right: FragmentKey) -> Bool {
    guard (left.word0 ^ right.word0) | (left.tail ^ right.tail) == 0, left.family == right.family
    else { return false }
    return left.family == .ipv4
      || (left.word1 ^ right.word1) | (left.word2 ^ right.word2) | (left.word3 ^ right.word3) == 0
  }
}
