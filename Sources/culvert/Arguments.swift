/// The command line, one argument after the other.
struct Arguments {
  private let values: UnsafePointer<UnsafePointer<CChar>?>
  private let count: Int
  private var position = 1

  init(count: Int, values: UnsafePointer<UnsafePointer<CChar>?>) {
    self.count = count
    self.values = values
  }

  /// The next argument, NUL-terminated; it lives as long as the program.
  mutating func next() -> UnsafePointer<CChar>? {
    guard position < count, let value = values[position] else { return nil }
    position += 1
    return value
  }
}

/// An argument compared with, or read as, what an option wants.
enum Argument {
  static func isText(_ argument: UnsafePointer<CChar>, _ text: StaticString) -> Bool {
    commonByteCount(argument, text) == text.utf8CodeUnitCount
      && argument[text.utf8CodeUnitCount] == 0
  }

  /// Without the NUL.
  static func bytes(_ argument: UnsafePointer<CChar>) -> UnsafeRawBufferPointer {
    var count = 0
    while argument[count] != 0 { count += 1 }
    return UnsafeRawBufferPointer(start: argument, count: count)
  }

  /// The part behind `--name=`; nil where the argument is another option.
  static func value(
    _ argument: UnsafePointer<CChar>, of name: StaticString
  ) -> UnsafePointer<CChar>? {
    let length = name.utf8CodeUnitCount
    guard commonByteCount(argument, name) == length, argument[length] == 0x3d else { return nil }
    return argument + (length + 1)
  }

  /// A decimal number of up to nine digits; nil for anything else.
  static func number(_ argument: UnsafePointer<CChar>) -> Int? {
    var result = 0
    var digits = 0
    while argument[digits] != 0 {
      let byte = argument[digits]
      guard byte >= 0x30, byte <= 0x39, digits < 9 else { return nil }
      result = result * 10 + Int(byte - 0x30)
      digits += 1
    }
    return digits > 0 ? result : nil
  }

  /// Bytes at the start that are the same.
  static func commonByteCount(_ argument: UnsafePointer<CChar>, _ text: StaticString) -> Int {
    var length = 0
    while length < text.utf8CodeUnitCount,
      argument[length] != 0, UInt8(bitPattern: argument[length]) == text.utf8Start[length]
    {
      length += 1
    }
    return length
  }
}
