import CLinux

/// News of one interface, from route netlink.
public struct Netlink: ~Copyable {
  private let descriptor: FileDescriptor

  public enum Event: Equatable, Sendable, BitwiseCopyable {
    /// No more news.
    case drained
    /// News of other interfaces.
    case unrelated
    case linkChanged(LinkState)
    /// Deleted, or moved to another namespace: `TunDevice.isAttached` tells which.
    case linkDeleted
    /// News was lost: read `TunDevice.state()`.
    case overflow
    /// The socket is broken; the errno.
    case failed(SystemError)
  }

  private init(descriptor: consuming FileDescriptor) {
    self.descriptor = descriptor
  }

  /// Listens in this thread's namespace.
  public static func open() throws(SystemError) -> Netlink {
    Netlink(descriptor: FileDescriptor(taking: try checked(clinux_netlink_open(-1))))
  }

  /// Listens in the namespace of a descriptor. Needs CAP_SYS_ADMIN.
  public static func open(
    in namespace: borrowing FileDescriptor
  ) throws(SystemError) -> Netlink {
    let raw = clinux_netlink_open(namespace.raw)
    return Netlink(descriptor: FileDescriptor(taking: try checked(raw)))
  }

  /// For epoll.
  @inline(__always)
  public var raw: Int32 { descriptor.raw }

  /// The next piece of news about the interface of this index; call it until `drained`.
  public func next(about index: UInt32) -> Event {
    var link = clinux_link()
    let result = clinux_netlink_next(descriptor.raw, index, &link)
    if result == 0 { return .drained }
    if result == -Int32(CLINUX_ENOBUFS) { return .overflow }
    if result < 0 { return .failed(SystemError(code: -result)) }
    if link.event == UInt32(CLINUX_LINK_DELETED) { return .linkDeleted }
    if link.event != UInt32(CLINUX_LINK_CHANGED) { return .unrelated }
    let name = withUnsafeBytes(of: &link.name) { InterfaceName(trusting: $0) }
    return .linkChanged(LinkState(name: name, mtu: link.mtu, isUp: link.is_up != 0))
  }
}
