/// Text as ASCII bytes behind a pointer. A String would allocate.
extension UnsafeRawBufferPointer {
  /// True if these bytes are exactly `text`.
  func isText(_ text: StaticString) -> Bool {
    guard count == text.utf8CodeUnitCount else { return false }
    for index in 0..<count where self[index] != text.utf8Start[index] { return false }
    return true
  }

  /// The bytes in `start..<end`. The caller has checked that 0 <= start <= end <= count.
  func text(_ start: Int, _ end: Int) -> UnsafeRawBufferPointer {
    guard let base = baseAddress else { return self }
    return UnsafeRawBufferPointer(start: base + start, count: end - start)
  }

  /// The bytes from `start` on. The caller has checked that 0 <= start <= count.
  func text(from start: Int) -> UnsafeRawBufferPointer {
    text(start, count)
  }

  /// The index of the first `byte`, or nil.
  func firstPosition(of byte: UInt8) -> Int? {
    for index in 0..<count where self[index] == byte { return index }
    return nil
  }

  /// The index of the last `byte`, or nil.
  func lastPosition(of byte: UInt8) -> Int? {
    var index = count
    while index > 0 {
      index -= 1
      if self[index] == byte { return index }
    }
    return nil
  }

  /// These bytes as an unsigned number in `radix` 10 or 16. Nil if they are empty, contain another
  /// character, or exceed `maximum`. Leading zeros are allowed; signs and spaces are not.
  func number(radix: UInt64 = 10, maximum: UInt32) -> UInt32? {
    guard count > 0 else { return nil }
    var value: UInt64 = 0
    for index in 0..<count {
      let digit = Hex.value(of: self[index])
      guard digit >= 0, digit < radix else { return nil }
      // `value` had at most 32 bits, so it has at most 36 here.
      value = value * radix + UInt64(digit)
      guard value <= UInt64(maximum) else { return nil }
    }
    return UInt32(value)
  }

  /// These bytes as a firewall mark, as in wg(8): decimal, or hexadecimal after `0x`.
  var mark: UInt32? {
    guard count > 2, self[0] == UInt8(ascii: "0"), self[1].lowercased == UInt8(ascii: "x") else {
      return number(maximum: .max)
    }
    return text(from: 2).number(radix: 16, maximum: .max)
  }
}

/// Text comparison as in wg(8)'s configuration files: blanks and case are ignored everywhere.
extension UnsafeRawBufferPointer {
  /// These bytes without leading and trailing blanks.
  var trimmed: UnsafeRawBufferPointer {
    var start = 0
    var end = count
    while start < end, self[start].isBlank { start += 1 }
    while end > start, self[end - 1].isBlank { end -= 1 }
    return text(start, end)
  }

  var hasBlanks: Bool {
    for index in 0..<count where self[index].isBlank { return true }
    return false
  }

  /// Whether these bytes without their blanks are `word`, in any case.
  func isWord(_ word: StaticString) -> Bool {
    var matched = 0
    for index in 0..<count where !self[index].isBlank {
      guard matched < word.utf8CodeUnitCount,
        self[index].lowercased == word.utf8Start[matched].lowercased
      else { return false }
      matched += 1
    }
    return matched == word.utf8CodeUnitCount
  }
}

/// A byte as an ASCII character.
extension UInt8 {
  /// Space, tab, newline, vertical tab, form feed and carriage return.
  var isBlank: Bool {
    self == UInt8(ascii: " ") || (self >= UInt8(ascii: "\t") && self <= UInt8(ascii: "\r"))
  }

  /// 0 to 9.
  var isDigit: Bool { self >= UInt8(ascii: "0") && self <= UInt8(ascii: "9") }

  /// A to Z, and a to z.
  var isLetter: Bool { lowercased >= UInt8(ascii: "a") && lowercased <= UInt8(ascii: "z") }

  /// Of ASCII letters, only the lower-case ones have this bit.
  static let caseBit: UInt8 = 1 << 5

  var lowercased: UInt8 {
    self >= UInt8(ascii: "A") && self <= UInt8(ascii: "Z") ? self | UInt8.caseBit : self
  }
}

/// Keys as hexadecimal text, as in the UAPI (wireguard.com/xplatform, "Configuration Protocol").
/// Secrets pass through this code, so no table lookup, branch or early exit depends on a digit.
public enum Hex {
  /// Characters of a 32-byte key.
  public static let keyCharacterCount = 64

  /// Reads 64 hexadecimal digits of either case into the 32 bytes at `key`. False if the length or
  /// a digit is wrong; then `key` is zeroed.
  public static func decodeKey(
    _ text: UnsafeRawBufferPointer, into key: UnsafeMutableRawPointer
  ) -> Bool {
    var wrong: Int32 = text.count == keyCharacterCount ? 0 : -1
    if wrong == 0 {
      for index in 0..<WireGuard.keyByteCount {
        let high = value(of: text[2 * index])
        let low = value(of: text[2 * index + 1])
        wrong |= high | low
        key.storeByte(UInt8(truncatingIfNeeded: high << 4 | low), index)
      }
    }
    // Only wrong digits have negative values, so the sign shows whether there was one.
    guard wrong >= 0 else {
      Secret.wipe(key, byteCount: WireGuard.keyByteCount)
      return false
    }
    return true
  }

  /// The value of a hexadecimal digit of either case, or -1.
  static func value(of character: UInt8) -> Int32 {
    let digit = Int32(character) &- Int32(UInt8(ascii: "0"))
    let letter = Int32(character | UInt8.caseBit) &- Int32(UInt8(ascii: "a"))
    let isDigit = mask(digit, upTo: 9)
    let isLetter = mask(letter, upTo: 5)
    return (digit & isDigit) | ((letter &+ 10) & isLetter) | ~(isDigit | isLetter)
  }

  /// The lower-case digit of a value from 0 to 15.
  @inline(__always)
  static func character(of value: UInt8) -> UInt8 {
    // The distance from the character after `9` to `a`.
    let gap = UInt8(ascii: "a") - UInt8(ascii: "9") - 1
    let letters = UInt8(truncatingIfNeeded: ~mask(Int32(value), upTo: 9)) & gap
    return UInt8(ascii: "0") &+ value &+ letters
  }

  /// All ones if 0 <= value <= limit, otherwise 0, without a branch: if the value is out of range,
  /// one of the two terms is negative.
  @inline(__always)
  static func mask(_ value: Int32, upTo limit: Int32) -> Int32 {
    ~((value | (limit &- value)) >> 31)
  }
}

/// Keys as base64 text, as in wg(8): 32 bytes as 43 characters and one `=` (RFC 4648 section 4).
/// Secrets pass through this code, so only arithmetic depends on a character, as in `Hex`.
public enum Base64 {
  /// Characters of a 32-byte key.
  public static let keyCharacterCount = 44

  /// Reads the 44 characters of a key into the 32 bytes at `key`. False if the length, a character
  /// or the padding is wrong, or one of the two unused bits is set; then `key` is zeroed.
  public static func decodeKey(
    _ text: UnsafeRawBufferPointer, into key: UnsafeMutableRawPointer
  ) -> Bool {
    guard text.count == keyCharacterCount, text[keyCharacterCount - 1] == UInt8(ascii: "=") else {
      Secret.wipe(key, byteCount: WireGuard.keyByteCount)
      return false
    }
    var wrong: Int32 = 0
    for group in 0..<10 {
      let bits = decodeGroup(text, at: 4 * group)
      wrong |= bits
      key.storeByte(UInt8(truncatingIfNeeded: bits >> 16), 3 * group)
      key.storeByte(UInt8(truncatingIfNeeded: bits >> 8), 3 * group + 1)
      key.storeByte(UInt8(truncatingIfNeeded: bits), 3 * group + 2)
    }
    let a = value(of: text[40])
    let b = value(of: text[41])
    let c = value(of: text[42])
    // 18 bits encode 16. The last two must be clear, or several texts would mean the same key.
    wrong |= a | b | c | (0 &- (c & 3))
    let bits = a << 10 | b << 4 | c >> 2
    key.storeByte(UInt8(truncatingIfNeeded: bits >> 8), 30)
    key.storeByte(UInt8(truncatingIfNeeded: bits), 31)
    guard wrong >= 0 else {
      Secret.wipe(key, byteCount: WireGuard.keyByteCount)
      return false
    }
    return true
  }

  /// Appends the 32 bytes at `key` as 44 characters.
  public static func appendKey(_ key: UnsafeRawPointer, to writer: inout ByteWriter) {
    for group in 0..<10 {
      let bits =
        Int32(key.byte(3 * group)) << 16 | Int32(key.byte(3 * group + 1)) << 8
        | Int32(key.byte(3 * group + 2))
      writer.append(character(of: bits >> 18))
      writer.append(character(of: bits >> 12 & 63))
      writer.append(character(of: bits >> 6 & 63))
      writer.append(character(of: bits & 63))
    }
    let bits = Int32(key.byte(30)) << 10 | Int32(key.byte(31)) << 2
    writer.append(character(of: bits >> 12))
    writer.append(character(of: bits >> 6 & 63))
    writer.append(character(of: bits & 63))
    writer.append(UInt8(ascii: "="))
  }

  /// 24 bits from four characters; negative if one of them is wrong.
  @inline(__always)
  private static func decodeGroup(_ text: UnsafeRawBufferPointer, at index: Int) -> Int32 {
    let a = value(of: text[index])
    let b = value(of: text[index + 1])
    let c = value(of: text[index + 2])
    let d = value(of: text[index + 3])
    return a << 18 | b << 12 | c << 6 | d
  }

  /// The six bits of a character, or -1.
  private static func value(of character: UInt8) -> Int32 {
    let upper = distance(character, from: UInt8(ascii: "A"))
    let lower = distance(character, from: UInt8(ascii: "a"))
    let digit = distance(character, from: UInt8(ascii: "0"))
    let isUpper = Hex.mask(upper, upTo: 25)
    let isLower = Hex.mask(lower, upTo: 25)
    let isDigit = Hex.mask(digit, upTo: 9)
    let isPlus = Hex.mask(distance(character, from: UInt8(ascii: "+")), upTo: 0)
    let isSlash = Hex.mask(distance(character, from: UInt8(ascii: "/")), upTo: 0)
    return (upper & isUpper) | ((lower &+ 26) & isLower) | ((digit &+ 52) & isDigit)
      | (62 & isPlus) | (63 & isSlash) | ~(isUpper | isLower | isDigit | isPlus | isSlash)
  }

  /// The character of six bits.
  private static func character(of value: Int32) -> UInt8 {
    let upper = character(UInt8(ascii: "A"), value, upTo: 25)
    let lower = character(UInt8(ascii: "a"), value &- 26, upTo: 25)
    let digit = character(UInt8(ascii: "0"), value &- 52, upTo: 9)
    let plus = character(UInt8(ascii: "+"), value &- 62, upTo: 0)
    let slash = character(UInt8(ascii: "/"), value &- 63, upTo: 0)
    return UInt8(truncatingIfNeeded: upper | lower | digit | plus | slash)
  }

  /// The character `index` places after `first` if 0 <= index <= limit, otherwise 0.
  @inline(__always)
  private static func character(_ first: UInt8, _ index: Int32, upTo limit: Int32) -> Int32 {
    (Int32(first) &+ index) & Hex.mask(index, upTo: limit)
  }

  @inline(__always)
  private static func distance(_ character: UInt8, from first: UInt8) -> Int32 {
    Int32(character) &- Int32(first)
  }
}
