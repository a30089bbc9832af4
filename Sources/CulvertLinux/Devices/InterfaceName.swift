import CLinux

/// The name of a network interface: 1 to 15 bytes, as the kernel takes it.
public struct InterfaceName: Equatable, Sendable, BitwiseCopyable {
  // 16 bytes in memory order, NUL-padded; an array of them could not be stored inline.
  private var first: UInt64 = 0
  private var second: UInt64 = 0

  public static let byteCapacity = 15

  fileprivate init() {}

  /// Nil where the kernel would refuse the name (dev_valid_name: empty, longer than 15 bytes, ".",
  /// "..", or with "/", ":" or a blank), and for bytes that do not print.
  public init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count > 0, bytes.count <= InterfaceName.byteCapacity else { return nil }
    for byte in bytes {
      let isRefused = byte <= 0x20 || byte >= 0x7f || byte == 0x2f || byte == 0x3a
      if isRefused { return nil }
    }
    if bytes[0] == 0x2e && (bytes.count == 1 || (bytes.count == 2 && bytes[1] == 0x2e)) {
      return nil
    }
    self.init()
    withUnsafeMutableBytes(of: &self) { $0.copyMemory(from: bytes) }
  }

  /// From a NUL-terminated string, such as an argument.
  public init?(cString string: UnsafePointer<CChar>) {
    var count = 0
    while count <= InterfaceName.byteCapacity && string[count] != 0 { count += 1 }
    self.init(UnsafeRawBufferPointer(start: string, count: count))
  }

  public init?(_ text: StaticString) {
    self.init(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  /// A name that the kernel wrote: NUL-terminated in CLINUX_NAME_BYTE_COUNT bytes.
  init(trusting kernelBytes: UnsafeRawBufferPointer) {
    self.init()
    let count = kernelBytes.firstIndex(of: 0) ?? 0
    let name = UnsafeRawBufferPointer(rebasing: kernelBytes[..<count])
    withUnsafeMutableBytes(of: &self) { $0.copyMemory(from: name) }
  }

  /// Whether the tunnels around this interface can be named after it.
  public var hasRoomForHops: Bool { ofHop(1) != nil }

  /// The name of a hop around this interface: "wg0-1" for the first. Nil where that is too long.
  func ofHop(_ number: Int) -> InterfaceName? {
    if number == 0 { return self }
    let byteCount = withBytes { $0.count }
    guard byteCount + 2 <= InterfaceName.byteCapacity else { return nil }
    var name = self
    withUnsafeMutableBytes(of: &name) {
      $0[byteCount] = UInt8(ascii: "-")
      $0[byteCount + 1] = UInt8(ascii: "0") + UInt8(number)
    }
    return name
  }

  /// The bytes of the name, without the NUL.
  public func withBytes<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
    withUnsafeBytes(of: self) { bytes in
      body(UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.firstIndex(of: 0) ?? 0)]))
    }
  }

  /// The name as C wants it, NUL-terminated.
  public func withCString<R>(_ body: (UnsafePointer<CChar>) -> R) -> R {
    withUnsafeBytes(of: self) { body($0.baseAddress!.assumingMemoryBound(to: CChar.self)) }
  }
}
