import CLinux

/// The environment, as bytes.
package enum Environment {
  /// The value of `name`, without its NUL; nil if it is not set. Always valid, because this process
  /// never changes its environment.
  package static func bytes(_ name: StaticString) -> UnsafeRawBufferPointer? {
    let key = UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
    guard let value = clinux_process_environment(key) else { return nil }
    var count = 0
    while value[count] != 0 { count += 1 }
    return UnsafeRawBufferPointer(start: value, count: count)
  }

  /// The value as a decimal number of at most 9 digits; nil if it is anything else.
  package static func integer(_ name: StaticString) -> Int? {
    guard let value = bytes(name), value.count >= 1, value.count <= 9 else { return nil }
    var number = 0
    for byte in value {
      guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
      number = number * 10 + Int(byte - UInt8(ascii: "0"))
    }
    return number
  }

  /// Whether the variable is set to exactly `text`.
  package static func isSet(_ name: StaticString, to text: StaticString) -> Bool {
    guard let value = bytes(name), value.count == text.utf8CodeUnitCount else { return false }
    // Not elementsEqual: its generic code refers to arrays, which -no-allocations refuses.
    for index in 0..<value.count where value[index] != text.utf8Start[index] { return false }
    return true
  }
}
