/// IP addresses, prefixes and endpoints as text. Parsing accepts what inet_pton(3) accepts (IPv6 as
/// in RFC 4291 section 2.2; IPv4 as four decimal fields without leading zeros). Formatting is
/// canonical (RFC 5952). Names are not resolved and give nil.
public enum AddressText {
  /// The longest endpoint that `append` writes:
  /// [xxxx:xxxx:xxxx:xxxx:xxxx:xxxx:255.255.255.255%4294967295]:65535.
  public static let longestEndpointByteCount = 64
  /// The longest interface name: Linux's IFNAMSIZ without the NUL.
  static let longestZoneByteCount = 15

  /// An address with its zone (RFC 4007 section 11).
  public struct Zoned {
    public var address: IPAddress
    /// The index of `%3`, or 0.
    public var scope: UInt32 = 0
    /// The name of `%eth0`, pointing into the parsed text; empty if there is none.
    public var zoneName = UnsafeRawBufferPointer(start: nil, count: 0)
  }

  /// An endpoint with the name of its zone. If the zone was given by name, `endpoint.scope` is 0
  /// until the caller looks up the interface.
  public struct ZonedEndpoint {
    public var endpoint: Endpoint
    /// Points into the parsed text; empty if there is none.
    public var zoneName: UnsafeRawBufferPointer
  }

  // MARK: Parsing

  /// Parses `192.0.2.1`, `2001:db8::1` or `::ffff:192.0.2.1`. Nil if there is a zone.
  public static func address(_ text: UnsafeRawBufferPointer) -> IPAddress? {
    guard text.firstPosition(of: colon) == nil else { return ipv6(text) }
    guard let bits = ipv4Bits(text) else { return nil }
    return IPAddress(ipv4: bits)
  }

  /// As `address`, but also accepts `%3` or `%eth0` after an IPv6 address. Digits are always an
  /// index; getaddrinfo(3) does the same if no interface has that name.
  public static func zonedAddress(_ text: UnsafeRawBufferPointer) -> Zoned? {
    guard let percent = text.firstPosition(of: UInt8(ascii: "%")) else {
      guard let address = address(text) else { return nil }
      return Zoned(address: address)
    }
    let zone = text.text(from: percent + 1)
    guard let address = ipv6(text.text(0, percent)), isZone(zone) else { return nil }
    for index in 0..<zone.count where !zone[index].isDigit {
      return Zoned(address: address, zoneName: zone)
    }
    guard let scope = zone.number(maximum: .max) else { return nil }
    return Zoned(address: address, scope: scope)
  }

  /// Parses `address/length`, or `address` for its full length. Host bits are cleared. Zones and
  /// leading zeros in the length are refused.
  public static func prefix(_ text: UnsafeRawBufferPointer) -> IPPrefix? {
    guard let slash = text.firstPosition(of: UInt8(ascii: "/")) else {
      guard let address = address(text) else { return nil }
      return IPPrefix(address, length: address.family.bitCount)
    }
    let digits = text.text(from: slash + 1)
    guard let address = address(text.text(0, slash)),
      let length = digits.number(maximum: 128),
      digits.count == 1 || digits[0] != UInt8(ascii: "0")
    else { return nil }
    return IPPrefix(address, length: Int(length))
  }

  /// Parses `192.0.2.1:51820` or `[2001:db8::1%3]:51820`. IPv6 must have brackets, IPv4 must not.
  /// Ports are 0 to 65535, as in wireguard-go.
  public static func endpoint(_ text: UnsafeRawBufferPointer) -> ZonedEndpoint? {
    guard let separator = text.lastPosition(of: colon),
      let port = text.text(from: separator + 1).number(maximum: 65535)
    else { return nil }
    var host = text.text(0, separator)
    let isBracketed =
      host.count >= 2 && host[0] == UInt8(ascii: "[") && host[host.count - 1] == UInt8(ascii: "]")
    if isBracketed { host = host.text(1, host.count - 1) }
    guard let zoned = zonedAddress(host), isBracketed == (zoned.address.family == .ipv6) else {
      return nil
    }
    let endpoint = Endpoint(address: zoned.address, port: UInt16(port), scope: zoned.scope)
    return ZonedEndpoint(endpoint: endpoint, zoneName: zoned.zoneName)
  }

  private static func ipv4Bits(_ text: UnsafeRawBufferPointer) -> UInt32? {
    var bits: UInt32 = 0
    var field: UInt32 = 0
    var digits = 0
    var dots = 0
    for index in 0..<text.count {
      let byte = text[index]
      if byte == dot {
        guard digits > 0, dots < 3 else { return nil }
        bits = bits << 8 | field
        field = 0
        digits = 0
        dots += 1
      } else {
        // A field with a leading zero is ambiguous: some programs read it as octal.
        guard byte.isDigit, digits == 0 || field > 0 else { return nil }
        field = field * 10 + UInt32(byte - UInt8(ascii: "0"))
        guard field <= 255 else { return nil }
        digits += 1
      }
    }
    guard dots == 3, digits > 0 else { return nil }
    return bits << 8 | field
  }

  private static func ipv6(_ text: UnsafeRawBufferPointer) -> IPAddress? {
    // The groups before `::` (nil until it is found), and the groups after it.
    var head: Groups?
    var groups = Groups()
    var index = 0
    if text.count >= 2, text[0] == colon, text[1] == colon {
      head = groups
      index = 2
    }
    while index < text.count {
      var end = index
      while end < text.count, end - index < 4, Hex.value(of: text[end]) >= 0 { end += 1 }
      if end < text.count, text[end] == dot {
        guard let bits = ipv4Bits(text.text(from: index)), groups.count <= 6 else { return nil }
        groups.append(UInt16(truncatingIfNeeded: bits >> 16))
        groups.append(UInt16(truncatingIfNeeded: bits))
        break
      }
      guard groups.count < 8,
        let group = text.text(index, end).number(radix: 16, maximum: 0xffff)
      else { return nil }
      groups.append(UInt16(group))
      guard end < text.count else { break }
      guard text[end] == colon, end + 1 < text.count else { return nil }
      index = end + 1
      if text[index] == colon {
        guard head == nil else { return nil }
        head = groups
        groups = Groups()
        index += 1
      }
    }
    guard let head else { return groups.count == 8 ? groups.address : nil }
    // `::` stands for at least one group.
    guard head.count + groups.count < 8 else { return nil }
    return head.leading(groups)
  }

  /// Up to eight groups of an IPv6 address, the last one in the lowest bits.
  private struct Groups {
    var high: UInt64 = 0
    var low: UInt64 = 0
    var count = 0

    var address: IPAddress { IPAddress(ipv6High: high, low: low) }

    mutating func append(_ group: UInt16) {
      high = high << 16 | low >> 48
      low = low << 16 | UInt64(group)
      count += 1
    }

    /// The address that starts with these groups and ends with `tail`, zeros between them.
    func leading(_ tail: Groups) -> IPAddress {
      let shift = 16 * (8 - count)
      let shiftedHigh = shift >= 64 ? low << (shift - 64) : high << shift | low >> (64 - shift)
      let shiftedLow = shift >= 64 ? 0 : low << shift
      return IPAddress(ipv6High: shiftedHigh | tail.high, low: shiftedLow | tail.low)
    }
  }

  /// Whether Linux allows this interface name. Brackets are excluded, as they belong to the
  /// endpoint's syntax.
  private static func isZone(_ text: UnsafeRawBufferPointer) -> Bool {
    guard text.count > 0, text.count <= longestZoneByteCount else { return false }
    for index in 0..<text.count {
      let byte = text[index]
      guard byte > UInt8(ascii: " "), byte <= UInt8(ascii: "~"), byte != UInt8(ascii: "/"),
        byte != colon, byte != UInt8(ascii: "["), byte != UInt8(ascii: "]")
      else { return false }
    }
    return true
  }

  private static var colon: UInt8 { UInt8(ascii: ":") }
  private static var dot: UInt8 { UInt8(ascii: ".") }

  // MARK: Formatting

  /// `192.0.2.1` or `2001:db8::1`; IPv4-mapped addresses as `::ffff:192.0.2.1` (RFC 5952
  /// section 5).
  public static func append(_ address: IPAddress, to writer: inout ByteWriter) {
    switch address.family {
    case .ipv4: appendIPv4(address.ipv4Bits, to: &writer)
    case .ipv6: appendIPv6(address, to: &writer)
    }
  }

  /// `address/length`.
  public static func append(_ prefix: IPPrefix, to writer: inout ByteWriter) {
    append(prefix.address, to: &writer)
    writer.append(UInt8(ascii: "/"))
    writer.append(decimal: prefix.length)
  }

  /// `192.0.2.1:51820` or `[2001:db8::1]:51820`, with `%3` before the bracket unless the scope is
  /// 0; `[::ffff:192.0.2.1]:51820` if an IPv4 address was given so.
  public static func append(_ endpoint: Endpoint, to writer: inout ByteWriter) {
    let isIPv6 = endpoint.address.family == .ipv6
    let isBracketed = isIPv6 || endpoint.isMapped
    if isBracketed { writer.append(UInt8(ascii: "[")) }
    if endpoint.isMapped, !isIPv6 { writer.append("::ffff:") }
    append(endpoint.address, to: &writer)
    if isIPv6, endpoint.scope != 0 {
      writer.append(UInt8(ascii: "%"))
      writer.append(decimal: endpoint.scope)
    }
    if isBracketed { writer.append(UInt8(ascii: "]")) }
    writer.append(colon)
    writer.append(decimal: endpoint.port)
  }

  private static func appendIPv4(_ bits: UInt32, to writer: inout ByteWriter) {
    writer.append(decimal: bits >> 24)
    writer.append(dot)
    writer.append(decimal: bits >> 16 & 255)
    writer.append(dot)
    writer.append(decimal: bits >> 8 & 255)
    writer.append(dot)
    writer.append(decimal: bits & 255)
  }

  private static func appendIPv6(_ address: IPAddress, to writer: inout ByteWriter) {
    guard address.unmapped.family == .ipv6 else {
      writer.append("::ffff:")
      return appendIPv4(address.unmapped.ipv4Bits, to: &writer)
    }
    let gap = longestZeroRun(of: address)
    var index = 0
    while index < 8 {
      if index == gap.start, gap.count >= 2 {
        writer.append("::")
        index += gap.count
        continue
      }
      if index > 0, !(gap.count >= 2 && index == gap.start + gap.count) { writer.append(colon) }
      appendGroup(group(index, of: address), to: &writer)
      index += 1
    }
  }

  private static func appendGroup(_ group: UInt16, to writer: inout ByteWriter) {
    var shift = 12
    // The last digit is written even if it is 0.
    while shift > 0, group >> shift == 0 { shift -= 4 }
    while shift >= 0 {
      writer.append(Hex.character(of: UInt8(truncatingIfNeeded: group >> shift & 15)))
      shift -= 4
    }
  }

  /// The first of the longest runs of zero groups (RFC 5952 section 4.2.3).
  private static func longestZeroRun(of address: IPAddress) -> (start: Int, count: Int) {
    var best = (start: 0, count: 0)
    var run = 0
    for index in 0..<8 {
      run = group(index, of: address) == 0 ? run + 1 : 0
      if run > best.count { best = (start: index + 1 - run, count: run) }
    }
    return best
  }

  /// The 16 bits of group 0 to 7.
  private static func group(_ index: Int, of address: IPAddress) -> UInt16 {
    let half = index < 4 ? address.high : address.low
    return UInt16(truncatingIfNeeded: half >> UInt64(48 - 16 * (index & 3)))
  }
}
