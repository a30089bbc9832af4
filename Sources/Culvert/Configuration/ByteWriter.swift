/// Writes text into a buffer of fixed size. If an append does not fit, it and all further appends
/// write nothing, and `hasOverflowed` is set.
public struct ByteWriter: ~Copyable {
  private let buffer: UnsafeMutableRawBufferPointer
  /// How many bytes have been written.
  public private(set) var count = 0
  /// True once something did not fit.
  public private(set) var hasOverflowed = false

  public init(_ buffer: UnsafeMutableRawBufferPointer) {
    self.buffer = buffer
  }

  /// The bytes written so far.
  public var written: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: buffer.baseAddress, count: count)
  }

  /// Wipes everything from byte `start` on, and clears `hasOverflowed`. A `start` beyond `count`
  /// wipes nothing.
  public mutating func rewind(to start: Int = 0) {
    hasOverflowed = false
    guard start >= 0, start < count, let base = buffer.baseAddress else { return }
    Secret.wipe(base + start, byteCount: count - start)
    count = start
  }

  @inline(__always)
  private mutating func reserve(_ byteCount: Int) -> UnsafeMutableRawPointer? {
    guard !hasOverflowed, byteCount <= buffer.count - count, let base = buffer.baseAddress else {
      hasOverflowed = true
      return nil
    }
    let start = base + count
    count += byteCount
    return start
  }

  public mutating func append(_ byte: UInt8) {
    reserve(1)?.storeByte(byte, 0)
  }

  public mutating func append(_ text: StaticString) {
    append(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  public mutating func append(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count > 0, let source = bytes.baseAddress else { return }
    reserve(bytes.count)?.copyMemory(from: source, byteCount: bytes.count)
  }

  public mutating func append(decimal value: UInt64) {
    var divisor: UInt64 = 1
    while value / divisor >= 10 { divisor *= 10 }
    while divisor > 0 {
      append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: value / divisor % 10))
      divisor /= 10
    }
  }

  public mutating func append(decimal value: some UnsignedInteger & FixedWidthInteger) {
    append(decimal: UInt64(truncatingIfNeeded: value))
  }

  /// Appends two lower-case digits per byte, in a time that depends only on the length.
  public mutating func append(hex bytes: UnsafeRawPointer, byteCount: Int) {
    guard byteCount > 0, byteCount <= buffer.count else {
      hasOverflowed = hasOverflowed || byteCount > 0
      return
    }
    guard let target = reserve(2 * byteCount) else { return }
    for index in 0..<byteCount {
      let byte = bytes.byte(index)
      target.storeByte(Hex.character(of: byte >> 4), 2 * index)
      target.storeByte(Hex.character(of: byte & 15), 2 * index + 1)
    }
  }
}
