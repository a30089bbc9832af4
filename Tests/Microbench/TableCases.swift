private let prefixCount = 1000
/// Addresses looked up in turn, and jumps of a replay window; a power of two.
private let variety = 1024

private final class RoutingWorld {
  var table: AllowedIPs
  let addresses: UnsafeMutableBufferPointer<IPAddress>

  /// A table of prefixes of one family, as long as those of sites are, and addresses within them.
  init(_ family: IPAddress.Family) {
    var memory = arena(byteCount: 1 << 20)
    let limits = Limits(
      peers: prefixCount, allowedIPs: prefixCount, stagedPacketsPerPeer: 2, stagingSlots: 4,
      handshakeRing: 8, rateLimiterEntries: 8, batchPackets: 4, batchByteCount: 160 * 1024,
      maximumMTU: 65_475)
    table = AllowedIPs(carvingFrom: &memory, limits: limits)
    table.prepare()
    addresses = .allocate(capacity: variety)
    var random = Entropy.seeded(7)
    var prefixes: [IPPrefix] = []
    for peer in 0..<prefixCount {
      let length =
        family == .ipv4 ? 16 + Int(random.uint32() % 17) : 48 + Int(random.uint32() % 5) * 16
      let prefix = IPPrefix(RoutingWorld.address(family, &random), length: length)!
      precondition(table.insert(prefix, peer: UInt32(peer)))
      prefixes.append(prefix)
    }
    for index in 0..<variety {
      addresses.initializeElement(at: index, to: prefixes[index % prefixCount].address)
    }
  }

  /// 10.0.0.0/8 or 2001:db8::/32.
  private static func address(
    _ family: IPAddress.Family, _ random: inout Entropy
  ) -> IPAddress {
    family == .ipv4
      ? IPAddress(ipv4: 0x0a00_0000 | random.uint32() >> 8)
      : IPAddress(ipv6High: 0x2001_0db8 << 32 | random.uint64() >> 32, low: random.uint64())
  }
}

private func routing(_ family: IPAddress.Family) -> (Int) -> Void {
  let world = RoutingWorld(family)
  return { count in
    for index in 0..<count {
      keep(UInt64(world.table.route(world.addresses[index & (variety - 1)])!))
    }
  }
}

private final class WindowWorld {
  var window: ReplayWindow
  /// How far behind the newest each counter comes.
  let delays: UnsafeMutableBufferPointer<UInt64>
  var next: UInt64 = 4096

  init(isOrdered: Bool) {
    let words = bytes(ReplayWindow.wordCount * 8).assumingMemoryBound(to: UInt64.self)
    window = ReplayWindow(bits: words)
    delays = .allocate(capacity: variety)
    var random = Entropy.seeded(9)
    for index in 0..<variety {
      delays.initializeElement(at: index, to: isOrdered ? 0 : random.uint64() % 2048)
    }
  }
}

private func replay(isOrdered: Bool) -> (Int) -> Void {
  let world = WindowWorld(isOrdered: isOrdered)
  return { count in
    var accepted: UInt64 = 0
    for index in 0..<count {
      world.next &+= 1
      let counter = world.next &- world.delays[index & (variety - 1)]
      if world.window.accept(counter) { accepted &+= 1 }
    }
    keep(accepted)
  }
}

var tableCases: [MicroCase] {
  [
    MicroCase(name: "route-v4-1000", count: 2048) { routing(.ipv4) },
    MicroCase(name: "route-v6-1000", count: 2048) { routing(.ipv6) },
    MicroCase(name: "replay-ordered", count: 2048) { replay(isOrdered: true) },
    MicroCase(name: "replay-random", count: 2048) { replay(isOrdered: false) },
  ]
}
