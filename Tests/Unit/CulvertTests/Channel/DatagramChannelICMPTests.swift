import Testing

@testable import Culvert

private let families: [IPAddress.Family] = [.ipv4, .ipv6]

/// ICMP errors about datagrams that the channel has sent, and about others.
@Suite struct DatagramChannelICMPTests {
  private let near = ChannelEnd(host: 1)
  private let far = ChannelEnd(host: 2)
  private let router = ChannelEnd(host: 3)

  /// An error from a router, which quotes as much as it may.
  private func error(
    _ type: UInt8, _ code: UInt8, mtu: Int = 0, about packet: [UInt8],
    _ family: IPAddress.Family
  ) -> [UInt8] {
    ChannelPacket.icmp(
      type, code, word: mtu, quoting: Array(packet.prefix(family == .ipv4 ? 548 : 1232)),
      from: router.address(family), to: near.address(family)
    ).bytes
  }

  private func tooBig(
    _ mtu: Int, about packet: [UInt8], _ family: IPAddress.Family
  ) -> [UInt8] {
    family == .ipv4
      ? error(3, 4, mtu: mtu, about: packet, family) : error(2, 0, mtu: mtu, about: packet, family)
  }

  private func unreachable(about packet: [UInt8], _ family: IPAddress.Family) -> [UInt8] {
    family == .ipv4 ? error(3, 3, about: packet, family) : error(1, 4, about: packet, family)
  }

  /// The packets of a datagram to `far`.
  private func sent(
    _ byteCount: Int, _ family: IPAddress.Family, port: UInt16 = 53
  ) -> [[UInt8]] {
    near.packets(
      of: [UInt8](repeating: 7, count: byteCount), to: far.endpoint(family, port: port))
  }

  private func sizes(_ byteCount: Int, _ family: IPAddress.Family) -> [Int] {
    sent(byteCount, family).map(\.count)
  }

  // MARK: Unreachable

  @Test(arguments: families) func whoIsUnreachableIsNamed(family: IPAddress.Family) {
    let packet = sent(100, family)[0]
    let codes: [(UInt8, UInt8)] =
      family == .ipv4
      ? [0, 1, 2, 3, 9, 10, 11, 12, 13].map { (3, $0) } : (0...6).map { (1, $0) }
    for (type, code) in codes {
      #expect(
        near.receive(error(type, code, about: packet, family))
          == .unreachable(far.endpoint(family, port: 53), port: ChannelEnd.port))
    }
    #expect(near.count(.unreachable) == UInt64(codes.count))
    #expect(near.total == UInt64(codes.count) + 1)
    // The port is the datagram's source port.
    near.channel.open(firstPort: 1000, count: 10)
    let other = near.packets(of: [1], from: 1007, to: far.endpoint(family, port: 9))[0]
    #expect(
      near.receive(unreachable(about: other, family))
        == .unreachable(far.endpoint(family, port: 9), port: 1007))
  }

  /// The destination host may send an error as well as a router, and it may be about the first of
  /// several fragments.
  @Test(arguments: families) func errorsAboutFragments(family: IPAddress.Family) {
    let packets = sent(5000, family)
    #expect(packets.count == 4)
    for (index, packet) in packets.enumerated() {
      let arrived = near.receive(unreachable(about: packet, family))
      #expect(
        arrived
          == (index == 0
            ? .unreachable(far.endpoint(family, port: 53), port: ChannelEnd.port) : .nothing))
    }
    #expect(near.count(.notOurs) == 3)
  }

  /// An error that is itself fragmented.
  @Test(arguments: families) func errorsInFragments(family: IPAddress.Family) {
    let packet = sent(1000, family)[0]
    var model = ChannelPacket.icmp(
      family == .ipv4 ? 3 : 1, 3, quoting: packet, from: router.address(family),
      to: near.address(family))
    model.identification = 77
    #expect(
      near.receiveAll(model.fragments(400))
        == [.unreachable(far.endpoint(family, port: 53), port: ChannelEnd.port)])
    expect(near.channel.lentCount == 0)
  }

  // MARK: Too big

  /// A sender that learns path MTUs: IPv6 always does, IPv4 if routers may not fragment.
  private func discoverPaths(_ family: IPAddress.Family) {
    near.channel.forbidsFragmentation = family == .ipv4
  }

  /// Whether packets of up to `mtu` bytes are sent whole, and larger ones are not.
  private func carries(
    _ mtu: Int, _ family: IPAddress.Family, to endpoint: Endpoint? = nil
  ) -> Bool {
    let endpoint = endpoint ?? far.endpoint(family, port: 53)
    let payload = [UInt8](repeating: 7, count: mtu - (family == .ipv4 ? 28 : 48))
    guard near.packets(of: payload, to: endpoint).map(\.count) == [mtu] else { return false }
    if family == .ipv4 { return near.refusal(of: payload + [7], to: endpoint) == .tooLarge }
    let cut = near.packets(of: payload + [7], to: endpoint).map(\.count)
    return cut.count == 2 && cut.allSatisfy { $0 <= mtu }
  }

  @Test(arguments: families) func thePathMTUIsLowered(family: IPAddress.Family) {
    discoverPaths(family)
    let packet = sent(1300, family)[0]
    #expect(carries(1420, family))
    #expect(near.receive(tooBig(1300, about: packet, family)) == .nothing)
    #expect(near.count(.tooLargeForPath) == 1)
    #expect(carries(1300, family))
    // For this destination alone, whatever its port.
    #expect(carries(1300, family, to: far.endpoint(family, port: 9)))
    #expect(carries(1420, family, to: router.endpoint(family)))
    // The path MTU is never larger than the tunnel's own MTU.
    near.channel.setMTU(1290)
    _ = near.receive(tooBig(1300, about: packet, family))
    #expect(carries(1290, family))
  }

  /// A reported MTU below the minimum of every path is raised to that minimum for IPv4, and ignored
  /// for IPv6 (RFC 8201 section 4).
  @Test(arguments: families, [0, 1, 68, 575, 577, 1279])
  func neverBelowWhatEveryPathCarries(family: IPAddress.Family, mtu: Int) {
    discoverPaths(family)
    _ = near.receive(tooBig(mtu, about: sent(1300, family)[0], family))
    #expect(carries(family == .ipv4 ? max(576, mtu) : 1420, family))
  }

  @Test(arguments: families) func itComesBackAfterTenMinutes(family: IPAddress.Family) {
    discoverPaths(family)
    _ = near.receive(tooBig(1280, about: sent(1300, family)[0], family))
    near.now = near.now.advanced(by: 600 * nanosecondsPerSecond - 1)
    #expect(carries(1280, family))
    near.now = near.now.advanced(by: 1)
    #expect(carries(1420, family))
  }

  /// The table has eight entries: the ninth replaces the oldest.
  @Test(arguments: families) func theTableIsSmall(family: IPAddress.Family) {
    discoverPaths(family)
    let hosts = (10..<19).map {
      Endpoint(
        address: family == .ipv4 ? ipv4(10, 8, 0, $0) : ipv6(0xfd08 << 48, UInt64($0)), port: 53)
    }
    let payload = [UInt8](repeating: 7, count: 1300)
    for host in hosts {
      _ = near.receive(tooBig(1290, about: near.packets(of: payload, to: host)[0], family))
      near.now = near.now.advanced(by: nanosecondsPerSecond)
    }
    #expect(carries(1420, family, to: hosts[0]))
    for host in hosts.dropFirst() { #expect(carries(1290, family, to: host)) }
  }

  /// When the tunnel's MTU changes, learned MTUs are forgotten.
  @Test(arguments: families) func aNewMTUBeginsAnew(family: IPAddress.Family) {
    discoverPaths(family)
    _ = near.receive(tooBig(1285, about: sent(1300, family)[0], family))
    #expect(carries(1285, family))
    near.channel.setMTU(1400)
    #expect(carries(1400, family))
  }

  /// If routers may fragment, their errors about packets that are too big are ignored.
  @Test func withoutDFNoIPv4RouterIsBelieved() {
    let packet = sent(1300, .ipv4)[0]
    #expect(near.receive(tooBig(600, about: packet, .ipv4)) == .nothing)
    #expect(near.count(.notOurs) == 1 && near.count(.tooLargeForPath) == 0)
    #expect(sizes(1392, .ipv4) == [1420])
    near.channel.forbidsFragmentation = true
    #expect(carries(1420, .ipv4))
    #expect(near.receive(tooBig(600, about: packet, .ipv4)) == .nothing)
    #expect(carries(600, .ipv4))
    // Learned MTUs still hold when fragmentation is allowed again.
    near.channel.forbidsFragmentation = false
    #expect(sizes(1392, .ipv4).count == 3)
  }

  // MARK: Forged errors

  /// Without having seen one of our datagrams, an attacker has to guess its ports and addresses
  /// (RFC 5927).
  @Test(arguments: families) func errorsAboutOthersDatagramsAreIgnored(family: IPAddress.Family) {
    discoverPaths(family)
    var model = ChannelPacket(source: near.address(family), destination: far.address(family))
    model.sourcePort = ChannelEnd.port
    model.destinationPort = 53
    model.payload = [UInt8](repeating: 1, count: 100)
    var forged: [ChannelPacket] = []
    for port: UInt16 in [0, 1, ChannelEnd.port - 1, ChannelEnd.port + 1, 53, 0xffff] {
      var other = model
      other.sourcePort = port
      forged.append(other)
    }
    var other = model
    other.source = far.address(family)
    forged.append(other)
    other.destination = near.address(family)
    forged.append(other)
    other = model
    other.other = (6, model.transport)
    forged.append(other)
    for model in forged {
      let before = near.count(.notOurs)
      #expect(near.receive(tooBig(1280, about: model.bytes, family)) == .nothing)
      #expect(near.receive(unreachable(about: model.bytes, family)) == .nothing)
      #expect(near.count(.notOurs) == before + 2)
    }
    #expect(sizes(1300, family).count == 1)
    #expect(near.count(.tooLargeForPath) == 0 && near.count(.unreachable) == 0)
    // The unmodified packet is accepted as one of ours.
    #expect(near.receive(unreachable(about: model.bytes, family)) != .nothing)
  }

  /// Only the channel's own family and address count: an IPv4 error cannot quote IPv6.
  @Test func quotationsOfTheOtherFamilyAreIgnored() {
    let (ipv4, ipv6) = (sent(100, .ipv4)[0], sent(100, .ipv6)[0])
    #expect(near.receive(unreachable(about: ipv6, .ipv4)) == .nothing)
    #expect(near.receive(unreachable(about: ipv4, .ipv6)) == .nothing)
    #expect(near.count(.notOurs) == 2)
  }

  /// Other types are ignored.
  @Test(arguments: families) func otherMessagesAreIgnored(family: IPAddress.Family) {
    discoverPaths(family)
    let packet = sent(1300, family)[0]
    let types: [(UInt8, UInt8)] =
      family == .ipv4
      ? [
        (0, 0), (8, 0), (3, 5), (3, 6), (3, 8), (3, 14), (3, 15), (4, 0), (5, 0), (11, 0), (12, 0),
      ]
      : [(0, 0), (3, 0), (3, 1), (4, 0), (128, 0), (129, 0), (135, 0), (136, 0), (137, 0)]
    for (type, code) in types {
      #expect(near.receive(error(type, code, mtu: 600, about: packet, family)) == .nothing)
    }
    #expect(near.count(.notOurs) == UInt64(types.count))
    #expect(sizes(1300, family).count == 1)
  }

  @Test(arguments: families) func brokenOnesAreDropped(family: IPAddress.Family) {
    discoverPaths(family)
    let good = tooBig(1280, about: sent(1300, family)[0], family)
    let start = family == .ipv4 ? 20 : 40
    for offset in start..<good.count {
      var wrong = good
      wrong[offset] ^= 0x40
      #expect(near.receive(wrong) == .nothing)
    }
    #expect(near.count(.badChecksum) == UInt64(good.count - start))
    #expect(sizes(1300, family).count == 1)
  }

  /// A closed channel ignores all errors.
  @Test func closedChannelsListenToNothing() {
    let packet = sent(1300, .ipv4)[0]
    near.channel.close()
    #expect(near.receive(unreachable(about: packet, .ipv4)) == .nothing)
    near.channel.open(firstPort: 9)
    #expect(near.receive(unreachable(about: packet, .ipv4)) == .nothing)
    near.channel.open(firstPort: ChannelEnd.port)
    #expect(near.receive(unreachable(about: packet, .ipv4)) != .nothing)
  }
}
