import Testing

@testable import Culvert

@Suite struct ForwarderTests {
  private static func limits(_ flows: Int) -> Limits {
    var limits = Limits.shrunken()
    limits.flows = flows
    return limits
  }

  private static func forwarder(_ memory: TestArena, flows: Int, grace: UInt64? = nil) -> Forwarder
  {
    var times = FlowTimes()
    if let grace { times.grace = grace }
    var forwarder = Forwarder(
      carvingFrom: &memory.arena, limits: limits(flows), times: times)
    forwarder.start(seed: 3)
    return forwarder
  }

  private static let dns = Endpoint(address: ipv4(10, 0, 0, 1), port: 53)
  private static let time = Endpoint(address: ipv6(0xfd00 << 48, 1), port: 123)
  private static let now = Instant(nanoseconds: 1_000_000)

  private static func client(_ port: UInt16) -> Path {
    Path(
      endpoint: Endpoint(address: ipv4(127, 0, 0, 1), port: port), source: ipv4(127, 0, 0, 53),
      interface: 1)
  }

  @Test func answersFindTheirClient() {
    let memory = TestArena()
    var forwarder = Self.forwarder(memory, flows: 8)
    expect(forwarder.addMapping(to: Self.dns))
    expect(forwarder.addMapping(to: Self.time))
    // One client on two mappings, and two clients on one.
    let first = forwarder.route(0, from: Self.client(1000), at: Self.now)!
    let second = forwarder.route(1, from: Self.client(1000), at: Self.now)!
    let third = forwarder.route(0, from: Self.client(1001), at: Self.now)!
    #expect(first.target == Self.dns && second.target == Self.time && third.target == Self.dns)
    #expect(Set([first.port, second.port, third.port]).count == 3)
    let again = forwarder.route(0, from: Self.client(1000), at: Self.now)!
    #expect(again.port == first.port)
    for (route, mapping, port) in [(first, 0, 1000), (second, 1, 1000), (third, 0, 1001)] {
      let answer = forwarder.answer(from: route.target, to: route.port, at: Self.now)
      #expect(answer?.mapping == mapping && answer?.client == Self.client(UInt16(port)))
    }
    let count = forwarder.flowCount
    #expect(count == 3)
    withExtendedLifetime(memory) {}
  }

  @Test func onlyTheDestinationItselfIsHeard() {
    let memory = TestArena()
    var forwarder = Self.forwarder(memory, flows: 8)
    expect(forwarder.addMapping(to: Self.dns))
    expect(forwarder.addMapping(to: Self.time))
    let route = forwarder.route(0, from: Self.client(1000), at: Self.now)!
    let others = [
      Self.time, Endpoint(address: Self.dns.address, port: 54),
      Endpoint(address: ipv4(10, 0, 0, 2), port: 53),
    ]
    for other in others {
      expect(forwarder.answer(from: other, to: route.port, at: Self.now) == nil)
      forwarder.close(other, from: route.port)
    }
    expect(forwarder.answer(from: Self.dns, to: route.port ^ 1, at: Self.now) == nil)
    expect(forwarder.answer(from: Self.dns, to: 53, at: Self.now) == nil)
    forwarder.close(Self.dns, from: route.port ^ 1)
    let counters = forwarder.counters
    #expect(counters[.wrongSender] == 3 && counters[.stray] == 2 && counters[.unreachable] == 0)
    expect(forwarder.answer(from: Self.dns, to: route.port, at: Self.now) != nil)
    withExtendedLifetime(memory) {}
  }

  @Test func anUnreachableDestinationEndsItsFlow() {
    let memory = TestArena()
    var forwarder = Self.forwarder(memory, flows: 8)
    expect(forwarder.addMapping(to: Self.dns))
    let route = forwarder.route(0, from: Self.client(1000), at: Self.now)!
    forwarder.close(Self.dns, from: route.port)
    let (count, closed) = (forwarder.flowCount, forwarder.counters[.unreachable])
    #expect(count == 0 && closed == 1)
    // Late answers belong to no flow, and the client's next datagram opens another flow.
    expect(forwarder.answer(from: Self.dns, to: route.port, at: Self.now) == nil)
    let next = forwarder.route(0, from: Self.client(1000), at: Self.now)!
    #expect(next.port != route.port)
    expect(forwarder.answer(from: Self.dns, to: next.port, at: Self.now) != nil)
    withExtendedLifetime(memory) {}
  }

  @Test func thereIsAMostOfMappings() {
    let memory = TestArena()
    var forwarder = Self.forwarder(memory, flows: 8)
    for _ in 0..<32 { expect(forwarder.addMapping(to: Self.dns)) }
    expect(!forwarder.addMapping(to: Self.dns))
    let route = forwarder.route(31, from: Self.client(1), at: Self.now)!
    let answer = forwarder.answer(from: Self.dns, to: route.port, at: Self.now)
    #expect(answer?.mapping == 31)
    withExtendedLifetime(memory) {}
  }

  /// 1,000 clients and 256 places: clients that ask one after the other get their answers, whatever
  /// the grace period.
  @Test func athousandClientsInTurnLoseNothing() {
    let memory = TestArena()
    var forwarder = Self.forwarder(memory, flows: 256)
    expect(forwarder.addMapping(to: Self.dns))
    var lost = 0
    // Up to 200 questions are in flight at a time.
    var waiting: [(route: Forwarder.Route, port: UInt16)] = []
    for port in 0..<1000 as Range<UInt16> {
      let route = forwarder.route(0, from: Self.client(port), at: Self.now)
      if let route { waiting.append((route, port)) } else { lost += 1 }
      if waiting.count < 200, port < 999 { continue }
      while waiting.count > (port == 999 ? 0 : 199) {
        let (route, port) = waiting.removeFirst()
        let answer = forwarder.answer(from: Self.dns, to: route.port, at: Self.now)
        if answer?.client != Self.client(port) { lost += 1 }
      }
    }
    let counters = forwarder.counters
    #expect(lost == 0 && counters[.evicted] == 744 && counters[.refused] == 0)
    withExtendedLifetime(memory) {}
  }

  /// All at once: the only losses are evicted flows, and flows that found no place while all others
  /// were within their grace period. No answer reaches the wrong client.
  @Test(arguments: [0, 1_000_000] as [UInt64])
  func athousandClientsAtOnceLoseNoMoreThanTheEvictedAndRefused(grace: UInt64) {
    let memory = TestArena()
    var forwarder = Self.forwarder(memory, flows: 256, grace: grace)
    expect(forwarder.addMapping(to: Self.dns))
    let routes = (0..<1000 as Range<UInt16>).map {
      forwarder.route(0, from: Self.client($0), at: Self.now)
    }
    var (lost, wrong) = (0 as UInt64, 0)
    for (port, route) in routes.enumerated() {
      let answer = route.flatMap {
        forwarder.answer(from: $0.target, to: $0.port, at: Self.now)
      }
      if answer == nil { lost += 1 }
      if let answer, answer.client != Self.client(UInt16(port)) { wrong += 1 }
    }
    let counters = forwarder.counters
    #expect(wrong == 0 && lost == 744)
    #expect(counters[.evicted] == (grace == 0 ? 744 : 0))
    #expect(counters[.refused] == (grace == 0 ? 0 : 744))
    withExtendedLifetime(memory) {}
  }

  @Test func timeGoesOnToTheTable() {
    let memory = TestArena()
    var forwarder = Self.forwarder(memory, flows: 8)
    expect(forwarder.addMapping(to: Self.dns))
    _ = forwarder.route(0, from: Self.client(1), at: Self.now)
    let end = forwarder.nextDeadline.instant!
    forwarder.expireFlows(at: Instant(nanoseconds: end.nanoseconds - 1))
    expect(forwarder.flowCount == 1)
    forwarder.expireFlows(at: end)
    expect(forwarder.flowCount == 0 && forwarder.counters[.expired] == 1)
    forwarder.count(.sent)
    expect(forwarder.counters[.sent] == 1)
    withExtendedLifetime(memory) {}
  }
}

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

  /// Whole and fragmented, over both families; the traffic class is kept.
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

  /// Datagrams without room in one batch are sent in the next, each once and in order.
  @Test func aFullBatchIsNotTheEnd() throws {
    // 16 packets at a time, with three fragments each.
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

  /// Small datagrams stay where they are until they are sealed: none is overwritten by the headers
  /// of the next.
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
    // The limit in bytes: 160 KB, and room is requested for the largest size.
    let other = try ForwarderWorld()
    #expect(other.receive((0..<9).map { Self.datagram(40_000, port: $0) }) == 3)
    #expect(other.clients[2].bytes.count == 40_000)
    let end = other.clients[2].bytes.baseAddress! + 40_000 + BatchLayout.slack
    #expect(end <= other.clients[0].bytes.baseAddress! + 160 * 1024)
  }

  /// More answers in one batch than the table holds.
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

  /// More fragmented answers than the reassembler lends at once.
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

  /// An ICMP error about a flow's datagram ends that flow and no other.
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

  /// A closed port is reported to the flow's client; also to the others of the mapping, unless its
  /// destination has answered in the last ten seconds.
  @Test func R67_aClosedPortIsReportedToItsClient() throws {
    let world = try ForwarderWorld()
    func kindOfReport(after duration: UInt64) -> ForwarderBatch.Kind? {
      world.answers.reset()
      var packet = [UInt8](repeating: 0, count: 64) + world.pair.b.delivered.last!
      packet.withUnsafeMutableBytes { buffer in
        let error = ICMPError.write(
          .hostUnreachable, in: buffer.baseAddress!, packetByteOffset: 64,
          packetByteCount: buffer.count - 64)!
        let bytes = UnsafeMutableRawBufferPointer(
          rebasing: buffer[error.byteOffset..<error.byteOffset + error.byteCount])
        // Port unreachable, with the same checksum.
        let old = bytes.loadUnaligned(fromByteOffset: 22, as: UInt16.self).bigEndian
        bytes[21] = 3
        let new = Checksum.updated(old, from: 0x0301, to: 0x0303)
        bytes.storeBytes(of: new.bigEndian, toByteOffset: 22, as: UInt16.self)
        world.forwarder.collectAnswer(
          bytes, from: 1, &world.channel, into: &world.answers,
          at: world.pair.now.advanced(by: duration))
      }
      guard world.answers.count == 1 else { return nil }
      let report = world.answers[0]
      #expect(report.bytes.count == 0 && report.client.endpoint.port == 1)
      return report.kind
    }
    #expect(world.receive([Self.datagram(10, port: 1)]) == 1)
    _ = world.sendOut()
    #expect(kindOfReport(after: 0) == .refusalOfAll)
    for (duration, kind) in [
      (0, .refusal), (Forwarder.aliveTime - 1, .refusal), (Forwarder.aliveTime, .refusalOfAll),
    ] as [(UInt64, ForwarderBatch.Kind)] {
      #expect(world.receive([Self.datagram(10, port: 1)]) == 1)
      #expect(world.sendBack(world.sendOut()).count == 1)
      #expect(kindOfReport(after: duration) == kind)
      // The flow is closed, so another error about it reports nothing.
      #expect(kindOfReport(after: duration) == nil)
    }
  }

  @Test func routesAreKnown() throws {
    let world = try ForwarderWorld()
    expect(world.pair.a.tunnel.hasRoute(to: TunnelPair.addressOfB))
    expect(world.pair.a.tunnel.hasRoute(to: TunnelPair.address6OfB))
    expect(!world.pair.a.tunnel.hasRoute(to: ipv4(10, 0, 0, 3)))
  }
}
