/// Text as it arrives: ASCII bytes behind a pointer, never a String, which would allocate.
extension UnsafeRawBufferPointer {
  /// True where these bytes are exactly `text`.
  func isText(_ text: StaticString) -> Bool {
    guard count == text.utf8CodeUnitCount else { return false }
    for index in 0..<count where self[index] != text.utf8Start[index] { return false }
    return true
  }

  /// The bytes from `start` up to, not including, `end`. The caller has proved
  /// 0 <= start <= end <= count.
  func text(_ start: Int, _ end: Int) -> UnsafeRawBufferPointer {
    guard let base = baseAddress else { return self }
    return UnsafeRawBufferPointer(start: base + start, count: end - start)
  }

  /// The bytes from `start` on. The caller has proved 0 <= start <= count.
  func text(from start: Int) -> UnsafeRawBufferPointer {
    text(start, count)
  }

  /// Index of the first `byte`, or nil.
  func firstPosition(of byte: UInt8) -> Int? {
    for index in 0..<count where self[index] == byte { return index }
    return nil
  }

  /// Index of the last `byte`, or nil.
  func lastPosition(of byte: UInt8) -> Int? {
    var index = count
    while index > 0 {
      index -= 1
      if self[index] == byte { return index }
    }
    return nil
  }

  /// These bytes as an unsigned number in `radix` 10 or 16, or nil: empty, another character, or
  /// more than `maximum`. Leading zeros are allowed, signs and spaces are not.
  func number(radix: UInt64 = 10, maximum: UInt32) -> UInt32? {
    guard count > 0 else { return nil }
    var value: UInt64 = 0
    for index in 0..<count {
      let digit = Hex.value(of: self[index])
      guard digit >= 0, digit < radix else { return nil }
      // At most 32 bits before, so at most 36 bits here.
      value = value * radix + UInt64(digit)
      guard value <= UInt64(maximum) else { return nil }
    }
    return UInt32(value)
  }
}

/// How wg(8) reads the text of a configuration file: blanks do not count, wherever they stand, and
/// letters of either case are the same.
extension UnsafeRawBufferPointer {
  /// Space, tab, vertical tab, form feed and carriage return.
  static func isBlank(_ byte: UInt8) -> Bool {
    byte == 0x20 || (byte >= 0x09 && byte <= 0x0d)
  }

  /// Without the blanks at both ends.
  var trimmed: UnsafeRawBufferPointer {
    var start = 0
    var end = count
    while start < end, UnsafeRawBufferPointer.isBlank(self[start]) { start += 1 }
    while end > start, UnsafeRawBufferPointer.isBlank(self[end - 1]) { end -= 1 }
    return text(start, end)
  }

  var hasBlanks: Bool {
    for index in 0..<count where UnsafeRawBufferPointer.isBlank(self[index]) { return true }
    return false
  }

  /// Whether these bytes without their blanks are `word`, in any case.
  func isWord(_ word: StaticString) -> Bool {
    var matched = 0
    for index in 0..<count where !UnsafeRawBufferPointer.isBlank(self[index]) {
      guard matched < word.utf8CodeUnitCount,
        UnsafeRawBufferPointer.lowercase(self[index])
          == UnsafeRawBufferPointer.lowercase(word.utf8Start[matched])
      else { return false }
      matched += 1
    }
    return matched == word.utf8CodeUnitCount
  }

  private static func lowercase(_ byte: UInt8) -> UInt8 {
    byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte
  }
}

/// Keys as hexadecimal text, the form of the UAPI (wireguard.com/xplatform, "Configuration
/// Protocol"). Secrets pass through here, so there is no table, no branch and no early exit that
/// depends on a digit.
public enum Hex {
  /// Characters of a 32-byte key.
  public static let keyCharacterCount = 64

  /// Reads 64 hexadecimal digits of either case into the 32 bytes at `key`. False where the length
  /// or a digit is wrong; then `key` is zeroed.
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
    // Only a wrong digit is negative, so the sign has gathered them all.
    guard wrong >= 0 else {
      Secret.wipe(key, byteCount: WireGuard.keyByteCount)
      return false
    }
    return true
  }

  /// The value of a hexadecimal digit of either case, or -1.
  static func value(of character: UInt8) -> Int32 {
    let digit = Int32(character) &- 0x30
    let letter = Int32(character | 0x20) &- 0x61
    let isDigit = mask(digit, upTo: 9)
    let isLetter = mask(letter, upTo: 5)
    return (digit & isDigit) | ((letter &+ 10) & isLetter) | ~(isDigit | isLetter)
  }

  /// The lower-case digit of a value from 0 to 15.
  @inline(__always)
  static func character(of value: UInt8) -> UInt8 {
    let value = Int32(value)
    return UInt8(truncatingIfNeeded: 0x30 &+ value &+ (~mask(value, upTo: 9) & 0x27))
  }

  /// All ones where 0 <= value <= limit, otherwise 0, without a branch: outside, one of the two
  /// terms is negative.
  @inline(__always)
  static func mask(_ value: Int32, upTo limit: Int32) -> Int32 {
    ~((value | (limit &- value)) >> 31)
  }
}

/// Keys as base64 text, the form of wg(8): 32 bytes as 43 characters and one `=` (RFC 4648
/// section 4). Secrets pass through here, so as in `Hex` nothing depends on a character but
/// arithmetic.
public enum Base64 {
  /// Characters of a 32-byte key.
  public static let keyCharacterCount = 44

  /// Reads the 44 characters of a key into the 32 bytes at `key`. False where the length, a
  /// character or the padding is wrong, or one of the two unused bits is set; then `key` is zeroed.
  public static func decodeKey(
    _ text: UnsafeRawBufferPointer, into key: UnsafeMutableRawPointer
  ) -> Bool {
    guard text.count == keyCharacterCount, text[keyCharacterCount - 1] == 0x3d else {
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
    // 18 bits for 16: the last two must be clear, or two texts would mean one key.
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
    writer.append(0x3d)
  }

  /// 24 bits from four characters; negative where one of them is wrong.
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
    let character = Int32(character)
    let upper = character &- 0x41
    let lower = character &- 0x61
    let digit = character &- 0x30
    let isUpper = Hex.mask(upper, upTo: 25)
    let isLower = Hex.mask(lower, upTo: 25)
    let isDigit = Hex.mask(digit, upTo: 9)
    let isPlus = Hex.mask(character &- 0x2b, upTo: 0)
    let isSlash = Hex.mask(character &- 0x2f, upTo: 0)
    return (upper & isUpper) | ((lower &+ 26) & isLower) | ((digit &+ 52) & isDigit)
      | (62 & isPlus) | (63 & isSlash) | ~(isUpper | isLower | isDigit | isPlus | isSlash)
  }

  /// The character of six bits.
  private static func character(of value: Int32) -> UInt8 {
    let upper = (value &+ 0x41) & Hex.mask(value, upTo: 25)
    let lower = (value &- 26 &+ 0x61) & Hex.mask(value &- 26, upTo: 25)
    let digit = (value &- 52 &+ 0x30) & Hex.mask(value &- 52, upTo: 9)
    let plus = 0x2b & Hex.mask(value &- 62, upTo: 0)
    let slash = 0x2f & Hex.mask(value &- 63, upTo: 0)
    return UInt8(truncatingIfNeeded: upper | lower | digit | plus | slash)
  }
}
