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
