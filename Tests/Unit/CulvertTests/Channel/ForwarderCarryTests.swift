import Testing

@testable import Culvert

@Suite struct ForwarderCarryTests {
  private typealias Datagram = ForwarderWorld.Datagram

  private static func datagram(
    _ count: Int, port: UInt16, mapping: Int = 0, trafficClass: UInt8 = 0
  ) -> Datagram {
    var random = SeededGenerator(seed: UInt64(port) << 32 | UInt64(count))
    return Datagram(
      bytes: random.bytes(count), client: ForwarderWorld.client(port), mapping: mapping,
      trafficClass: trafficClass)
  }

  /// Whole and in fragments, over both families; the class goes along.
  @Test(arguments: [0, 1]) func datagramsGoThroughAndBack(mapping: Int) throws {
    let world = try ForwarderWorld()
    for (index, count) in [0, 1, 8, 1372, 1373, 1392, 1393, 4000, 20_000].enumerated() {
      let datagram = Self.datagram(
        count, port: UInt16(1000 + index), mapping: mapping, trafficClass: 0xb8)
      #expect(world.receive([datagram]) == 1)
      let questions = world.sendOut()
      #expect(questions.map(\.bytes) == [datagram.bytes] && questions[0].trafficClass == 0xb8)
      #expect(world.sendBack(questions) == [datagram])
    }
    let counters = world.forwarder.counters
    #expect(counters[.sent] == 9 && counters[.opened] == 9 && counters[.unsent] == 0)
  }

  /// Datagrams that do not find room in one batch go with the next, each once and in order.
  @Test func aFullBatchIsNotTheEnd() throws {
    // 16 packets at a time, and three fragments each.
    let world = try ForwarderWorld()
    let datagrams = (0..<20 as Range<UInt16>).map { Self.datagram(4000, port: $0) }
    #expect(world.receive(datagrams) == 20)
    let questions = world.sendOut()
    #expect(questions.map(\.bytes) == datagrams.map(\.bytes))
    #expect(world.roundsOut == 4)
    #expect(world.sendBack(questions) == datagrams)
    let counters = world.forwarder.counters
    #expect(counters[.sent] == 20 && counters[.opened] == 20)
  }

  /// Small ones stay where they are until they are sealed: none is overwritten by the next one's
  /// headers.
  @Test(arguments: [0, 1]) func neighboursLeaveEachOtherAlone(mapping: Int) throws {
    let world = try ForwarderWorld()
    let datagrams = (0..<16 as Range<UInt16>).map {
      Self.datagram(Int($0) * 7, port: $0, mapping: mapping)
    }
    #expect(world.receive(datagrams) == 16)
    let questions = world.sendOut()
    #expect(world.roundsOut == 1)
    #expect(questions.map(\.bytes) == datagrams.map(\.bytes))
  }

  @Test func whatNoBatchCarriesIsCounted() throws {
    let world = try ForwarderWorld()
    let datagrams = [30_000, 65_535, 100].enumerated().map {
      Self.datagram($1, port: UInt16($0))
    }
    var answered: [Datagram] = []
    for datagram in datagrams {
      #expect(world.receive([datagram]) == 1)
      answered += world.sendBack(world.sendOut())
    }
    #expect(answered == [datagrams[2]])
    let counters = world.forwarder.counters
    #expect(counters[.unsent] == 2 && counters[.sent] == 1)
  }

  @Test func clientsAreReceivedUntilTheBatchIsFull() throws {
    let world = try ForwarderWorld(places: 4)
    #expect(world.receive((0..<9).map { Self.datagram(10, port: $0) }) == 4)
    // By bytes: 160 KB, and room for any size is asked for.
    let other = try ForwarderWorld()
    #expect(other.receive((0..<9).map { Self.datagram(40_000, port: $0) }) == 3)
    #expect(other.clients[2].bytes.count == 40_000)
    let end = other.clients[2].bytes.baseAddress! + 40_000 + BatchLayout.slack
    #expect(end <= other.clients[0].bytes.baseAddress! + 160 * 1024)
  }

  /// More answers in one batch than the table takes at once.
  @Test func aFullTableOfAnswersIsNotTheEnd() throws {
    let world = try ForwarderWorld(places: 4)
    var datagrams: [Datagram] = []
    var questions: [ForwarderWorld.Question] = []
    for start in stride(from: 0 as UInt16, to: 16, by: 4) {
      let some = (start..<start + 4).map { Self.datagram(100, port: $0) }
      #expect(world.receive(some) == 4)
      questions += world.sendOut()
      datagrams += some
    }
    #expect(world.sendBack(questions) == datagrams)
    #expect(world.roundsIn == 4)
  }

  /// More answers in fragments than the reassembler lends at once.
  @Test func theReassemblersMemoryComesBack() throws {
    var limits = Limits.roomy
    limits.batchPackets = 128
    let world = try ForwarderWorld(limits: limits)
    let datagrams = (0..<45 as Range<UInt16>).map { Self.datagram(2000, port: $0) }
    #expect(world.receive(datagrams) == 45)
    let questions = world.sendOut()
    #expect(questions.count == 45)
    #expect(world.sendBack(questions) == datagrams)
    let lent = world.channel.lentCount
    #expect(world.roundsIn >= 2 && lent == 0)
  }

  /// An ICMP error about a flow's datagram ends the flow, and one about another's does not.
  @Test(arguments: [ICMPErrorKind.hostUnreachable, .administrativelyProhibited])
  func errorsEndTheirFlow(kind: ICMPErrorKind) throws {
    let world = try ForwarderWorld()
    #expect(world.receive([Self.datagram(10, port: 1), Self.datagram(10, port: 2)]) == 2)
    _ = world.sendOut()
    var packet = world.pair.b.delivered[0]
    let count = packet.count
    packet = [UInt8](repeating: 0, count: 64) + packet
    packet.withUnsafeMutableBytes { buffer in
      let error = ICMPError.write(
        kind, in: buffer.baseAddress!, packetByteOffset: 64, packetByteCount: count)!
      let bytes = UnsafeMutableRawBufferPointer(
        rebasing: buffer[error.byteOffset..<error.byteOffset + error.byteCount])
      world.forwarder.collectAnswer(
        bytes, from: 1, &world.channel, into: &world.answers, at: world.pair.now)
    }
    let (flows, closed) = (world.forwarder.flowCount, world.forwarder.counters[.unreachable])
    #expect(flows == 1 && closed == 1)
    // The second client's answer still arrives, the first one's datagram opens another flow.
    #expect(world.receive([Self.datagram(11, port: 2), Self.datagram(12, port: 1)]) == 2)
    #expect(world.sendBack(world.sendOut()).map(\.client.endpoint.port) == [2, 1])
    #expect(world.forwarder.counters[.opened] == 3)
  }

  @Test func routesAreKnown() throws {
    let world = try ForwarderWorld()
    expect(world.pair.a.tunnel.hasRoute(to: TunnelPair.addressOfB))
    expect(world.pair.a.tunnel.hasRoute(to: TunnelPair.address6OfB))
    expect(!world.pair.a.tunnel.hasRoute(to: ipv4(10, 0, 0, 3)))
  }
}
