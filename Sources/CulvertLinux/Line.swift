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

  /// Dotted quad, or the text of RFC 5952: the first longest run of zeros becomes "::".
  public mutating func append(_ address: IPAddress) {
    switch address.family {
    case .ipv4: appendIPv4(address.ipv4Bits)
    case .ipv6: appendIPv6(address)
    }
  }

  /// "192.0.2.1:51820", "[2001:db8::1]:51820" or "[fe80::1%2]:51820".
  public mutating func append(_ endpoint: Endpoint) {
    let isIPv6 = endpoint.address.family == .ipv6
    if isIPv6 { append("[") }
    append(endpoint.address)
    if endpoint.scope != 0 {
      append("%")
      append(decimal: UInt64(endpoint.scope))
    }
    if isIPv6 { append("]") }
    append(":")
    append(decimal: UInt64(endpoint.port))
  }

  private mutating func appendIPv4(_ bits: UInt32) {
    for index in 0..<4 {
      if index > 0 { append(".") }
      append(decimal: UInt64(bits >> UInt32(24 - 8 * index) & 0xff))
    }
  }

  private mutating func appendIPv6(_ address: IPAddress) {
    var longestStart = 8
    var longestCount = 1
    var runCount = 0
    for index in 0..<8 {
      runCount = Line.group(address, index) == 0 ? runCount + 1 : 0
      if runCount > longestCount {
        longestCount = runCount
        longestStart = index + 1 - runCount
      }
    }
    var index = 0
    while index < 8 {
      if index == longestStart {
        append("::")
        index += longestCount
        continue
      }
      if index > 0 && index != longestStart + longestCount { append(":") }
      append(hex: Line.group(address, index))
      index += 1
    }
  }

  private static func group(_ address: IPAddress, _ index: Int) -> UInt64 {
    (index < 4 ? address.high : address.low) >> UInt64(48 - 16 * (index & 3)) & 0xffff
  }
}
