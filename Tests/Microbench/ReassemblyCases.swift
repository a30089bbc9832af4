/// Datagrams cut into fragments of 1480 bytes of data, in the order in which they come.
private struct FragmentWorld {
  /// Behind a pointer, as the product has it behind its tunnel: no check of access costs anything.
  private let reassembler: UnsafeMutablePointer<Reassembler>
  private let fragments: UnsafeMutableBufferPointer<UnsafeMutableRawBufferPointer>
  private let now = Instant(nanoseconds: 1_000_000)

  static let mtu = 1500

  /// - Parameter together: datagrams whose fragments come in turn.
  /// - Parameter byteCount: of each datagram's payload.
  /// - Parameter dead: datagrams that take slots and are never whole.
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

  /// Every fragment once.
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

/// An operation is a datagram.
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
    // A ring with one slot to spare.
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
