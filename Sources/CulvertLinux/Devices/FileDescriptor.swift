import CLinux

/// Owns an open descriptor, and closes it when destroyed.
struct FileDescriptor: ~Copyable {
  /// The descriptor; -1 for none.
  let raw: Int32

  /// Takes ownership.
  @inline(__always)
  init(taking raw: Int32) {
    self.raw = raw
  }

  /// No descriptor: every call on it fails with EBADF.
  static var none: FileDescriptor { FileDescriptor(taking: -1) }

  @inline(__always)
  var isOpen: Bool { raw >= 0 }

  deinit { FileDescriptor.close(raw) }

  private static func close(_ raw: Int32) {
    if raw >= 0 { _ = clinux_file_close(raw) }
  }

  /// The number of bytes read, 0 at the end of the file, or -errno (`-EAGAIN` if there is nothing
  /// to read yet).
  @inline(__always)
  func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    clinux_file_read(raw, buffer.baseAddress, buffer.count)
  }

  /// The number of bytes written, possibly fewer than given, or -errno.
  @inline(__always)
  func write(_ bytes: UnsafeRawBufferPointer) -> Int {
    clinux_file_write(raw, bytes.baseAddress, bytes.count)
  }
}

/// The errno of a failed system call, with its name and description.
package struct SystemError: Error, Equatable, Sendable, BitwiseCopyable {
  /// A positive errno.
  let code: Int32

  @inline(__always)
  init(code: Int32) {
    self.code = code
  }

  @inline(__always)
  init(_ constant: Int) {
    code = Int32(constant)
  }

  /// The C library's description ("No such file or directory"), static and NUL-terminated.
  var text: UnsafePointer<CChar> { clinux_error_text(code) }

  /// The symbolic name ("ENOENT"), static and NUL-terminated; nil if CLinux does not name the code.
  var name: UnsafePointer<CChar>? { clinux_error_name(code) }

  // Computed, because a stored static property would be a lazily initialised global with a lock.
  static var EPERM: SystemError { SystemError(CLINUX_EPERM) }
  static var ENOENT: SystemError { SystemError(CLINUX_ENOENT) }
  static var EIO: SystemError { SystemError(CLINUX_EIO) }
  static var EBADF: SystemError { SystemError(CLINUX_EBADF) }
  static var EAGAIN: SystemError { SystemError(CLINUX_EAGAIN) }
  static var ENOMEM: SystemError { SystemError(CLINUX_ENOMEM) }
  static var EACCES: SystemError { SystemError(CLINUX_EACCES) }
  static var EBUSY: SystemError { SystemError(CLINUX_EBUSY) }
  static var EEXIST: SystemError { SystemError(CLINUX_EEXIST) }
  static var ENODEV: SystemError { SystemError(CLINUX_ENODEV) }
  static var EINVAL: SystemError { SystemError(CLINUX_EINVAL) }
  static var ENAMETOOLONG: SystemError { SystemError(CLINUX_ENAMETOOLONG) }
  static var EBADFD: SystemError { SystemError(CLINUX_EBADFD) }
  static var EMSGSIZE: SystemError { SystemError(CLINUX_EMSGSIZE) }
  static var ENOPROTOOPT: SystemError { SystemError(CLINUX_ENOPROTOOPT) }
  static var EOPNOTSUPP: SystemError { SystemError(CLINUX_EOPNOTSUPP) }
  static var ENOSYS: SystemError { SystemError(CLINUX_ENOSYS) }
  static var EAFNOSUPPORT: SystemError { SystemError(CLINUX_EAFNOSUPPORT) }
  static var EADDRINUSE: SystemError { SystemError(CLINUX_EADDRINUSE) }
  static var EADDRNOTAVAIL: SystemError { SystemError(CLINUX_EADDRNOTAVAIL) }
  static var ENETUNREACH: SystemError { SystemError(CLINUX_ENETUNREACH) }
  static var ENOBUFS: SystemError { SystemError(CLINUX_ENOBUFS) }
}

/// Returns the result of a CLinux call, or throws its -errno.
@inline(__always)
@discardableResult
func checked(_ result: Int32) throws(SystemError) -> Int32 {
  if result < 0 { throw SystemError(code: -result) }
  return result
}
