import CLinux
import Culvert

/// How large the packets of each hop may be. Where nobody has said it, it follows from the hop
/// around: a packet of one tunnel has to fit, sealed, into a packet of the next, down to what the
/// network carries on the way to the outermost peer.
extension Hops {
  /// Outer IPv4 or IPv6 header, UDP header, transport header and tag (whitepaper 5.4.6).
  static func overhead(_ family: IPAddress.Family) -> Int {
    (family == .ipv4 ? 20 : 40) + 8 + WireGuard.overheadByteCount
  }

  /// Below this a tunnel is of no use, however little the way around it carries.
  private static let least = 576

  /// Sets the MTU of each hop anew. Where nothing has changed, nothing is touched.
  func followMTU(at now: Instant) {
    guard isNested || isForwarding else { return }
    var mtu = outermost.pointee.fixedMTU ?? outermostMTU()
    var hop = count - 1
    while hop > 0 {
      // Datagrams over IPv6 need a tunnel that takes 1280; the hop around it cuts what is more.
      if (channels + (hop - 1)).pointee.ipv6 != nil { mtu = max(mtu, Policy.ipv6MinimumMTU) }
      self[hop].pointee.tunnel.setMTU(min(mtu, self[hop].pointee.tunnel.limits.maximumMTU))
      if (channels + (hop - 1)).pointee.mtu != mtu { (channels + (hop - 1)).pointee.setMTU(mtu) }
      hop -= 1
      mtu = self[hop].pointee.fixedMTU ?? room(of: hop, within: mtu)
    }
    if let forwarding { return setMTU(mtu, of: forwarding) }
    innermost.pointee.assignMTU(mtu, at: now)
  }

  /// What fits into packets of `outer` bytes.
  ///
  /// A multiple of 16: the other end pads to that, and does not know how far it may (whitepaper
  /// section 5.4.6). Where the interface has IPv6 addresses it keeps what IPv6 needs, and large
  /// packets go in fragments.
  private func room(of hop: Int, within outer: Int) -> Int {
    let fitting = (outer - Hops.overhead(family(of: hop))) & ~(WireGuard.paddingByteCount - 1)
    let isIPv6 = hop == 0 && innermost.pointee.hasIPv6
    return max(fitting, isIPv6 ? Policy.ipv6MinimumMTU : Hops.least)
  }

  /// What the network carries, less the headers; never more than what WireGuard uses by custom.
  private func outermostMTU() -> Int {
    var mtu = Policy.defaultMTU
    let tun = innermost
    let ownIndex = tun.pointee.tun.isOpen ? (try? tun.pointee.tun.interfaceIndex()) ?? 0 : 0
    var next = outermost.pointee.tunnel.firstPeer
    while let id = next {
      if let endpoint = outermost.pointee.tunnel.status(of: id)?.endpoint,
        let route = RouteMTU.find(
          to: endpoint.address, scope: endpoint.scope, mark: outermost.pointee.sockets.mark,
          skippedIndex: ownIndex)
      {
        let room = route - Hops.overhead(endpoint.address.family)
        if room < mtu { mtu = room & ~(WireGuard.paddingByteCount - 1) }
      }
      next = outermost.pointee.tunnel.peer(after: id)
    }
    return max(Hops.least, mtu)
  }

  /// The family whose headers the hop's datagrams may have: IPv4 only where all peers have
  /// endpoints of it.
  private func family(of hop: Int) -> IPAddress.Family {
    var next = self[hop].pointee.tunnel.firstPeer
    if next == nil { return .ipv6 }
    while let id = next {
      let endpoint = self[hop].pointee.tunnel.status(of: id)?.endpoint
      if endpoint?.address.family != .ipv4 { return .ipv6 }
      next = self[hop].pointee.tunnel.peer(after: id)
    }
    return .ipv4
  }

  /// How often an endpoint has changed, of whatever hop.
  var endpointChanges: UInt64 {
    var sum: UInt64 = 0
    for hop in 0..<count { sum &+= self[hop].pointee.tunnel.endpointChanges }
    return sum
  }
}

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
