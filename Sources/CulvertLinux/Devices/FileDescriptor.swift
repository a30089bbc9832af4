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

/// What a system call failed with: an errno, and its names for people.
public struct SystemError: Error, Equatable, Sendable, BitwiseCopyable {
  /// A positive errno.
  public let code: Int32

  @inline(__always)
  public init(code: Int32) {
    self.code = code
  }

  @inline(__always)
  init(_ constant: Int) {
    code = Int32(constant)
  }

  /// A sentence of the C library ("No such file or directory"), static and NUL-terminated.
  public var text: UnsafePointer<CChar> { clinux_error_text(code) }

  /// "ENOENT" and the like, static and NUL-terminated; nil for a number without a name here.
  public var name: UnsafePointer<CChar>? { clinux_error_name(code) }

  // Computed, since a stored static is a global behind a lock.
  public static var EPERM: SystemError { SystemError(CLINUX_EPERM) }
  public static var ENOENT: SystemError { SystemError(CLINUX_ENOENT) }
  public static var EIO: SystemError { SystemError(CLINUX_EIO) }
  public static var EBADF: SystemError { SystemError(CLINUX_EBADF) }
  public static var EAGAIN: SystemError { SystemError(CLINUX_EAGAIN) }
  public static var ENOMEM: SystemError { SystemError(CLINUX_ENOMEM) }
  public static var EACCES: SystemError { SystemError(CLINUX_EACCES) }
  public static var EBUSY: SystemError { SystemError(CLINUX_EBUSY) }
  public static var EEXIST: SystemError { SystemError(CLINUX_EEXIST) }
  public static var ENODEV: SystemError { SystemError(CLINUX_ENODEV) }
  public static var EINVAL: SystemError { SystemError(CLINUX_EINVAL) }
  public static var ENOSPC: SystemError { SystemError(CLINUX_ENOSPC) }
  public static var EROFS: SystemError { SystemError(CLINUX_EROFS) }
  public static var EPIPE: SystemError { SystemError(CLINUX_EPIPE) }
  public static var ERANGE: SystemError { SystemError(CLINUX_ERANGE) }
  public static var ENAMETOOLONG: SystemError { SystemError(CLINUX_ENAMETOOLONG) }
  public static var EPROTO: SystemError { SystemError(CLINUX_EPROTO) }
  public static var EBADFD: SystemError { SystemError(CLINUX_EBADFD) }
  public static var EMSGSIZE: SystemError { SystemError(CLINUX_EMSGSIZE) }
  public static var ENOPROTOOPT: SystemError { SystemError(CLINUX_ENOPROTOOPT) }
  public static var EOPNOTSUPP: SystemError { SystemError(CLINUX_EOPNOTSUPP) }
  public static var ENOSYS: SystemError { SystemError(CLINUX_ENOSYS) }
  public static var EAFNOSUPPORT: SystemError { SystemError(CLINUX_EAFNOSUPPORT) }
  public static var EADDRINUSE: SystemError { SystemError(CLINUX_EADDRINUSE) }
  public static var EADDRNOTAVAIL: SystemError { SystemError(CLINUX_EADDRNOTAVAIL) }
  public static var ENETDOWN: SystemError { SystemError(CLINUX_ENETDOWN) }
  public static var ENETUNREACH: SystemError { SystemError(CLINUX_ENETUNREACH) }
  public static var ECONNRESET: SystemError { SystemError(CLINUX_ECONNRESET) }
  public static var ENOBUFS: SystemError { SystemError(CLINUX_ENOBUFS) }
  public static var ECONNREFUSED: SystemError { SystemError(CLINUX_ECONNREFUSED) }
  public static var EHOSTUNREACH: SystemError { SystemError(CLINUX_EHOSTUNREACH) }
}

/// Passes a shim's result through, and throws its -errno.
@inline(__always)
@discardableResult
func checked(_ result: Int32) throws(SystemError) -> Int32 {
  if result < 0 { throw SystemError(code: -result) }
  return result
}
