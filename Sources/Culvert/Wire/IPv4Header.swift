/// A view of an IPv4 packet (RFC 791 section 3.1). The initialiser checks all lengths, so the
/// fields can be read without further checks.
struct IPv4Header: BitwiseCopyable {
  let bytes: UnsafeMutableRawPointer

  static let minimumByteCount = 20

  /// Nil unless the buffer starts with an IPv4 header, options included (R38), whose total length
  /// covers the header and lies within the buffer (R14).
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard byteCount >= IPv4Header.minimumByteCount, bytes.byte(0) >> 4 == 4 else { return nil }
    let headerByteCount = Int(bytes.byte(0) & 0xf) &* 4
    let totalByteCount = Int(bytes.loadBig(2, as: UInt16.self))
    guard
      headerByteCount >= IPv4Header.minimumByteCount, headerByteCount <= totalByteCount,
      totalByteCount <= byteCount
    else { return nil }
    self.bytes = bytes
  }

  /// A header that has been validated or written before.
  @inline(__always)
  init(writtenAt bytes: UnsafeMutableRawPointer) {
    self.bytes = bytes
  }

  /// Writes a header without options, 20 bytes, with its checksum.
  /// - Parameter totalByteCount: of header and payload, 20-65535.
  /// - Parameter fragmentField: flags and offset as in the header.
  @discardableResult
  static func write(
    at bytes: UnsafeMutableRawPointer, totalByteCount: Int, trafficClass: UInt8 = 0,
    identification: UInt16 = 0, fragmentField: UInt16 = 0, timeToLive: UInt8 = 64,
    protocol number: UInt8, source: IPAddress, destination: IPAddress
  ) -> IPv4Header {
    bytes.storeByte(0x45, 0)
    bytes.storeByte(trafficClass, 1)
    bytes.storeBig(UInt16(truncatingIfNeeded: totalByteCount), 2)
    bytes.storeBig(identification, 4)
    bytes.storeBig(fragmentField, 6)
    bytes.storeByte(timeToLive, 8)
    bytes.storeByte(number, 9)
    bytes.storeBig(source.ipv4Bits, 12)
    bytes.storeBig(destination.ipv4Bits, 16)
    let header = IPv4Header(writtenAt: bytes)
    header.updateChecksum()
    return header
  }

  /// Bytes of the header with its options, 20-60.
  @inline(__always)
  var headerByteCount: Int { Int(bytes.byte(0) & 0xf) &* 4 }

  /// Bytes of header and payload.
  @inline(__always)
  var totalByteCount: Int { Int(bytes.loadBig(2, as: UInt16.self)) }

  @inline(__always)
  var payloadByteCount: Int { totalByteCount &- headerByteCount }

  @inline(__always)
  var payload: UnsafeMutableRawPointer { bytes + headerByteCount }

  /// DSCP and ECN (RFC 2474, RFC 3168). Setting it updates the checksum.
  @inline(__always)
  var trafficClass: UInt8 {
    get { bytes.byte(1) }
    nonmutating set { replaceWord(at: 0, with: UInt16(bytes.byte(0)) << 8 | UInt16(newValue)) }
  }

  @inline(__always)
  var identification: UInt16 {
    get { bytes.loadBig(4, as: UInt16.self) }
    nonmutating set { replaceWord(at: 4, with: newValue) }
  }

  /// Flags and fragment offset as in the header. Setting it updates the checksum.
  @inline(__always)
  var fragmentField: UInt16 {
    get { bytes.loadBig(6, as: UInt16.self) }
    nonmutating set { replaceWord(at: 6, with: newValue) }
  }

  static let doNotFragmentFlag: UInt16 = 0x4000
  static let moreFragmentsFlag: UInt16 = 0x2000

  @inline(__always)
  var mayNotBeFragmented: Bool { fragmentField & IPv4Header.doNotFragmentFlag != 0 }

  @inline(__always)
  var hasMoreFragments: Bool { fragmentField & IPv4Header.moreFragmentsFlag != 0 }

  /// The offset of the payload in the whole datagram, in bytes.
  @inline(__always)
  var fragmentByteOffset: Int { Int(fragmentField & 0x1fff) &* 8 }

  /// True if the packet has a fragment offset or the more-fragments flag, whatever DF is (F13).
  @inline(__always)
  var isFragment: Bool { fragmentField & 0x3fff != 0 }

  /// Setting it updates the checksum.
  @inline(__always)
  var timeToLive: UInt8 {
    get { bytes.byte(8) }
    nonmutating set { replaceWord(at: 8, with: UInt16(newValue) << 8 | UInt16(bytes.byte(9))) }
  }

  @inline(__always)
  var protocolNumber: UInt8 { bytes.byte(9) }

  @inline(__always)
  var checksum: UInt16 { bytes.loadBig(10, as: UInt16.self) }

  @inline(__always)
  var source: IPAddress { IPAddress(ipv4: bytes.loadBig(12, as: UInt32.self)) }

  @inline(__always)
  var destination: IPAddress { IPAddress(ipv4: bytes.loadBig(16, as: UInt32.self)) }

  /// Sets the total length, 20-65535, and updates the checksum.
  func setTotalByteCount(_ byteCount: Int) {
    replaceWord(at: 2, with: UInt16(truncatingIfNeeded: byteCount))
  }

  /// Turns the header of a first fragment into that of the whole datagram: sets the length, clears
  /// flags and offset, and sets CE if a fragment was marked (RFC 3168 section 5.3). A valid
  /// checksum stays valid (RFC 1624 section 3, eqn. 3, for three words at once).
  @inline(__always)
  func becomeWhole(totalByteCount: Int, isCongested: Bool) {
    let oldClass = bytes.byte(1)
    let newClass = isCongested ? oldClass | ECN.congestionExperienced : oldClass
    let newLength = UInt16(truncatingIfNeeded: totalByteCount)
    var sum = UInt32(~checksum) &+ UInt32(~bytes.loadBig(2, as: UInt16.self))
    sum &+= UInt32(newLength) &+ UInt32(~fragmentField)
    // The first word's other half does not change.
    sum &+= UInt32(~UInt16(oldClass)) &+ UInt32(newClass)
    sum = (sum & 0xffff) &+ (sum >> 16)
    sum = (sum & 0xffff) &+ (sum >> 16)
    bytes.storeByte(newClass, 1)
    bytes.storeBig(newLength, 2)
    bytes.storeBig(0 as UInt16, 6)
    bytes.storeBig(~UInt16(truncatingIfNeeded: sum), 10)
  }

  @inline(__always)
  var hasIntactChecksum: Bool {
    guard headerByteCount != IPv4Header.minimumByteCount else { return hasIntactShortChecksum }
    var sum = Checksum()
    sum.add(bytes, byteCount: headerByteCount)
    return sum.isIntact
  }

  /// The check for a header without options, which has five 32-bit words.
  @inline(__always)
  private var hasIntactShortChecksum: Bool {
    let first = bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self)
    let second = bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    var sum = UInt64(bytes.loadUnaligned(fromByteOffset: 16, as: UInt32.self))
    sum &+= (first & 0xffff_ffff) &+ (first &>> 32)
    sum &+= (second & 0xffff_ffff) &+ (second &>> 32)
    // A valid sum is a multiple of 2^16 - 1. It is not 0, because the version is not 0.
    sum = (sum & 0xffff) &+ (sum &>> 16)
    sum = (sum & 0xffff) &+ (sum &>> 16)
    sum = (sum & 0xffff) &+ (sum &>> 16)
    return sum == 0xffff
  }

  /// Computes the header's checksum.
  func updateChecksum() {
    bytes.storeBig(0 as UInt16, 10)
    var sum = Checksum()
    sum.add(bytes, byteCount: headerByteCount)
    bytes.storeBig(sum.value, 10)
  }

  @inline(__always)
  private func replaceWord(at offset: Int, with word: UInt16) {
    let old = bytes.loadBig(offset, as: UInt16.self)
    bytes.storeBig(word, offset)
    bytes.storeBig(Checksum.updated(checksum, from: old, to: word), 10)
  }
}
