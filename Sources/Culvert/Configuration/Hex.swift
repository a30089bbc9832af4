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
  @inline(never)
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
