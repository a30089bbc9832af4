import CLinux

/// The name of a network interface: 1 to 15 bytes, valid for the kernel.
package struct InterfaceName: Equatable, Sendable, BitwiseCopyable {
  // 16 bytes in memory order, NUL-padded. An array could not be stored inline.
  private var first: UInt64 = 0
  private var second: UInt64 = 0

  static let byteCapacity = 15

  fileprivate init() {}

  /// Nil if the kernel would refuse the name (dev_valid_name: empty, longer than 15 bytes, ".",
  /// "..", or containing "/", ":" or a blank), and also if a byte is not printable ASCII.
  package init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count > 0, bytes.count <= InterfaceName.byteCapacity else { return nil }
    for byte in bytes {
      let isPrintable = byte > UInt8(ascii: " ") && byte <= UInt8(ascii: "~")
      guard isPrintable, byte != UInt8(ascii: "/"), byte != UInt8(ascii: ":") else { return nil }
    }
    let dot = UInt8(ascii: ".")
    if bytes[0] == dot && (bytes.count == 1 || (bytes.count == 2 && bytes[1] == dot)) {
      return nil
    }
    self.init()
    withUnsafeMutableBytes(of: &self) { $0.copyMemory(from: bytes) }
  }

  /// From a NUL-terminated string, such as a command-line argument.
  package init?(cString string: UnsafePointer<CChar>) {
    var count = 0
    while count <= InterfaceName.byteCapacity && string[count] != 0 { count += 1 }
    self.init(UnsafeRawBufferPointer(start: string, count: count))
  }

  package init?(_ text: StaticString) {
    self.init(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  /// A name written by the kernel: NUL-terminated, in CLINUX_NAME_BYTE_COUNT bytes.
  init(trusting kernelBytes: UnsafeRawBufferPointer) {
    self.init()
    let count = kernelBytes.firstIndex(of: 0) ?? 0
    let name = UnsafeRawBufferPointer(rebasing: kernelBytes[..<count])
    withUnsafeMutableBytes(of: &self) { $0.copyMemory(from: name) }
  }

  // MARK: Hops

  /// Whether the name is short enough for the outer hops to be named after it.
  package var hasRoomForHops: Bool { ofHop(1) != nil }

  /// The name of a hop: "wg0" for hop 0, the innermost, and "wg0-1" for the next. Nil if that is
  /// too long.
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

  // MARK: Bytes

  /// The bytes of the name, without the NUL.
  func withBytes<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
    withUnsafeBytes(of: self) { bytes in
      body(UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.firstIndex(of: 0) ?? 0)]))
    }
  }

  /// The name as a NUL-terminated C string.
  func withCString<R>(_ body: (UnsafePointer<CChar>) -> R) -> R {
    withUnsafeBytes(of: self) { body($0.baseAddress!.assumingMemoryBound(to: CChar.self)) }
  }
}

/// Looks up the interface names in endpoints (`fe80::1%eth0`), in the network namespace of the
/// calling thread, which is that of the sockets.
enum InterfaceIndex {
  /// The index of the interface with this name; nil if there is none.
  static func find(_ bytes: UnsafeRawBufferPointer) -> UInt32? {
    guard let name = InterfaceName(bytes) else { return nil }
    let control = FileDescriptor(taking: clinux_link_open(-1))
    guard control.isOpen else { return nil }
    var index: UInt32 = 0
    let result = name.withCString { clinux_link_index(control.raw, $0, &index) }
    return result < 0 ? nil : index
  }
}
