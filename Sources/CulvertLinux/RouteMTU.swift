import CLinux
import Culvert

/// How large packets on the way to an address may be, as far as this host knows: the MTU of the
/// route or of its interface, or less where a router has said so.
public enum RouteMTU {
  /// Bytes; nil where there is no route. Nothing is sent.
  ///
  /// - Parameter scope: interface of a link-local address.
  public static func find(to address: IPAddress, scope: UInt32 = 0) -> Int? {
    // The port does not matter; 9 discards.
    var target = clinux_datagram(to: Endpoint(address: address, port: 9, scope: scope))
    let mtu = clinux_resolve_mtu(&target)
    return mtu > 0 ? Int(mtu) : nil
  }
}
