import CLinux
import Culvert

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

/// What the rest of the program needs to know of the tunnel's interface.
public struct LinkState: Equatable, Sendable, BitwiseCopyable {
  public var name: InterfaceName
  /// Bytes.
  public var mtu: UInt32
  /// Administratively up: `ip link set up`.
  public var isUp: Bool
}

/// Gives an interface its addresses and brings it up, for systems that have no ip(8). Needs
/// CAP_NET_ADMIN.
public enum LinkSetup {
  /// Adds an address, and with it the route to its network. One that the interface has already is
  /// left as it is.
  ///
  /// Throws ENODEV where there is no interface of this index, EPERM, and for IPv6 on a host without
  /// it EOPNOTSUPP or EACCES.
  ///
  /// - Parameters:
  ///   - index: as `TunDevice.interfaceIndex`.
  ///   - namespace: descriptor of the network namespace that the interface is in; -1 for this
  ///     thread's.
  package static func add(
    _ address: ConfigAddress, to index: UInt32, in namespace: Int32 = -1
  ) throws(SystemError) {
    let result = clinux_link_add_address(
      namespace, index, Int32(address.address.family.rawValue), address.address.high,
      address.address.low,
      address.length)
    if result == -SystemError.EEXIST.code { return }
    try checked(result)
  }

  /// Brings the interface up, with this MTU where one is given; EINVAL outside 68-65535.
  public static func start(
    _ index: UInt32, mtu: UInt16? = nil, in namespace: Int32 = -1
  ) throws(SystemError) {
    // 0 would be taken for none.
    if mtu == 0 { throw .EINVAL }
    try checked(clinux_link_start(namespace, index, UInt32(mtu ?? 0)))
  }
}

/// Interface names in endpoints (`fe80::1%eth0`), resolved in the namespace that the sockets are
/// in.
enum InterfaceIndex {
  /// The index of the interface with this name; nil where there is none.
  static func find(_ bytes: UnsafeRawBufferPointer) -> UInt32? {
    guard let name = InterfaceName(bytes) else { return nil }
    let control = FileDescriptor(taking: clinux_link_open(-1))
    guard control.isOpen else { return nil }
    var index: UInt32 = 0
    let result = name.withCString { clinux_link_index(control.raw, $0, &index) }
    return result < 0 ? nil : index
  }
}
