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
    // What still comes is nobody's, and the client's next datagram opens another flow.
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

  /// 1,000 clients and 256 places: who asks one after the other has his answer, whatever the
  /// grace.
  @Test func athousandClientsInTurnLoseNothing() {
    let memory = TestArena()
    var forwarder = Self.forwarder(memory, flows: 256)
    expect(forwarder.addMapping(to: Self.dns))
    var lost = 0
    // Up to 200 questions are on their way at a time.
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

  /// All at once: what is lost are the flows that were evicted, and those that found no place while
  /// all others were within their grace. No answer goes to the wrong client.
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
