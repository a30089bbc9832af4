import CLinux
import Culvert

/// One zeroed, page-aligned, private mapping: the region that the arena is carved from. It is
/// unmapped when it goes.
public struct MemoryRegion: ~Copyable {
  public let bytes: UnsafeMutableRawBufferPointer

  /// Maps `byteCount` bytes, more than 0. Throws ENOMEM, for `Arena.unaddressable` too.
  public init(byteCount: Int) throws(SystemError) {
    guard byteCount < Arena.unaddressable else { throw .ENOMEM }
    var error: Int32 = 0
    guard let start = clinux_memory_map(byteCount, &error) else {
      throw SystemError(code: -error)
    }
    bytes = UnsafeMutableRawBufferPointer(start: start, count: byteCount)
  }

  deinit {
    _ = clinux_memory_unmap(bytes.baseAddress, bytes.count)
  }

  /// Keeps `part`, page-aligned, in RAM and out of core dumps (R9). Nil on success. An error
  /// (ENOMEM or EPERM under RLIMIT_MEMLOCK, EINVAL on old kernels) is to be reported, no more.
  public static func protect(_ part: UnsafeMutableRawBufferPointer) -> SystemError? {
    if part.count == 0 { return nil }
    // Both are tried, whatever the first one says.
    let dumps = clinux_memory_exclude_from_dumps(part.baseAddress, part.count)
    let lock = clinux_memory_lock(part.baseAddress, part.count)
    if lock < 0 { return SystemError(code: -lock) }
    return dumps < 0 ? SystemError(code: -dumps) : nil
  }
}
