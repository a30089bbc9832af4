import CLinux
import Culvert

/// How large packets on the way to an address may be, by the table of routes: the MTU of the route
/// or of its interface. What ICMP has said about the path is left out, as anybody can forge it.
public enum RouteMTU {
  /// Bytes; nil where there is no route. Nothing is sent.
  ///
  /// - Parameters:
  ///   - scope: interface of a link-local address.
  ///   - mark: the firewall mark of the datagrams; routes may depend on it.
  ///   - skippedIndex: an interface through which they cannot be meant to go, our own; 0 for none.
  public static func find(
    to address: IPAddress, scope: UInt32 = 0, mark: UInt32 = 0, skippedIndex: UInt32 = 0
  ) -> Int? {
    // fe80::/10 is on every link.
    if address.family == .ipv6, address.high >> 54 == 0x3fa, scope == 0 { return nil }
    // The port does not matter; 9 discards.
    var target = clinux_datagram(to: Endpoint(address: address, port: 9, scope: scope))
    let mtu = clinux_link_route_mtu(&target, mark, skippedIndex)
    guard mtu > 0 else { return nil }
    return address.family == .ipv4 ? min(Int(mtu), 65_535) : Int(mtu)
  }
}
