import CLinux
import Culvert

/// The endpoint chosen of several: the first that there is a route to, or else the first.
struct ResolverChoice {
  private var routed: Endpoint?
  private var first: Endpoint?

  /// An endpoint with a route was offered: no other can be better.
  var isSettled: Bool { routed != nil }
  var endpoint: Endpoint? { routed ?? first }

  /// Addresses that nobody can be reached at are left out: filtering name servers give them for
  /// what they block.
  mutating func offer(_ endpoint: Endpoint) {
    var endpoint = endpoint
    // The IPv6 socket is IPv6-only and could not send to a mapped address.
    endpoint.address = endpoint.address.unmapped
    guard !isSettled, !endpoint.address.isUnspecified, !endpoint.address.isMulticast else {
      return
    }
    if first == nil { first = endpoint }
    if ResolverChoice.hasRoute(to: endpoint) { routed = endpoint }
  }

  /// Whether the kernel knows a way; nothing is sent.
  static func hasRoute(to endpoint: Endpoint) -> Bool {
    var target = clinux_datagram(to: endpoint)
    return FileDescriptor(taking: clinux_resolve_open(&target)).isOpen
  }
}

extension clinux_datagram {
  /// Only the target; for `clinux_resolve_open`.
  init(to endpoint: Endpoint) {
    self.init()
    address_high = endpoint.address.high
    address_low = endpoint.address.low
    scope = endpoint.scope
    port = endpoint.port
    family = endpoint.address.family.rawValue
  }
}
