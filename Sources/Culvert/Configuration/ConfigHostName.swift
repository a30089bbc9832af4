/// Host names: which text is one (RFC 952, RFC 1123 section 2.1, with the underscore that many
/// networks have).
public enum ConfigHostName {
  /// Longest name in bytes, without a dot at its end (RFC 1035 section 2.3.4: 255 with the lengths
  /// of its labels and the root's).
  public static let longestByteCount = 253
  static let longestLabelByteCount = 63

  /// The name without the dot that may stand at its end. Nil where it is none: bytes that are not
  /// ASCII (an internationalised name is written as xn--...), an empty label or one that begins or
  /// ends with a hyphen, and anything whose last label is a number: that was meant as an address.
  public static func name(_ text: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
    var name = text
    if name.count > 1, name[name.count - 1] == 0x2e { name = name.text(0, name.count - 1) }
    guard name.count > 0, name.count <= longestByteCount else { return nil }
    var start = 0
    for index in 0...name.count where index == name.count || name[index] == 0x2e {
      let label = name.text(start, index)
      guard isLabel(label) else { return nil }
      if index == name.count, isNumber(label) { return nil }
      start = index + 1
    }
    return name
  }

  private static func isLabel(_ text: UnsafeRawBufferPointer) -> Bool {
    guard text.count > 0, text.count <= longestLabelByteCount else { return false }
    guard text[0] != 0x2d, text[text.count - 1] != 0x2d else { return false }
    for index in 0..<text.count {
      let byte = text[index]
      let isLetter = byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7a
      let isDigit = byte >= 0x30 && byte <= 0x39
      guard isLetter || isDigit || byte == 0x2d || byte == 0x5f else { return false }
    }
    return true
  }

  /// Decimal, or hexadecimal behind `0x`: what inet_aton(3) would take for the end of an address.
  private static func isNumber(_ label: UnsafeRawBufferPointer) -> Bool {
    var digits = label
    var radix: Int32 = 10
    if label.count >= 2, label[0] == 0x30, label[1] | 0x20 == 0x78 {
      digits = label.text(from: 2)
      radix = 16
    }
    for index in 0..<digits.count {
      let value = Hex.value(of: digits[index])
      guard value >= 0, value < radix else { return false }
    }
    return true
  }
}
