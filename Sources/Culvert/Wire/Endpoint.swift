/// Where a peer is reached: a UDP address, and for link-local IPv6 the interface it is on.
public struct Endpoint: Hashable, Sendable, BitwiseCopyable {
  public var address: IPAddress
  public var port: UInt16
  /// Interface index of a link-local address, otherwise 0.
  public var scope: UInt32

  public init(address: IPAddress, port: UInt16, scope: UInt32 = 0) {
    self.address = address
    self.port = port
    self.scope = scope
  }
}

/// The two ends of a path: the peer's endpoint, and the local address and interface that it was
/// last heard on, so that a host with several addresses answers from the one that was asked
/// ("sticky source", as the kernel does).
public struct Path: Hashable, Sendable, BitwiseCopyable {
  public var endpoint: Endpoint
  /// Local address of the same family; unspecified leaves the choice to the routing table.
  public var source: IPAddress
  /// Interface that `source` was heard on; 0 where unknown.
  public var interface: UInt32

  public init(endpoint: Endpoint, source: IPAddress, interface: UInt32 = 0) {
    self.endpoint = endpoint
    self.source = source
    self.interface = interface
  }

  /// A path with no opinion on the local side.
  public init(to endpoint: Endpoint) {
    self.endpoint = endpoint
    source =
      endpoint.address.family == .ipv4
      ? IPAddress(ipv4: 0) : IPAddress(ipv6High: 0, low: 0)
    interface = 0
  }
}
