import CLinux

/// The one owner of an open descriptor, which it closes when it goes.
public struct FileDescriptor: ~Copyable {
  /// The descriptor; -1 for none.
  public let raw: Int32

  /// Takes ownership.
  @inline(__always)
  public init(taking raw: Int32) {
    self.raw = raw
  }

  /// No descriptor: every call on it gives EBADF.
  public static var none: FileDescriptor { FileDescriptor(taking: -1) }

  @inline(__always)
  public var isOpen: Bool { raw >= 0 }

  deinit { FileDescriptor.close(raw) }

  @inline(never)
  private static func close(_ raw: Int32) {
    if raw >= 0 { _ = clinux_file_close(raw) }
  }

  /// Bytes read, 0 at the end, or -errno (`-EAGAIN` where there is nothing yet).
  @inline(__always)
  public func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    clinux_file_read(raw, buffer.baseAddress, buffer.count)
  }

  /// Bytes written, which may be fewer than given, or -errno.
  @inline(__always)
  public func write(_ bytes: UnsafeRawBufferPointer) -> Int {
    clinux_file_write(raw, bytes.baseAddress, bytes.count)
  }
}
