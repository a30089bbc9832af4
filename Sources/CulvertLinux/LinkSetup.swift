import CLinux
import Culvert

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
  public static func add(
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
