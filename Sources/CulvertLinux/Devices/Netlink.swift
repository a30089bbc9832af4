import CLinux
import Culvert

/// Reports changes of one interface, from route netlink.
struct Netlink: ~Copyable {
  private let descriptor: FileDescriptor

  enum Event: Equatable, Sendable, BitwiseCopyable {
    /// There are no more events.
    case drained
    /// An event about other interfaces.
    case unrelated
    case linkChanged(LinkState)
    /// Deleted, or moved to another namespace; `TunDevice.isAttached` distinguishes these.
    case linkDeleted
    /// Events were lost. Call `TunDevice.state()` to get the current state.
    case overflow
    /// The socket no longer works; the errno.
    case failed(SystemError)
  }

  private init(descriptor: consuming FileDescriptor) {
    self.descriptor = descriptor
  }

  /// Listens in this thread's network namespace.
  static func open() throws(SystemError) -> Netlink {
    Netlink(descriptor: FileDescriptor(taking: try checked(clinux_netlink_open(-1))))
  }

  /// Listens in the network namespace of a descriptor. Needs CAP_SYS_ADMIN.
  static func open(
    in namespace: borrowing FileDescriptor
  ) throws(SystemError) -> Netlink {
    let raw = clinux_netlink_open(namespace.raw)
    return Netlink(descriptor: FileDescriptor(taking: try checked(raw)))
  }

  /// For epoll.
  @inline(__always)
  var raw: Int32 { descriptor.raw }

  /// The next event about the interface with this index. Call this until it returns `drained`.
  func next(about index: UInt32) -> Event {
    var link = clinux_link()
    let result = clinux_netlink_next(descriptor.raw, index, &link)
    if result == 0 { return .drained }
    if result == -SystemError.ENOBUFS.code { return .overflow }
    if result < 0 { return .failed(SystemError(code: -result)) }
    if link.event == UInt32(CLINUX_LINK_DELETED) { return .linkDeleted }
    if link.event != UInt32(CLINUX_LINK_CHANGED) { return .unrelated }
    let name = withUnsafeBytes(of: &link.name) { InterfaceName(trusting: $0) }
    return .linkChanged(LinkState(name: name, mtu: link.mtu, isUp: link.is_up != 0))
  }
}

/// The properties of the tunnel's interface that the rest of the program follows.
struct LinkState: Equatable, Sendable, BitwiseCopyable {
  var name: InterfaceName
  /// Bytes.
  var mtu: UInt32
  /// Administratively up: `ip link set up`.
  var isUp: Bool
}

/// Gives an interface its addresses and brings it up, for systems without ip(8). Needs
/// CAP_NET_ADMIN.
enum LinkSetup {
  /// Adds an address, and thus the route to its network. Does nothing if the interface already has
  /// the address.
  ///
  /// Throws ENODEV if no interface has this index, EPERM, and EOPNOTSUPP or EACCES for an IPv6
  /// address on a host without IPv6.
  ///
  /// - Parameters:
  ///   - index: as `TunDevice.interfaceIndex`.
  ///   - namespace: a descriptor of the interface's network namespace; -1 means this thread's own.
  static func add(
    _ address: ConfigAddress, to index: UInt32, in namespace: Int32 = -1
  ) throws(SystemError) {
    let result = clinux_link_add_address(
      namespace, index, Int32(address.address.family.rawValue), address.address.high,
      address.address.low,
      address.length)
    if result == -SystemError.EEXIST.code { return }
    try checked(result)
  }

  /// Whether the error of `add` for an IPv6 address shows that this host, or this interface, has no
  /// IPv6: EACCES after disable_ipv6, the others without the protocol.
  static func meansIPv6IsOff(_ error: SystemError) -> Bool {
    error == .EACCES || error == .EOPNOTSUPP || error == .EAFNOSUPPORT
  }

  /// Brings the interface up, and sets its MTU if one is given; EINVAL outside 68-65535.
  static func start(
    _ index: UInt32, mtu: UInt16? = nil, in namespace: Int32 = -1
  ) throws(SystemError) {
    // CLinux leaves the MTU alone if it is 0.
    if mtu == 0 { throw .EINVAL }
    try checked(clinux_link_start(namespace, index, UInt32(mtu ?? 0)))
  }
}
