import Culvert

/// A line of text being put together in somebody's fixed buffer. What does not fit is cut.
public struct Line {
  private let buffer: UnsafeMutableRawBufferPointer
  public private(set) var count = 0
  /// Something did not fit.
  public private(set) var isTruncated = false

  public init(into buffer: UnsafeMutableRawBufferPointer) {
    self.buffer = buffer
  }

  /// The text so far.
  public var bytes: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: buffer[..<count])
  }

  public mutating func append(byte: UInt8) {
    guard count < buffer.count else {
      isTruncated = true
      return
    }
    buffer[count] = byte
    count += 1
  }

  public mutating func append(_ text: StaticString) {
    append(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  public mutating func append(_ bytes: UnsafeRawBufferPointer) {
    for byte in bytes { append(byte: byte) }
  }

  /// A NUL-terminated string. Labelled, since Swift would turn a literal into a String for it.
  public mutating func append(cString string: UnsafePointer<CChar>) {
    var position = 0
    while string[position] != 0 {
      append(byte: UInt8(bitPattern: string[position]))
      position += 1
    }
  }

  public mutating func append(_ name: InterfaceName) {
    name.withBytes { append($0) }
  }

  /// "No such file or directory (ENOENT)"; the number where there is no name.
  public mutating func append(_ error: SystemError) {
    append(cString: error.text)
    append(" (")
    if let name = error.name { append(cString: name) } else { append(decimal: Int(error.code)) }
    append(")")
  }

  public mutating func append(decimal value: Int) {
    if value < 0 { append(byte: 0x2d) }
    append(decimal: UInt64(value.magnitude))
  }

  /// - Parameter width: digits at least; zeros fill up.
  public mutating func append(decimal value: UInt64, width: Int = 1) {
    var divisor: UInt64 = 1
    var digits = 1
    while value / divisor >= 10 || digits < width {
      divisor *= 10
      digits += 1
    }
    while divisor > 0 {
      append(byte: 0x30 + UInt8(value / divisor % 10))
      divisor /= 10
    }
  }

  /// Lower case, without leading zeros.
  ///
  /// - Parameter width: digits at least; zeros fill up. Up to 16.
  public mutating func append(hex value: UInt64, width: Int = 1) {
    var digits = max(width, 1)
    while digits < 16 && value >> UInt64(digits * 4) != 0 { digits += 1 }
    while digits > 0 {
      digits -= 1
      let digit = UInt8(value >> UInt64(digits * 4) & 0xf)
      append(byte: digit < 10 ? 0x30 + digit : 0x61 + digit - 10)
    }
  }

  /// Dotted quad, or the text of RFC 5952.
  public mutating func append(_ address: IPAddress) {
    append { AddressText.append(address, to: &$0) }
  }

  /// "192.0.2.1:51820", "[2001:db8::1]:51820" or "[fe80::1%2]:51820".
  public mutating func append(_ endpoint: Endpoint) {
    append { AddressText.append(endpoint, to: &$0) }
  }

  /// The first and last four characters of a public key, enough to tell peers apart.
  public mutating func append(abbreviated key: Key) {
    var copy = key
    withUnsafeTemporaryAllocation(byteCount: 44, alignment: 1) { buffer in
      var writer = ByteWriter(buffer)
      withUnsafeBytes(of: &copy) { Base64.appendKey($0.baseAddress!, to: &writer) }
      append(UnsafeRawBufferPointer(rebasing: buffer[..<4]))
      append("…")
      // The last character is the padding "=".
      append(UnsafeRawBufferPointer(rebasing: buffer[39..<43]))
    }
  }

  /// What the core writes for the configuration socket, in the log.
  private mutating func append(_ body: (inout ByteWriter) -> Void) {
    var writer = ByteWriter(UnsafeMutableRawBufferPointer(rebasing: buffer[count...]))
    body(&writer)
    count += writer.count
    if writer.hasOverflowed { isTruncated = true }
  }
}
