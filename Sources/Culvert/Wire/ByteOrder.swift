/// Unaligned big-endian and little-endian loads and stores. They check no bounds: the initialiser
/// of a view checks the length before its fields are read (docs/UNSAFE.md).
extension UnsafeRawPointer {
  @inline(__always)
  func loadBig<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as type: T.Type) -> T {
    T(bigEndian: loadUnaligned(fromByteOffset: offset, as: type))
  }

  @inline(__always)
  func loadLittle<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as type: T.Type) -> T {
    T(littleEndian: loadUnaligned(fromByteOffset: offset, as: type))
  }

  @inline(__always)
  func byte(_ offset: Int) -> UInt8 {
    load(fromByteOffset: offset, as: UInt8.self)
  }
}

extension UnsafeMutableRawPointer {
  @inline(__always)
  func loadBig<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as type: T.Type) -> T {
    UnsafeRawPointer(self).loadBig(offset, as: type)
  }

  @inline(__always)
  func loadLittle<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as type: T.Type) -> T {
    UnsafeRawPointer(self).loadLittle(offset, as: type)
  }

  @inline(__always)
  func byte(_ offset: Int) -> UInt8 {
    load(fromByteOffset: offset, as: UInt8.self)
  }

  @inline(__always)
  func storeBig<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, _ offset: Int) {
    storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
  }

  @inline(__always)
  func storeLittle<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, _ offset: Int) {
    storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
  }

  @inline(__always)
  func storeByte(_ value: UInt8, _ offset: Int) {
    storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
  }
}
