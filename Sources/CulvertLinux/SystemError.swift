import CLinux

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
