@testable import Culvert

/// Bytes at a fixed address: what views are laid over. Exactly as long as asked, so that the
/// address sanitizer sees a read beyond the end.
final class PacketBuffer {
  let start: UnsafeMutableRawPointer
  let byteCount: Int

  init(_ bytes: [UInt8]) {
    byteCount = bytes.count
    start = .allocate(byteCount: max(bytes.count, 1), alignment: 1)
    UnsafeMutableRawBufferPointer(start: start, count: byteCount).copyBytes(from: bytes)
  }

  convenience init(byteCount: Int) {
    self.init([UInt8](repeating: 0, count: byteCount))
  }

  deinit {
    start.deallocate()
  }

  var bytes: [UInt8] {
    Array(UnsafeRawBufferPointer(start: start, count: byteCount))
  }

  subscript(offset: Int) -> UInt8 {
    get { start.byte(offset) }
    set { start.storeByte(newValue, offset) }
  }
}
