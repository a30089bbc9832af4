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
  @inline(never)
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
  @inline(never)
  private static func character(of value: Int32) -> UInt8 {
    let upper = (value &+ 0x41) & Hex.mask(value, upTo: 25)
    let lower = (value &- 26 &+ 0x61) & Hex.mask(value &- 26, upTo: 25)
    let digit = (value &- 52 &+ 0x30) & Hex.mask(value &- 52, upTo: 9)
    let plus = 0x2b & Hex.mask(value &- 62, upTo: 0)
    let slash = 0x2f & Hex.mask(value &- 63, upTo: 0)
    return UInt8(truncatingIfNeeded: upper | lower | digit | plus | slash)
  }
}
