/// The Internet checksum, a ones' complement sum of 16-bit words (RFC 1071).
///
/// The running sum is in native byte order: words are added without swapping, and only the results
/// are converted (RFC 1071 section 2(B)). The sum modulo 2^16 - 1 is the same whether 16, 32 or 64
/// bits are added at a time.
struct Checksum: BitwiseCopyable {
  private var sum: UInt64 = 0

  @inline(__always)
  init() {}

  /// Continues from a ones' complement sum, not inverted, in a header field. The kernel leaves such
  /// a sum there with VIRTIO_NET_HDR_F_NEEDS_CSUM.
  @inline(__always)
  init(folded: UInt16) {
    sum = UInt64(folded.bigEndian)
  }

  /// Adds `byteCount` bytes. Only the last call may add an odd number; a zero byte is then assumed
  /// to follow.
  @inline(__always)
  mutating func add(_ bytes: UnsafeRawPointer, byteCount: Int) {
    self = adding(bytes, byteCount: byteCount)
  }

  /// Not inlined, and by value, so that the sum stays in a register.
  @inline(never)
  private func adding(_ bytes: UnsafeRawPointer, byteCount: Int) -> Checksum {
    var total = self
    var offset = 0
    if byteCount >= 64 {
      offset = byteCount & ~31
      total.addWide(bytes, byteCount: offset)
    }
    while byteCount &- offset >= 8 {
      total.addWord(bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
      offset &+= 8
    }
    if byteCount & 4 != 0 {
      total.addWord(UInt64(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
      offset &+= 4
    }
    if byteCount & 2 != 0 {
      total.addWord(UInt64(bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self)))
      offset &+= 2
    }
    if byteCount & 1 != 0 {
      total.addWord(UInt64((UInt16(bytes.byte(offset)) << 8).bigEndian))
    }
    return total
  }

  /// Adds a multiple of 32 bytes.
  ///
  /// Keeps a wrapping sum of the 64-bit words and a sum of their upper halves; the sum of the lower
  /// halves follows from these. This takes one step less per word than splitting it into halves.
  /// The sums of halves cannot wrap, because no buffer has 2^32 words. There are four lanes of each
  /// sum; the vectors can be of any width.
  private mutating func addWide(_ bytes: UnsafeRawPointer, byteCount: Int) {
    var whole = SIMD4<UInt64>(repeating: 0)
    var upper = SIMD4<UInt64>(repeating: 0)
    var offset = 0
    while offset < byteCount {
      let words = bytes.loadUnaligned(fromByteOffset: offset, as: SIMD4<UInt64>.self)
      whole &+= words
      upper &+= words &>> 32
      offset &+= 32
    }
    let lower = whole &- (upper &<< 32)
    addWord(lower.wrappedSum())
    addWord(upper.wrappedSum())
  }

  /// Adds one word.
  @inline(__always)
  mutating func add(_ word: UInt16) {
    addWord(UInt64(word.bigEndian))
  }

  /// Adds the pseudo-header of UDP, TCP and ICMPv6 (RFC 768, RFC 9293 section 3.1, RFC 8200
  /// section 8.1).
  /// - Parameter byteCount: of the transport header and its payload.
  mutating func addPseudoHeader(
    source: IPAddress, destination: IPAddress, protocol number: UInt8, byteCount: Int
  ) {
    addWord(source.high.bigEndian)
    addWord(source.low.bigEndian)
    addWord(destination.high.bigEndian)
    addWord(destination.low.bigEndian)
    addWord(UInt64(UInt32(truncatingIfNeeded: byteCount).bigEndian))
    addWord(UInt64(UInt16(number).bigEndian))
  }

  /// Adds with an end-around carry.
  @inline(__always)
  private mutating func addWord(_ word: UInt64) {
    let (partial, overflow) = sum.addingReportingOverflow(word)
    sum = partial &+ (overflow ? 1 : 0)
  }

  /// The sum itself, not inverted. It is 0xffff for intact bytes that include their checksum.
  @inline(__always)
  var folded: UInt16 {
    var value = (sum & 0xffff_ffff) &+ (sum >> 32)
    value = (value & 0xffff) &+ (value >> 16)
    value = (value & 0xffff) &+ (value >> 16)
    value = (value & 0xffff) &+ (value >> 16)
    return UInt16(bigEndian: UInt16(truncatingIfNeeded: value))
  }

  /// The value for a checksum field: the complement of the sum.
  @inline(__always)
  var value: UInt16 { ~folded }

  /// The value for UDP's checksum field, in which 0 means "none" (RFC 768).
  @inline(__always)
  var udpValue: UInt16 { value == 0 ? 0xffff : value }

  /// True if the added bytes, which include their checksum, are intact.
  @inline(__always)
  var isIntact: Bool { folded == 0xffff }

  /// A checksum after a change of one of its 16-bit words (RFC 1624 section 3, eqn. 3).
  @inline(__always)
  static func updated(_ checksum: UInt16, from old: UInt16, to new: UInt16) -> UInt16 {
    var sum = UInt32(~checksum) &+ UInt32(~old) &+ UInt32(new)
    sum = (sum & 0xffff) &+ (sum >> 16)
    sum = (sum & 0xffff) &+ (sum >> 16)
    return ~UInt16(truncatingIfNeeded: sum)
  }
}
