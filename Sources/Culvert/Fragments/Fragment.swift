/// A fragment of an IPv4 or IPv6 datagram that has passed all checks that do not need the other
/// fragments.
struct Fragment: BitwiseCopyable {
  let key: FragmentKey
  let packet: UnsafeMutableRawPointer
  /// Bytes before the data; in IPv6 this includes the fragment header.
  let headerByteCount: Int
  /// The offset of the data in the datagram's payload: a multiple of 8.
  let byteOffset: Int
  /// At least 1, and a multiple of 8 if more fragments follow (F7).
  let payloadByteCount: Int
  let isLast: Bool
  /// The ECN codepoint.
  let mark: UInt8
  /// IPv6: the offset in the packet of the next-header field that names the fragment header.
  let numberByteOffset: Int

  @inline(__always)
  var endByteOffset: Int { byteOffset &+ payloadByteCount }

  /// Whether its data equals the bytes at its place in `payload`.
  func hasData(of payload: UnsafeMutableRawPointer) -> Bool {
    let held = payload + byteOffset
    let data = packet + headerByteCount
    var offset = 0
    while payloadByteCount &- offset >= 8 {
      let word = data.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      guard held.loadUnaligned(fromByteOffset: offset, as: UInt64.self) == word else {
        return false
      }
      offset &+= 8
    }
    while offset < payloadByteCount {
      guard held.byte(offset) == data.byte(offset) else { return false }
      offset &+= 1
    }
    return true
  }
}

/// The result of parsing a packet as a fragment.
enum FragmentReading: BitwiseCopyable {
  case whole
  /// A whole IPv6 packet with a fragment header (F5).
  case atomic(IPv6Extensions)
  case fragment(Fragment)
  case refused(FragmentVerdict)

  /// - Parameter maximumByteCount: the limit for the whole packet.
  @inline(__always)
  static func of(
    _ header: IPv4Header, from sender: UInt32, maximumByteCount: Int
  ) -> FragmentReading {
    let field = header.fragmentField
    guard field & 0x3fff != 0 else { return .whole }
    guard header.hasIntactChecksum else { return .refused(.badChecksum) }
    let fragment = Fragment(
      key: FragmentKey(header, sender: sender), packet: header.bytes,
      headerByteCount: header.headerByteCount, byteOffset: Int(field & 0x1fff) &* 8,
      payloadByteCount: header.payloadByteCount,
      isLast: field & IPv4Header.moreFragmentsFlag == 0,
      mark: header.trafficClass & ECN.mask, numberByteOffset: 0)
    // No overflow, even on 32 bits: three numbers of 16 bits (F2).
    let byteCount = fragment.headerByteCount &+ fragment.endByteOffset
    return check(
      fragment, byteCount: byteCount, lengthField: byteCount, maximumByteCount: maximumByteCount)
  }

  @inline(__always)
  static func of(
    _ header: IPv6Header, from sender: UInt32, maximumByteCount: Int
  ) -> FragmentReading {
    guard IPv6Extensions.isExtension(header.nextHeader) else { return .whole }
    guard let extensions = IPv6Extensions(of: header) else { return .refused(.brokenHeaderChain) }
    let start = extensions.fragmentHeaderByteOffset
    guard start != 0 else { return .whole }
    let field = header.bytes.loadBig(start &+ 2, as: UInt16.self)
    if field & 0xfff8 == 0 {
      guard extensions.endsInUpperHeader(of: header) else { return .refused(.brokenHeaderChain) }
      guard field & 1 != 0 else { return .atomic(extensions) }
    }
    let fragment = Fragment(
      key: FragmentKey(
        header, identification: header.bytes.loadBig(start &+ 4, as: UInt32.self), sender: sender),
      packet: header.bytes, headerByteCount: start &+ IPv6Extensions.fragmentHeaderByteCount,
      byteOffset: extensions.fragmentByteOffset,
      payloadByteCount: header.totalByteCount &- start &- IPv6Extensions.fragmentHeaderByteCount,
      isLast: field & 1 == 0, mark: header.trafficClass & ECN.mask,
      numberByteOffset: extensions.fragmentNumberByteOffset)
    if fragment.byteOffset == 0, fragment.headerByteCount > Policy.fragmentHeadersByteCount {
      return .refused(.headersTooLong)
    }
    let byteCount = start &+ fragment.endByteOffset
    return check(
      fragment, byteCount: byteCount, lengthField: byteCount &- IPv6Header.byteCount,
      maximumByteCount: maximumByteCount)
  }

  /// - Parameter byteCount: bytes of the whole packet if it ended with this fragment.
  /// - Parameter lengthField: the length field of its header in that case.
  @inline(__always)
  private static func check(
    _ fragment: Fragment, byteCount: Int, lengthField: Int, maximumByteCount: Int
  ) -> FragmentReading {
    guard fragment.payloadByteCount > 0, fragment.isLast || fragment.payloadByteCount & 7 == 0
    else { return .refused(.badLength) }
    guard lengthField <= 65_535 else { return .refused(.impossibleLength) }
    guard byteCount <= maximumByteCount else { return .refused(.tooLarge) }
    return .fragment(fragment)
  }
}

/// The fields that all fragments of a datagram share (RFC 791 section 3.2, RFC 8200 section 4.5):
/// source, destination, identification, in IPv4 the protocol; and the sender's number (F8).
struct FragmentKey: BitwiseCopyable {
  /// The addresses in memory order: two IPv4 addresses fill `word0`, two IPv6 addresses all four.
  let word0: UInt64
  let word1: UInt64
  let word2: UInt64
  let word3: UInt64
  /// Upper half: the sender. Lower half: IPv6's identification, or IPv4's protocol and
  /// identification.
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

  /// The source to which a slot is charged: an IPv4 address, or the first half of an IPv6 address,
  /// because its owner can choose the second half freely.
  @inline(__always)
  var sourceWord: UInt64 {
    family == .ipv4 ? UInt64(UInt32(truncatingIfNeeded: word0.littleEndian)) : word0
  }

  @inline(__always)
  func hashed(by hash: TableHash) -> UInt32 {
    family == .ipv4 ? hash.hash(word0, tail) : hash.hash(word0, tail, word1, word2, word3)
  }

  @inline(__always)
  static func == (left: FragmentKey, right: FragmentKey) -> Bool {
    guard (left.word0 ^ right.word0) | (left.tail ^ right.tail) == 0, left.family == right.family
    else { return false }
    return left.family == .ipv4
      || (left.word1 ^ right.word1) | (left.word2 ^ right.word2) | (left.word3 ^ right.word3) == 0
  }
}
