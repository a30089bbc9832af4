import Culvert

/// A line of text in a fixed buffer. It is truncated if it does not fit.
package struct Line {
  private let buffer: UnsafeMutableRawBufferPointer
  private(set) var count = 0
  /// Whether something did not fit.
  private(set) var isTruncated = false

  init(into buffer: UnsafeMutableRawBufferPointer) {
    self.buffer = buffer
  }

  /// The text so far.
  var bytes: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: buffer[..<count])
  }

  package mutating func append(byte: UInt8) {
    guard count < buffer.count else {
      isTruncated = true
      return
    }
    buffer[count] = byte
    count += 1
  }

  package mutating func append(_ text: StaticString) {
    append(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  package mutating func append(_ bytes: UnsafeRawBufferPointer) {
    for byte in bytes { append(byte: byte) }
  }

  /// Appends a NUL-terminated string. Without the label, a literal could be converted to a String.
  package mutating func append(cString string: UnsafePointer<CChar>) {
    var position = 0
    while string[position] != 0 {
      append(byte: UInt8(bitPattern: string[position]))
      position += 1
    }
  }

  package mutating func append(_ name: InterfaceName) {
    name.withBytes { append($0) }
  }

  /// Appends "No such file or directory (ENOENT)", or the number if the error has no name.
  package mutating func append(_ error: SystemError) {
    append(cString: error.text)
    append(" (")
    if let name = error.name { append(cString: name) } else { append(decimal: Int(error.code)) }
    append(")")
  }

  package mutating func append(decimal value: Int) {
    if value < 0 { append(byte: UInt8(ascii: "-")) }
    append(decimal: UInt64(value.magnitude))
  }

  /// - Parameter width: the least number of digits; zeros are prepended.
  package mutating func append(decimal value: UInt64, width: Int = 1) {
    var divisor: UInt64 = 1
    var digits = 1
    while value / divisor >= 10 || digits < width {
      divisor *= 10
      digits += 1
    }
    while divisor > 0 {
      append(byte: UInt8(ascii: "0") + UInt8(value / divisor % 10))
      divisor /= 10
    }
  }

  /// Appends lower-case hexadecimal digits.
  ///
  /// - Parameter width: the least number of digits, up to 16; zeros are prepended.
  package mutating func append(hex value: UInt64, width: Int = 1) {
    var digits = max(width, 1)
    while digits < 16 && value >> UInt64(digits * 4) != 0 { digits += 1 }
    while digits > 0 {
      digits -= 1
      let digit = UInt8(value >> UInt64(digits * 4) & 0xf)
      append(byte: digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10)
    }
  }

  /// Appends "2026/11/22 11:12:42" in UTC. A local time zone would need a file and memory.
  mutating func append(_ time: WallTime) {
    // Days to date as in Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin
    // in March, so that the leap day is the last day. The limit is the year 9999.
    let seconds = min(time.seconds, 253_402_300_799)
    let days = seconds / 86_400 + 719_468
    let era = days / 146_097
    let dayOfEra = days % 146_097
    let yearOfEra =
      (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shiftedMonth = (5 * dayOfYear + 2) / 153
    let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
    append(decimal: era * 400 + yearOfEra + (month <= 2 ? 1 : 0), width: 4)
    append("/")
    append(decimal: month, width: 2)
    append("/")
    append(decimal: dayOfYear - (153 * shiftedMonth + 2) / 5 + 1, width: 2)
    append(" ")
    append(decimal: seconds / 3600 % 24, width: 2)
    append(":")
    append(decimal: seconds / 60 % 60, width: 2)
    append(":")
    append(decimal: seconds % 60, width: 2)
  }

  /// Appends an address, as dotted decimal or in the form of RFC 5952.
  mutating func append(_ address: IPAddress) {
    append { AddressText.append(address, to: &$0) }
  }

  /// Appends "192.0.2.1:51820", "[2001:db8::1]:51820" or "[fe80::1%2]:51820".
  mutating func append(_ endpoint: Endpoint) {
    append { AddressText.append(endpoint, to: &$0) }
  }

  /// Appends the first and last four characters of a public key, which distinguish peers well
  /// enough.
  mutating func append(abbreviated key: Key) {
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

  /// Lets the core's text functions write into this line.
  private mutating func append(_ body: (inout ByteWriter) -> Void) {
    var writer = ByteWriter(UnsafeMutableRawBufferPointer(rebasing: buffer[count...]))
    body(&writer)
    count += writer.count
    if writer.hasOverflowed { isTruncated = true }
  }
}
