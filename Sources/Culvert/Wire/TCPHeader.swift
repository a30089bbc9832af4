/// A view of a TCP segment (RFC 9293 section 3.1). The initialiser proves the header's length; the
/// fields are then read without checks.
struct TCPHeader: BitwiseCopyable {
  let bytes: UnsafeMutableRawPointer

  static let minimumByteCount = 20
  /// Where the checksum stands, from the start of the header.
  static let checksumOffset = 16

  static let finFlag: UInt8 = 0x01
  static let synFlag: UInt8 = 0x02
  static let rstFlag: UInt8 = 0x04
  static let pshFlag: UInt8 = 0x08
  static let ackFlag: UInt8 = 0x10
  static let urgFlag: UInt8 = 0x20
  static let eceFlag: UInt8 = 0x40
  static let cwrFlag: UInt8 = 0x80

  /// Nil unless the data offset covers the fixed header and lies within the buffer.
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard byteCount >= TCPHeader.minimumByteCount else { return nil }
    let headerByteCount = Int(bytes.byte(12) >> 4) &* 4
    guard headerByteCount >= TCPHeader.minimumByteCount, headerByteCount <= byteCount else {
      return nil
    }
    self.bytes = bytes
  }

  @inline(__always)
  var source: UInt16 { bytes.loadBig(0, as: UInt16.self) }

  @inline(__always)
  var destination: UInt16 { bytes.loadBig(2, as: UInt16.self) }

  @inline(__always)
  var sequence: UInt32 {
    get { bytes.loadBig(4, as: UInt32.self) }
    nonmutating set { bytes.storeBig(newValue, 4) }
  }

  @inline(__always)
  var acknowledgement: UInt32 { bytes.loadBig(8, as: UInt32.self) }

  /// Bytes of the header with its options, 20-60.
  @inline(__always)
  var headerByteCount: Int { Int(bytes.byte(12) >> 4) &* 4 }

  @inline(__always)
  var flags: UInt8 {
    get { bytes.byte(13) }
    nonmutating set { bytes.storeByte(newValue, 13) }
  }

  @inline(__always)
  var window: UInt16 { bytes.loadBig(14, as: UInt16.self) }

  @inline(__always)
  var checksum: UInt16 {
    get { bytes.loadBig(TCPHeader.checksumOffset, as: UInt16.self) }
    nonmutating set { bytes.storeBig(newValue, TCPHeader.checksumOffset) }
  }
}
