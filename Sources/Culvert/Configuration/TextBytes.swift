/// Text as it arrives: ASCII bytes behind a pointer, never a String, which would allocate.
extension UnsafeRawBufferPointer {
  /// True where these bytes are exactly `text`.
  @inline(never)
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
  @inline(never)
  func firstPosition(of byte: UInt8) -> Int? {
    for index in 0..<count where self[index] == byte { return index }
    return nil
  }

  /// Index of the last `byte`, or nil.
  @inline(never)
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
  @inline(never)
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
