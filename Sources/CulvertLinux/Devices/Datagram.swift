import CLinux
import Culvert

/// Conversions between paths and the datagram metadata of CLinux.
extension clinux_datagram {
  /// The metadata for sending along a path.
  init(_ path: Path, trafficClass: UInt8 = 0) {
    self.init()
    address_high = path.endpoint.address.high
    address_low = path.endpoint.address.low
    source_high = path.source.high
    source_low = path.source.low
    scope = path.endpoint.scope
    interface = path.interface
    port = path.endpoint.port
    family = path.endpoint.address.family.rawValue
    traffic_class = trafficClass
  }

  /// The metadata for sending to an endpoint. The kernel chooses the source address and the
  /// interface.
  init(to endpoint: Endpoint) {
    self.init(Path(to: endpoint))
  }

  /// The path of a received datagram: its sender, and the local address and interface on which it
  /// arrived.
  var path: Path {
    Path(
      endpoint: Endpoint(address: address(address_high, address_low), port: port, scope: scope),
      source: address(source_high, source_low), interface: interface)
  }

  private func address(_ high: UInt64, _ low: UInt64) -> IPAddress {
    family == IPAddress.Family.ipv6.rawValue
      ? IPAddress(ipv6High: high, low: low)
      : IPAddress(ipv4: UInt32(truncatingIfNeeded: high >> 32))
  }
}
