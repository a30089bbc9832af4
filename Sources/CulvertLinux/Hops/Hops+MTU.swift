import CLinux
import Culvert

/// The MTU of each hop. Unless the user has set it, it is derived from the next outer hop: a sealed
/// packet of one tunnel must fit into a packet of the next. The outermost hop's MTU is derived from
/// the routes to its peers.
extension Hops {
  /// Outer IPv4 or IPv6 header, UDP header, transport header and tag (whitepaper 5.4.6).
  static func overhead(_ family: IPAddress.Family) -> Int {
    (family == .ipv4 ? 20 : 40) + 8 + WireGuard.overheadByteCount
  }

  /// No derived MTU is below this, even if the path carries less: the tunnel would be useless.
  private static let least = 576

  /// Whether MTUs are derived from the path; a single tunnel with an interface keeps its own.
  var derivesMTU: Bool { isNested || isForwarding }

  /// Derives the MTU of each hop and applies those that have changed.
  func updateMTU(at now: Instant) {
    guard derivesMTU else { return }
    var mtu = outermost.fixedMTU ?? outermostMTU()
    var hop = count - 1
    while hop > 0 {
      // IPv6 needs an MTU of 1280. Sealed packets that then exceed the MTU further out are
      // fragmented there.
      if channels[hop - 1].ipv6 != nil { mtu = max(mtu, Policy.ipv6MinimumMTU) }
      self[hop].tunnel.setMTU(min(mtu, self[hop].tunnel.limits.maximumMTU))
      if channels[hop - 1].mtu != mtu { channels[hop - 1].setMTU(mtu) }
      hop -= 1
      mtu = self[hop].fixedMTU ?? room(of: hop, within: mtu)
    }
    if let forwarding { return setMTU(of: forwarding, mtu) }
    innermost.assignMTU(mtu, at: now)
  }

  /// Sets the largest packet of the innermost tunnel, which carries clients' datagrams.
  private func setMTU(of forwarding: Forwarding, _ mtu: Int) {
    let mtu = min(mtu, innermost.tunnel.limits.maximumMTU)
    innermost.tunnel.setMTU(mtu)
    // An unchanged MTU keeps what was learned about paths.
    if forwarding.channel.mtu != mtu { forwarding.channel.setMTU(mtu) }
  }

  /// The largest packet that fits, sealed, into a packet of `outer` bytes.
  ///
  /// It is a multiple of 16, because the other end pads to that without knowing our limit
  /// (whitepaper section 5.4.6). An interface with IPv6 addresses keeps at least the minimum MTU of
  /// IPv6; sealed packets that are then too large are fragmented.
  private func room(of hop: Int, within outer: Int) -> Int {
    let fitting = (outer - Hops.overhead(family(of: hop))) & ~(WireGuard.paddingByteCount - 1)
    let isIPv6 = hop == 0 && innermost.hasIPv6
    return max(fitting, isIPv6 ? Policy.ipv6MinimumMTU : Hops.least)
  }

  /// The smallest MTU of the routes to the outermost hop's peers, minus the headers; at most
  /// WireGuard's default.
  private func outermostMTU() -> Int {
    var mtu = Policy.defaultMTU
    let ownIndex = innermost.tun.isOpen ? (try? innermost.tun.interfaceIndex()) ?? 0 : 0
    var next = outermost.tunnel.firstPeer
    while let id = next {
      if let endpoint = outermost.tunnel.status(of: id)?.endpoint,
        let route = RouteMTU.find(
          to: endpoint.address, scope: endpoint.scope, mark: outermost.sockets.mark,
          skippedIndex: ownIndex)
      {
        let room = route - Hops.overhead(endpoint.address.family)
        if room < mtu { mtu = room & ~(WireGuard.paddingByteCount - 1) }
      }
      next = outermost.tunnel.peer(after: id)
    }
    return max(Hops.least, mtu)
  }

  /// The family with the largest headers among the hop's endpoints: IPv4 only if all peers have
  /// IPv4 endpoints.
  private func family(of hop: Int) -> IPAddress.Family {
    var next = self[hop].tunnel.firstPeer
    if next == nil { return .ipv6 }
    while let id = next {
      let endpoint = self[hop].tunnel.status(of: id)?.endpoint
      if endpoint?.address.family != .ipv4 { return .ipv6 }
      next = self[hop].tunnel.peer(after: id)
    }
    return .ipv4
  }

  /// Endpoint changes of all hops.
  var endpointChanges: UInt64 {
    var sum: UInt64 = 0
    for hop in 0..<count { sum &+= self[hop].tunnel.endpointChanges }
    return sum
  }
}

/// Decides when the MTUs are derived again: after a change, but at most once per second, so that
/// somebody who makes a peer roam or an interface change cannot keep the process busy.
struct MTUUpdates: BitwiseCopyable {
  private var seenEndpointChanges: UInt64 = 0
  private var hasLinkChanged = false
  private var last = Instant(nanoseconds: 0)

  private static let interval = nanosecondsPerSecond

  /// Some interface has changed, perhaps the one through which the outermost datagrams leave.
  mutating func noticeLinkChange() { hasLinkChanged = true }

  /// Whether anything has changed. A new endpoint may have another family or another route.
  func isPending(_ hops: Hops) -> Bool {
    hops.derivesMTU && (hasLinkChanged || hops.endpointChanges != seenEndpointChanges)
  }

  func deadline(_ hops: Hops) -> Deadline {
    isPending(hops) ? .after(MTUUpdates.interval, from: last) : .never
  }

  mutating func run(_ hops: Hops, at now: Instant) {
    seenEndpointChanges = hops.endpointChanges
    hasLinkChanged = false
    last = now
    hops.updateMTU(at: now)
  }
}

/// The MTU of the route to an address, or of its interface. Path MTUs learned from ICMP are
/// ignored, because ICMP errors can be forged.
package enum RouteMTU {
  /// Bytes; nil if there is no route. Nothing is sent.
  ///
  /// - Parameters:
  ///   - scope: interface of a link-local address.
  ///   - mark: the firewall mark of the datagrams; routes may depend on it.
  ///   - skippedIndex: our own interface; a route through it counts as none. 0 for no interface.
  package static func find(
    to address: IPAddress, scope: UInt32 = 0, mark: UInt32 = 0, skippedIndex: UInt32 = 0
  ) -> Int? {
    // fe80::/10 is on every link.
    if address.family == .ipv6, address.high >> 54 == 0x3fa, scope == 0 { return nil }
    // The port does not matter; 9 is the discard service.
    var target = clinux_datagram(to: Endpoint(address: address, port: 9, scope: scope))
    let mtu = clinux_link_route_mtu(&target, mark, skippedIndex)
    guard mtu > 0 else { return nil }
    return address.family == .ipv4 ? min(Int(mtu), 65_535) : Int(mtu)
  }
}
