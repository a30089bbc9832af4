import Testing

@testable import Culvert
@testable import CulvertLinux

/// Lookups with simulated servers and time, from a seed.
@Suite struct NameLookupTests {
  private static let timeout = 2 * nanosecondsPerSecond
  private static let address: [UInt8] = [192, 0, 2, 9]

  /// A server: how often it loses a query or its answer, and what it answers.
  private struct Server {
    var lossPercent: UInt64
    var cutPercent: UInt64
    var forgedPercent: UInt64
    var refuses: Bool
    var knowsEDNS: Bool
  }

  private struct Result {
    var lookup: NameLookup
    var seconds: UInt64
    var queries: [Int]
  }

  /// Carries out a lookup of vpn.example.org.
  private func run(
    _ servers: [Server], first: Int = 0, routes: NameLookup.Routes, seed: UInt64
  ) -> Result {
    var entropy = Entropy.seeded(seed)
    var dice = Entropy.seeded(seed ^ 0x5eed)
    var lookup = NameLookup(
      serverCount: servers.count, firstServer: first, routes: routes, timeout: Self.timeout)
    let name = bytes("vpn.example.org")
    var now = Instant(nanoseconds: 1)
    var queries: [Int] = []
    var step = lookup.begin(at: now, &entropy)
    while step != .end {
      if step == .ask { queries.append(lookup.server) }
      #expect(lookup.deadline.isSet && !lookup.deadline.isDue(at: now))
      let server = servers[lookup.server]
      func isHit(_ percent: UInt64) -> Bool { dice.below(100) < percent }
      if isHit(server.lossPercent) {
        now = lookup.deadline.instant!
        step = lookup.didFail(at: now, &entropy)
        continue
      }
      let isForged = isHit(server.forgedPercent)
      let isCut = !lookup.isStream && isHit(server.cutPercent)
      let type: UInt16 = lookup.family == .ipv4 ? 1 : 28
      let records =
        type == 1 ? [NameMessage.record(type: 1, isForged ? [6, 6, 6, 6] : Self.address)] : []
      var code: UInt16 = server.refuses ? 2 : 0
      if lookup.hasEDNS && !server.knowsEDNS { code = 1 }
      let message = NameMessage(
        id: isForged ? lookup.id ^ 1 : lookup.id, flags: 0x8180 | code | (isCut ? 0x0200 : 0),
        questions: [NameMessage.question("vpn.example.org", type: type)],
        answers: code == 0 && !isCut ? records : [])
      now = now.advanced(by: 20 * nanosecondsPerMillisecond)
      step = name.withUnsafeBytes { name in
        message.bytes.withUnsafeBytes {
          lookup.didReceive($0, for: name, at: now, &entropy)
        }
      }
      // A forged answer changes nothing; the real one follows, or is waited for.
      if isForged { #expect(step == .wait) }
      #expect(queries.count < 100)
    }
    return Result(lookup: lookup, seconds: now.nanoseconds / nanosecondsPerSecond, queries: queries)
  }

  private static let both = NameLookup.Routes(ipv4: true, ipv6: true)

  @Test(arguments: 0..<300)
  func R44_oneGoodServerIsEnough(seed: Int) {
    var dice = Entropy.seeded(UInt64(seed))
    var servers = (0..<Int(dice.below(3))).map { _ in
      Server(
        lossPercent: dice.below(101), cutPercent: dice.below(101), forgedPercent: dice.below(60),
        refuses: dice.below(2) == 0, knowsEDNS: dice.below(2) == 0)
    }
    let good = Server(
      lossPercent: 0, cutPercent: dice.below(101), forgedPercent: dice.below(60), refuses: false,
      knowsEDNS: dice.below(2) == 0)
    servers.insert(good, at: Int(dice.below(UInt64(servers.count + 1))))
    let result = run(servers, routes: Self.both, seed: UInt64(seed))
    #expect(result.lookup.ipv4.count == 1 && result.lookup.ipv6.count == 0, "seed \(seed)")
    #expect(result.lookup.ipv4[0] == IPAddress(ipv4: 0xc000_0209))
    #expect(result.lookup.secondsToLive == 60)
    #expect(result.lookup.answeringServer != nil)
  }

  @Test func R62_theServerThatAnswersIsAskedFirstForTheOtherFamily() {
    let dead = Server(
      lossPercent: 100, cutPercent: 0, forgedPercent: 0, refuses: false, knowsEDNS: true)
    var good = dead
    good.lossPercent = 0
    let result = run([dead, good], routes: Self.both, seed: 1)
    #expect(result.queries == [0, 1, 1] && result.lookup.answeringServer == 1)
    #expect(run([dead, good], first: 1, routes: Self.both, seed: 1).queries == [1, 1])
    // All are dead: two families, three times two servers, two seconds each.
    let none = run([dead, dead], routes: Self.both, seed: 1)
    #expect(none.lookup.failure == .noAnswer && none.seconds == 24)
    #expect(none.queries.count == 12 && none.lookup.answeringServer == nil)
  }

  @Test func R45_familiesWithoutARouteAreSkipped() {
    let good = Server(
      lossPercent: 0, cutPercent: 0, forgedPercent: 0, refuses: false, knowsEDNS: true)
    func count(_ ipv4: Bool, _ ipv6: Bool) -> Int {
      run([good], routes: NameLookup.Routes(ipv4: ipv4, ipv6: ipv6), seed: 1).queries.count
    }
    #expect(count(true, false) == 1)
    #expect(count(true, true) == 2)
    #expect(count(false, false) == 1)
    // The name has no IPv6 address, so the other family is asked for after all.
    #expect(count(false, true) == 2)
  }
}

/// When names are looked up, and which address is used.
@Suite struct NamedPeerTests {
  private var entropy = Entropy.seeded(45)
  private static let start: UInt64 = 1_000_000
  private static let second = nanosecondsPerSecond

  private func at(_ seconds: UInt64) -> Instant {
    Instant(nanoseconds: (Self.start + seconds) * Self.second)
  }

  private func endpoint(_ last: UInt32) -> Endpoint {
    Endpoint(address: IPAddress(ipv4: 0xc000_0200 + last), port: 7)
  }

  /// Whether the next candidate is to be tried after an initiation.
  private func triesNext(_ peer: inout NamedPeer, _ count: Int, at seconds: UInt64) -> Bool {
    peer.didSendInitiation(count, at: at(seconds))
  }

  private func list(_ last: UInt32...) -> CandidateList {
    var list = CandidateList()
    for last in last { list.append(endpoint(last)) }
    return list
  }

  private func peer() -> NamedPeer {
    NamedPeer(
      publicKey: .zero, id: PeerID(index: 0, generation: 0), hop: 0, port: 7, nameByteCount: 1,
      settings: 0, at: at(0))
  }

  private mutating func found(
    _ peer: inout NamedPeer, _ list: CandidateList, life: UInt32 = 0, at seconds: UInt64
  ) {
    peer.didStart()
    peer.didFind(list, secondsToLive: life, at: at(seconds), &entropy)
    let outcomes = [peer.takeOutcome(), peer.takeOutcome()]
    #expect(outcomes == [.found, .none])
  }

  @Test mutating func R45_aPeerThatAnswersOrIsIdleIsLeftAlone() {
    var peer = peer()
    #expect(peer.deadline == Deadline(at(0)))
    found(&peer, list(1), at: 0)
    #expect(!peer.deadline.isSet)
    peer.didAnswer(endpoint(1))
    for count in 1...3 {
      let triesNext = triesNext(&peer, count, at: 3600 + 5 * UInt64(count))
      #expect(!triesNext && !peer.deadline.isSet)
    }
    // Three were unanswered when the fourth was sent.
    let triesNext = triesNext(&peer, 4, at: 3615)
    #expect(!triesNext && peer.deadline.isDue(at: at(3615)))
  }

  @Test mutating func R45_theIntervalGrowsToFiveMinutes() {
    for (life, expected) in [
      (UInt32(0), [30, 60, 120, 240, 300, 300]), (100, [100, 200, 300, 300, 300, 300]),
      (86_400, [300, 300, 300, 300, 300, 300]),
    ] as [(UInt32, [UInt64])] {
      var peer = peer()
      var last: UInt64 = 0
      found(&peer, list(1), life: life, at: 0)
      var intervals: [UInt64] = []
      for seconds in 1..<3000 as Range<UInt64> where intervals.count < 6 {
        _ = peer.didSendInitiation(20, at: at(seconds))
        guard peer.deadline.isDue(at: at(seconds)) else { continue }
        intervals.append(seconds - last)
        last = seconds
        found(&peer, list(1), life: life, at: seconds)
      }
      for (interval, expected) in zip(intervals, expected) {
        #expect(interval + expected / 10 >= expected && interval <= expected + expected / 10 + 1)
      }
      #expect(intervals.count == 6)
      // An answer ends it.
      peer.didAnswer(endpoint(1))
      _ = peer.didSendInitiation(4, at: at(last + 1))
      #expect(peer.deadline.isDue(at: at(last + 1)))
    }
  }

  @Test mutating func R45_aChangeOfTheNetworkMakesOneInitiationEnough() {
    var peer = peer()
    found(&peer, list(1), at: 0)
    peer.networkChanged(at: at(10))
    // Nothing while it is idle.
    #expect(!peer.deadline.isSet)
    _ = peer.didSendInitiation(2, at: at(11))
    #expect(!peer.deadline.isSet)
    // Further changes do not postpone it.
    peer.networkChanged(at: at(11))
    // The first one may still be answered, as each time when a session is renewed.
    _ = peer.didSendInitiation(1, at: at(12))
    #expect(!peer.deadline.isSet)
    _ = peer.didSendInitiation(2, at: at(12))
    #expect(peer.deadline.isDue(at: at(12)))
    found(&peer, list(1), at: 12)
    _ = peer.didSendInitiation(2, at: at(13))
    #expect(!peer.deadline.isSet)
    // A name without an address is looked up without being asked for.
    var dead = self.peer()
    for seconds in [0, 2, 4, 9] as [UInt64] {
      #expect(dead.deadline.isDue(at: at(seconds)))
      dead.didStart()
      #expect(!dead.deadline.isSet)
      dead.didFail(.noAnswer, at: at(seconds), &entropy)
      let outcome = dead.takeOutcome()
      #expect(outcome == .failed(.noAnswer))
      #expect(!dead.deadline.isDue(at: at(seconds)))
    }
    dead.networkChanged(at: at(10))
    #expect(!dead.deadline.isDue(at: at(11)) && dead.deadline.isDue(at: at(12)))
  }

  @Test mutating func R44_pausesOfADeadNameGrowToAMinute() {
    var dead = peer()
    var now = at(0)
    for expected in [1, 2, 4, 8, 16, 32, 60, 60, 60] as [UInt64] {
      dead.didStart()
      dead.didFail(.refused, at: now, &entropy)
      let pause = dead.deadline.instant!.since(now)
      #expect(pause >= expected * Self.second * 9 / 10 && pause <= expected * Self.second * 11 / 10)
      now = dead.deadline.instant!
    }
    dead.forget()
    #expect(!dead.deadline.isSet)
  }

  @Test mutating func R45_thePresentAddressStaysWhileTheNameHasIt() {
    var peer = peer()
    found(&peer, list(1, 2, 3), at: 0)
    #expect(peer.choice(present: nil) == endpoint(1))
    #expect(peer.choice(present: endpoint(3)) == endpoint(3))
    #expect(peer.choice(present: endpoint(9)) == endpoint(1))
    peer.didAnswer(endpoint(2))
    #expect(peer.choice(present: endpoint(9)) == endpoint(2))
    #expect(peer.choice(present: endpoint(3)) == endpoint(3))
  }

  @Test mutating func R45_candidatesAreTriedOnePerRetry() {
    var peer = peer()
    found(&peer, list(1, 2), at: 0)
    // It has never answered: from the first retry on.
    var tries = [triesNext(&peer, 1, at: 1), triesNext(&peer, 2, at: 6)]
    #expect(tries == [false, true])
    #expect(peer.next(after: endpoint(1)) == endpoint(2))
    #expect(peer.next(after: endpoint(2)) == endpoint(1))
    #expect(peer.next(after: endpoint(9)) == endpoint(1))
    // It has answered: only after a new lookup has found the same address.
    peer.didAnswer(endpoint(2))
    tries = []
    for count in 1...4 { tries.append(triesNext(&peer, count, at: 100)) }
    #expect(tries == [false, false, false, false] && peer.deadline.isSet)
    found(&peer, list(1, 2), at: 101)
    tries = [triesNext(&peer, 5, at: 106)]
    found(&peer, list(1), at: 107)
    tries.append(triesNext(&peer, 6, at: 108))
    #expect(tries == [true, false])
  }
}
