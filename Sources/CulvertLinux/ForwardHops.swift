import Culvert

/// Hops without a TUN: the innermost tunnel's packets are those of local clients.
extension Hops {
  var isForwarding: Bool { forwarding != nil }

  /// The addresses that clients' datagrams are sent from: the first of each family.
  func setAddresses(
    _ settings: ConfigFileSettings, of forwarding: Forwarding
  ) {
    for index in settings.addresses.indices.reversed() {
      let address = settings.addresses[index].address
      forwarding.channel.pointee.setAddress(address)
      if address.family == .ipv6 { innermost.pointee.hasIPv6 = true }
    }
  }

  /// Bytes of the largest packet of the innermost tunnel.
  func setMTU(_ mtu: Int, of forwarding: Forwarding) {
    let mtu = min(mtu, innermost.pointee.tunnel.limits.maximumMTU)
    innermost.pointee.tunnel.setMTU(mtu)
    // What was learned about paths is kept where nothing has changed.
    if forwarding.channel.pointee.mtu != mtu { forwarding.channel.pointee.setMTU(mtu) }
  }

  /// What became of flows, of their clients' datagrams, and of the packets and fragments of both.
  func writeForwardCounters() {
    guard let forwarding else { return }
    for value in 0..<FlowVerdict.count {
      guard let verdict = FlowVerdict(rawValue: value) else { continue }
      writeCounter(0, verdict.name, forwarding.counters[verdict])
    }
    writeCounters(of: forwarding.channel, 0, prefix: "forward-")
  }
}
