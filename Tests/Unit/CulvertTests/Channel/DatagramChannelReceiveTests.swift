import Testing

@testable import Culvert

private let families: [IPAddress.Family] = [.ipv4, .ipv6]

/// Inbound: unfragmented packets that the tunnel has delivered, valid and invalid.
@Suite struct DatagramChannelReceiveTests {
  private let near = ChannelEnd(host: 1)
  private let far = ChannelEnd(host: 2)

  private func packet(_ family: IPAddress.Family, _ payload: [UInt8] = [1, 2, 3]) -> ChannelPacket {
    near.packet(payload, from: far, family)
  }

  /// The result for a valid packet of `packet(_:)`.
  private func arrived(
    _ family: IPAddress.Family, _ payload: [UInt8] = [1, 2, 3], trafficClass: UInt8 = 0
  ) -> ChannelEnd.Arrived {
    .datagram(
      payload, from: far.endpoint(family, port: 7000), port: ChannelEnd.port,
      trafficClass: trafficClass)
  }

  /// Checks that a packet is dropped, and counted once with this verdict.
  private func expectDrop(
    _ packet: [UInt8], _ verdict: DatagramVerdict,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let (before, total) = (near.count(verdict), near.total)
    #expect(near.receive(packet) == .nothing, sourceLocation: sourceLocation)
    #expect(near.count(verdict) == before + 1, sourceLocation: sourceLocation)
    #expect(near.total == total + 1, sourceLocation: sourceLocation)
  }

  // MARK: Valid packets

  @Test(arguments: families, [0, 1, 1372, 8000, 65_507])
  func payloadsOfAnySize(family: IPAddress.Family, byteCount: Int) {
    var random = SeededGenerator(seed: UInt64(byteCount))
    let payload = random.bytes(byteCount)
    var model = packet(family, payload)
    for trafficClass: UInt8 in [0, 3, 0xb8] {
      model.trafficClass = trafficClass
      #expect(
        near.receive(model.bytes) == arrived(family, payload, trafficClass: trafficClass))
    }
    #expect(near.count(.received) == 3 && near.total == 3)
    expect(near.channel.lentCount == 0)
  }

  /// The payload is in the packet; padding after the packet is ignored (R14).
  @Test(arguments: families) func nothingIsCopied(family: IPAddress.Family) throws {
    let model = packet(family)
    for padding in [0, 1, 15, 400] {
      let buffer = PacketBuffer(model.bytes + [UInt8](repeating: 0xff, count: padding))
      let received = near.channel.receive(
        UnsafeMutableRawBufferPointer(start: buffer.start, count: buffer.byteCount), from: 1,
        at: near.now)
      guard case .datagram(let payload, _, _, _) = received else {
        Issue.record("not received")
        return
      }
      #expect(payload.baseAddress == buffer.start + (model.bytes.count - 3))
      #expect([UInt8](payload) == [1, 2, 3])
    }
  }

  @Test func optionsOfIPv4() {
    for count in stride(from: 4, through: 40, by: 4) {
      var model = packet(.ipv4)
      model.ipv4Options = [UInt8](repeating: 1, count: count)
      #expect(near.receive(model.bytes) == arrived(.ipv4))
    }
  }

  @Test func extensionsOfIPv6() {
    var model = packet(.ipv6)
    model.extensions = [.options(8)]
    #expect(near.receive(model.bytes) == arrived(.ipv6))
    model.extensions = [.options(256), .options(24), .options(8)]
    #expect(near.receive(model.bytes) == arrived(.ipv6))
    // Hop-by-hop options come first; a routing header without remaining segments may follow.
    model.extensions = [.options(8), .options(16)]
    model.extensions[0].number = 0
    model.extensions[1].number = 43
    #expect(near.receive(model.bytes) == arrived(.ipv6))
    // More headers than any honest sender uses.
    model.extensions = Array(repeating: .options(8), count: 9)
    expectDrop(model.bytes, .fragment)
  }

  /// Several ports: each datagram reports its own.
  @Test(arguments: families) func portsOfARange(family: IPAddress.Family) {
    near.channel.open(firstPort: 100, count: 10)
    var model = packet(family)
    for port: UInt16 in [0, 1, 99, 100, 101, 109, 110, ChannelEnd.port, 0xffff] {
      model.destinationPort = port
      if (100..<110).contains(port) {
        #expect(
          near.receive(model.bytes)
            == .datagram(
              [1, 2, 3], from: far.endpoint(family, port: 7000), port: port, trafficClass: 0))
      } else {
        expectDrop(model.bytes, .notOurs)
      }
    }
    near.channel.open(firstPort: 1, count: 65_535)
    for port: UInt16 in [0, 1, 0xffff] {
      model.destinationPort = port
      #expect((near.receive(model.bytes) != .nothing) == (port > 0))
    }
  }

  /// A source port may be 0: no answer is wanted then (RFC 768).
  @Test(arguments: families, [0, 1, 0xffff] as [UInt16])
  func portsOfOthers(family: IPAddress.Family, port: UInt16) {
    var model = packet(family)
    model.sourcePort = port
    #expect(
      near.receive(model.bytes)
        == .datagram(
          [1, 2, 3], from: far.endpoint(family, port: port), port: ChannelEnd.port,
          trafficClass: 0))
  }

  // MARK: Not ours

  @Test(arguments: families) func toAnotherAddress(family: IPAddress.Family) {
    var model = packet(family)
    for bit in 0..<family.bitCount {
      let address = near.address(family)
      model.destination =
        family == .ipv4
        ? IPAddress(ipv4: address.ipv4Bits ^ 1 << bit)
        : ipv6(
          address.high ^ (bit < 64 ? 1 << bit : 0), address.low ^ (bit < 64 ? 0 : 1 << (bit - 64)))
      expectDrop(model.bytes, .notOurs)
    }
  }

  @Test func withoutAnAddressNothingIsOurs() {
    let arena = TestArena(byteCount: 1 << 20)
    var limits = Limits.channel
    limits.reassembledByteCount = 2048
    var channel = DatagramChannel(carvingFrom: &arena.arena, limits: limits)
    channel.start(seed: 1)
    channel.open(firstPort: ChannelEnd.port)
    channel.setAddress(near.ipv4)
    for (family, isOurs) in [(IPAddress.Family.ipv4, true), (.ipv6, false)] {
      let buffer = PacketBuffer(packet(family).bytes)
      let received = channel.receive(
        UnsafeMutableRawBufferPointer(start: buffer.start, count: buffer.byteCount), from: 1,
        at: near.now)
      var isReceived = false
      if case .datagram = received { isReceived = true }
      #expect(isReceived == isOurs)
    }
  }

  @Test(arguments: families) func ofAnotherProtocol(family: IPAddress.Family) {
    var model = packet(family)
    let udp = model.transport
    for number: UInt8 in 0...255 where number != 17 {
      // Numbers of IPv6 extension headers begin a chain of headers.
      if family == .ipv6, [0, 43, 44, 60].contains(number) { continue }
      model.other = (number, udp)
      // As ICMP it has a wrong checksum.
      let isICMP = number == (family == .ipv4 ? 1 : 58)
      expectDrop(model.bytes, isICMP ? .badChecksum : .notOurs)
    }
    model.other = (17, udp)
    #expect(near.receive(model.bytes) == arrived(family))
  }

  /// ICMP of the other family is not ICMP.
  @Test func familiesDoNotMix() {
    let quoted = near.packets(of: [1], to: far.endpoint(.ipv4))[0]
    var error = ChannelPacket.icmp(3, 3, quoting: quoted, from: far.ipv4, to: near.ipv4)
    #expect(near.receive(error.bytes) != .nothing)
    error.other?.number = 58
    expectDrop(error.bytes, .notOurs)
  }

  @Test(arguments: families) func closedChannelsReceiveNothing(family: IPAddress.Family) {
    let fragments = packet(family, [UInt8](repeating: 1, count: 100)).fragments(48)
    near.channel.close()
    for bytes in [packet(family).bytes] + fragments + [[], [0x45]] { expectDrop(bytes, .closed) }
    expect(near.channel.reassembler.incompleteCount == 0)
    near.channel.open(firstPort: ChannelEnd.port)
    #expect(near.receive(packet(family).bytes) == arrived(family))
    // Incomplete datagrams are discarded when the channel closes.
    _ = near.receive(fragments[0])
    expect(near.channel.reassembler.incompleteCount == 1)
    near.channel.close()
    expect(near.channel.reassembler.incompleteCount == 0)
    #expect(near.fragmentCount(.removed) == 1)
  }

  // MARK: Sources

  @Test func F8_aSourceIsOneHost() {
    let bad: [IPAddress] = [
      ipv4(0, 0, 0, 0), ipv4(0, 1, 2, 3), ipv4(127, 0, 0, 1), ipv4(224, 0, 0, 1),
      ipv4(239, 255, 255, 255), ipv4(240, 0, 0, 1), ipv4(255, 255, 255, 255), ipv6(0, 0),
      ipv6(0, 1), ipv6(0xff02 << 48, 1), ipv6(0xff0e << 48, 0x0101),
    ]
    for source in bad {
      var model = packet(source.family)
      model.source = source
      expectDrop(model.bytes, .badSource)
      // Fragments are dropped too, before they take a slot.
      model.payload = [UInt8](repeating: 1, count: 100)
      for fragment in model.fragments(48) { expectDrop(fragment, .badSource) }
    }
    expect(near.channel.reassembler.incompleteCount == 0)
    for source in [ipv4(1, 0, 0, 0), ipv4(223, 255, 255, 255), ipv6(0xfe80 << 48, 1)] {
      var model = packet(source.family)
      model.source = source
      #expect(near.receive(model.bytes) != .nothing)
    }
  }

  // MARK: Checksums

  /// Any single flipped bit.
  @Test(arguments: families) func F8_aWrongChecksumDropsTheDatagram(family: IPAddress.Family) {
    let bytes = packet(family, [1, 2, 3, 4, 5]).bytes
    let start = family == .ipv4 ? 20 : 40
    for bit in (start + 6) * 8..<bytes.count * 8 {
      var wrong = bytes
      wrong[bit / 8] ^= 1 << (bit % 8)
      expectDrop(wrong, .badChecksum)
    }
    // The checksum covers source port and source address too.
    for bit in start * 8..<(start + 2) * 8 {
      var wrong = bytes
      wrong[bit / 8] ^= 1 << (bit % 8)
      expectDrop(wrong, .badChecksum)
    }
    if family == .ipv6 {
      var wrong = bytes
      wrong[23] ^= 1
      expectDrop(wrong, .badChecksum)
    }
    #expect(near.count(.received) == 0)
  }

  /// A packet with a wrong header checksum is dropped, as RFC 1122 section 3.2.1.2 requires, since
  /// the UDP checksum may be missing.
  @Test func F8_aWrongHeaderChecksumDropsThePacket() {
    for options in [[], [1, 1, 1, 1, 1, 1, 1, 1]] as [[UInt8]] {
      var model = packet(.ipv4)
      model.ipv4Options = options
      model.checksumField = 0
      let bytes = model.bytes
      #expect(near.receive(bytes) == arrived(.ipv4))
      for offset in [1, 4, 5, 8, 10, 11, 13, 15] + (20..<20 + options.count) {
        var wrong = bytes
        wrong[offset] ^= 4
        expectDrop(wrong, .badChecksum)
      }
    }
  }

  /// RFC 8200 section 8.1.
  @Test func F8_aMissingChecksumIsAllowedForIPv4Only() {
    for count in [3, 3000] {
      let payload = [UInt8](repeating: 9, count: count)
      var model = packet(.ipv4, payload)
      model.checksumField = 0
      #expect(near.receive(model.bytes) == arrived(.ipv4, payload))
      #expect(near.receiveAll(model.fragments(1400)) == [arrived(.ipv4, payload)])
      model = packet(.ipv6, payload)
      model.checksumField = 0
      expectDrop(model.bytes, .badChecksum)
      #expect(near.receiveAll(model.fragments(1400)) == [])
    }
    #expect(near.count(.badChecksum) == 4)
  }

  // MARK: Lengths

  /// A shorter UDP length excludes the bytes after it (RFC 768 allows that); a longer one, or one
  /// that does not cover the header, is invalid.
  @Test(arguments: families) func lengthsOfUDP(family: IPAddress.Family) {
    let payload: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8]
    for length in 0...40 {
      var model = packet(family, payload)
      model.lengthField = length
      switch length {
      case 8...16:
        // The checksum covers only the bytes within the length.
        var shorter = packet(family, Array(payload[..<(length - 8)])).transport
        shorter += payload[(length - 8)...]
        model.other = (17, shorter)
        #expect(near.receive(model.bytes) == arrived(family, Array(payload[..<(length - 8)])))
      default: expectDrop(model.bytes, .malformed)
      }
    }
    var model = packet(family, payload)
    model.lengthField = 0xffff
    expectDrop(model.bytes, .malformed)
  }

  /// A packet cut short anywhere: nothing beyond its end is read, since the buffer ends there.
  @Test(arguments: families) func truncatedPackets(family: IPAddress.Family) {
    var models = [packet(family), packet(family)]
    if family == .ipv4 { models[1].ipv4Options = [7, 7, 4, 0, 0, 0, 0, 0] }
    if family == .ipv6 { models[1].extensions = [.options(16), .options(8)] }
    for model in models {
      let bytes = model.bytes
      for count in 0..<bytes.count { expectDrop(Array(bytes[..<count]), .malformed) }
      // With the network header's length adjusted as well.
      for count in 1..<bytes.count {
        var cut = Array(bytes[..<count])
        let length = family == .ipv4 ? count : count - 40
        guard length >= 0, count > 6 else { continue }
        let field = family == .ipv4 ? 2 : 4
        cut.replaceSubrange(field..<field + 2, with: ChannelPacket.big(length, 2))
        if family == .ipv4, count >= 20 {
          cut.replaceSubrange(10..<12, with: [0, 0])
          let sum = ~PacketModel.sum(Array(cut[..<min(count, Int(cut[0] & 0xf) * 4)]))
          cut.replaceSubrange(10..<12, with: ChannelPacket.big(Int(sum), 2))
        }
        let before = near.count(.received)
        #expect(near.receive(cut) == .nothing, "\(count) bytes")
        #expect(near.count(.received) == before)
      }
    }
  }

  @Test func noPackets() {
    for version in 0..<16 where version != 4 && version != 6 {
      expectDrop([UInt8](repeating: UInt8(version << 4 | 5), count: 60), .malformed)
    }
    expectDrop([], .malformed)
    // An empty packet.
    let received = near.channel.receive(
      UnsafeMutableRawBufferPointer(start: nil, count: 0), from: 1, at: near.now)
    guard case .nothing = received else {
      Issue.record("something came out of nothing")
      return
    }
  }
}
