private let prefixCount = 1000
/// Length of the lists of addresses to look up and of replay window delays; a power of two.
private let variety = 1024

private final class RoutingWorld {
  var table: AllowedIPs
  let addresses: UnsafeMutableBufferPointer<IPAddress>

  /// A table of prefixes of one family with typical lengths, and addresses within them.
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
  /// How far each counter is behind the newest.
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

// MARK: Fragments

/// Fragments of 1480 bytes of data, in order of arrival.
private struct FragmentWorld {
  /// Behind a pointer, as in the product, to avoid exclusivity checks.
  private let reassembler: UnsafeMutablePointer<Reassembler>
  private let fragments: UnsafeMutableBufferPointer<UnsafeMutableRawBufferPointer>
  private let now = Instant(nanoseconds: 1_000_000)

  static let mtu = 1500

  /// - Parameter together: number of datagrams whose fragments are interleaved.
  /// - Parameter byteCount: of each datagram's payload.
  /// - Parameter dead: number of datagrams that occupy slots and are never completed.
  init(together: Int, byteCount: Int, family: IPAddress.Family, isReversed: Bool, dead: Int) {
    var memory = arena(byteCount: 8 << 20)
    reassembler = .allocate(capacity: 1)
    reassembler.initialize(
      to: Reassembler(carvingFrom: &memory, maximumPacketByteCount: 65_575))
    reassembler.pointee.start(seed: 11)
    let datagrams = (0..<together).map { index in
      FragmentWorld.fragments(family, byteCount: byteCount, identification: UInt32(index))
    }
    let places = isReversed ? Array(datagrams[0].indices.reversed()) : Array(datagrams[0].indices)
    let ordered = places.flatMap { place in datagrams.map { $0[place] } }
    fragments = .allocate(capacity: ordered.count)
    _ = fragments.initialize(from: ordered)
    for index in 0..<dead {
      let part = FragmentWorld.fragments(
        family, byteCount: 2000, identification: UInt32(1000 + index))[0]
      _ = reassembler.pointee.add(part, from: 1, at: now)
    }
  }

  private static func fragments(
    _ family: IPAddress.Family, byteCount: Int, identification: UInt32
  ) -> [UnsafeMutableRawBufferPointer] {
    let packet = bytes(byteCount + IPv6Header.byteCount)
    let headerByteCount: Int
    if family == .ipv4 {
      headerByteCount = IPv4Header.minimumByteCount
      IPv4Header.write(
        at: packet, totalByteCount: headerByteCount + byteCount, protocol: IPProtocol.udp,
        source: IPAddress(ipv4: 0x0a00_0001), destination: IPAddress(ipv4: 0x0a00_0002))
    } else {
      headerByteCount = IPv6Header.byteCount
      IPv6Header.write(
        at: packet, payloadByteCount: byteCount, nextHeader: IPProtocol.udp,
        source: IPAddress(ipv6High: 1, low: 1), destination: IPAddress(ipv6High: 1, low: 2))
    }
    let fragmenter = Fragmenter(
      at: packet, byteCount: headerByteCount + byteCount, mtu: mtu, identification: identification)!
    return (0..<fragmenter.count).map { index in
      let fragment = UnsafeMutableRawBufferPointer(
        start: bytes(fragmenter.byteCount(index)), count: fragmenter.byteCount(index))
      fragmenter.write(index, to: fragment.baseAddress!)
      return fragment
    }
  }

  /// Adds every fragment once.
  @inline(__always)
  func run() {
    for fragment in fragments {
      if case .complete(let packet, let slot) = reassembler.pointee.add(fragment, from: 1, at: now)
      {
        keep(UInt64(packet.count))
        reassembler.pointee.release(slot)
      }
    }
  }
}

/// One operation is one datagram.
private func reassembling(
  together: Int = 1, byteCount: Int, family: IPAddress.Family = .ipv4, isReversed: Bool = false,
  dead: Int = 0
) -> () -> (Int) -> Void {
  return {
    let world = FragmentWorld(
      together: together, byteCount: byteCount, family: family, isReversed: isReversed, dead: dead)
    return { count in for _ in 0..<max(1, count / together) { world.run() } }
  }
}

var reassemblyCases: [MicroCase] {
  [
    MicroCase(name: "fragments-2", count: 256, prepare: reassembling(byteCount: 2000)),
    MicroCase(name: "fragments-3", count: 256, prepare: reassembling(byteCount: 4000)),
    MicroCase(name: "fragments-7", count: 256, prepare: reassembling(byteCount: 10_000)),
    MicroCase(
      name: "fragments-2-v6", count: 256, prepare: reassembling(byteCount: 2000, family: .ipv6)),
    // All slots but one are occupied.
    MicroCase(
      name: "fragments-2-full", count: 256, prepare: reassembling(byteCount: 2000, dead: 63)),
    MicroCase(
      name: "fragments-2-reversed", count: 256,
      prepare: reassembling(byteCount: 2000, isReversed: true)),
    MicroCase(
      name: "fragments-3-reversed", count: 256,
      prepare: reassembling(byteCount: 4000, isReversed: true)),
    MicroCase(
      name: "fragments-7-reversed", count: 256,
      prepare: reassembling(byteCount: 10_000, isReversed: true)),
    MicroCase(
      name: "fragments-7-of-4", count: 256, prepare: reassembling(together: 4, byteCount: 10_000)),
    MicroCase(
      name: "fragments-3-of-16", count: 256,
      prepare: reassembling(together: 16, byteCount: 4000)),
    MicroCase(
      name: "fragments-2-of-64", count: 256,
      prepare: reassembling(together: 64, byteCount: 2000)),
  ]
}
