import Testing

@testable import Culvert

/// Arithmetic of the timers against the whitepaper's rules.
@Suite struct TimersTests {
  @Test(arguments: Array(1...12) as [UInt64])
  func deadlinesAreTheModels(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    var timers = Timers()
    timers.persistentKeepaliveInterval = UInt16([0, 1, 25, 65_535][Int(seed % 4)])
    var model = TimersModel(interval: UInt64(timers.persistentKeepaliveInterval))
    var now = Instant(nanoseconds: 0)
    for _ in 0..<400 {
      now = now.advanced(by: generator.next() % (4 * nanosecondsPerSecond))
      let jitter = generator.next() % Policy.handshakeJitter
      cause(generator.next() % 8, &timers, &model, jitter: jitter, at: now)
      expire(&timers, &model, at: now)
      #expect(timers.newHandshake == model.newHandshake)
      #expect(timers.sendKeepalive == model.sendKeepalive)
      #expect(timers.retransmitHandshake == model.retransmit)
      #expect(timers.zeroKeys == model.zeroKeys)
      #expect(timers.persistentKeepalive == model.persistentKeepalive)
      let all = [
        timers.newHandshake, timers.sendKeepalive, timers.retransmitHandshake, timers.zeroKeys,
        timers.persistentKeepalive, timers.work,
      ]
      #expect(timers.next == all.min())
      let wishes = timers.wantsInitiation || timers.wantsKeepalive || timers.wantsFlush
      #expect(timers.work.isSet == wishes)
    }
  }

  private func cause(
    _ which: UInt64, _ timers: inout Timers, _ model: inout TimersModel, jitter: UInt64,
    at now: Instant
  ) {
    switch which {
    case 0:
      timers.dataSent(at: now, jitter: jitter)
      model.note(.dataSent(jitter: jitter), at: now)
    case 1:
      timers.dataReceived(at: now)
      model.note(.dataReceived, at: now)
    case 2:
      timers.anyAuthenticatedPacketSent()
      model.note(.anySent, at: now)
    case 3:
      timers.anyAuthenticatedPacketReceived()
      model.note(.anyReceived, at: now)
    case 4:
      timers.anyAuthenticatedPacketTraversal(at: now)
      model.note(.traversal, at: now)
    case 5:
      guard timers.mayInitiate(at: now) || timers.wantsInitiation else { return }
      timers.initiationSent(at: now, jitter: jitter)
      model.note(.initiationSent(jitter: jitter), at: now)
    case 6 where jitter % 4 == 0:
      timers.handshakeCompleted()
      model.note(.completed, at: now)
    case 7 where jitter % 16 == 0:
      timers.sessionDerived(at: now)
      model.note(.derived, at: now)
    default: break
    }
  }

  /// As `Tunnel.expireTimers` does, without the tunnel.
  private func expire(_ timers: inout Timers, _ model: inout TimersModel, at now: Instant) {
    let due = timers
    if due.retransmitHandshake.isDue(at: now) {
      let isLast = timers.attempts + 1 >= Policy.handshakeAttempts
      #expect((timers.retransmitExpired(at: now) == .giveUp) == isLast)
      model.note(isLast ? .givenUp : .retransmitExpired, at: now)
    }
    if due.newHandshake.isDue(at: now) {
      timers.newHandshakeExpired(at: now)
      model.note(.newHandshakeExpired, at: now)
    }
    if due.sendKeepalive.isDue(at: now) {
      timers.keepaliveExpired(at: now)
      model.note(.keepaliveExpired, at: now)
      #expect(timers.wantsKeepalive)
    }
    if due.persistentKeepalive.isDue(at: now) {
      timers.persistentKeepaliveExpired(at: now)
      model.note(.persistentExpired, at: now)
    }
    if due.zeroKeys.isDue(at: now) {
      timers.zeroKeysExpired()
      model.note(.zeroKeysExpired, at: now)
    }
  }

  @Test func anInitiationIsWantedAtMostEachRekeyTimeout() {
    var timers = Timers()
    let start = Instant(nanoseconds: 1)
    timers.wantInitiation(at: start)
    #expect(timers.wantsInitiation && timers.next == Deadline(start))
    timers.initiationSent(at: start, jitter: 0)
    timers.handshakeCompleted()
    #expect(timers.next == .never)
    timers.wantInitiation(at: start.advanced(by: WireGuard.rekeyTimeout - 1))
    #expect(!timers.wantsInitiation)
    timers.wantInitiation(at: start.advanced(by: WireGuard.rekeyTimeout))
    #expect(timers.wantsInitiation)
  }

  @Test func eighteenTriesAndTrafficBeginsAnew() {
    var timers = Timers()
    var now = Instant(nanoseconds: 1)
    var tries = 0
    timers.wantInitiation(at: now)
    repeat {
      tries += 1
      timers.initiationSent(at: now, jitter: 0)
      now = now.advanced(by: WireGuard.rekeyTimeout)
    } while timers.retransmitExpired(at: now) == .retry
    #expect(tries == 18)
    #expect(!timers.wantsInitiation && !timers.retransmitHandshake.isSet)
    #expect(timers.zeroKeys == .after(Policy.zeroKeysAfterTime, from: now))
    timers.wantInitiation(at: now)
    #expect(timers.attempts == 0 && timers.wantsInitiation)
  }

  /// An initiation that could not be made counts for the rate, but is not tried again by itself.
  @Test func aFailedInitiationCountsForTheRate() {
    var timers = Timers()
    let start = Instant(nanoseconds: 1)
    timers.wantInitiation(at: start)
    timers.initiationFailed(at: start)
    #expect(timers.next == .never)
    timers.wantInitiation(at: start.advanced(by: WireGuard.rekeyTimeout - 1))
    #expect(!timers.wantsInitiation)
    timers.wantInitiation(at: start.advanced(by: WireGuard.rekeyTimeout))
    #expect(timers.wantsInitiation)
  }

  @Test func renewalOnReceivingIsPerSession() {
    var timers = Timers()
    #expect(!timers.hasRenewedOnReceive)
    timers.renewedOnReceive()
    #expect(timers.hasRenewedOnReceive)
    timers.handshakeCompleted()
    #expect(!timers.hasRenewedOnReceive)
  }

  @Test func givingUpClearsThePassiveKeepalive() {
    var timers = Timers()
    var now = Instant(nanoseconds: 1)
    for _ in 1..<Policy.handshakeAttempts {
      timers.initiationSent(at: now, jitter: 0)
      now = now.advanced(by: WireGuard.rekeyTimeout)
      timers.dataReceived(at: now)
      #expect(timers.retransmitExpired(at: now) == .retry)
      // A retry does not clear it.
      #expect(timers.sendKeepalive.isSet)
    }
    timers.initiationSent(at: now, jitter: 0)
    now = now.advanced(by: WireGuard.rekeyTimeout)
    #expect(timers.retransmitExpired(at: now) == .giveUp)
    #expect(timers.sendKeepalive == .never)
    #expect(timers.next == timers.zeroKeys)
  }

  @Test func stoppingKeepsOnlyTheInterval() {
    var timers = Timers()
    let now = Instant(nanoseconds: 1)
    timers.persistentKeepaliveInterval = 25
    timers.dataSent(at: now, jitter: 1)
    timers.dataReceived(at: now)
    timers.wantFlush(at: now)
    timers.sessionDerived(at: now)
    timers.anyAuthenticatedPacketTraversal(at: now)
    timers.stop()
    #expect(timers.next == .never)
    #expect(timers.persistentKeepaliveInterval == 25)
    timers.anyAuthenticatedPacketTraversal(at: now)
    #expect(timers.persistentKeepalive.isSet)
    timers.persistentKeepaliveInterval = 0
    #expect(timers.next == .never)
  }

  @Test func timesNearTheEndOfTheClockDoNotTrap() {
    var timers = Timers()
    let end = Instant(nanoseconds: .max)
    timers.persistentKeepaliveInterval = .max
    timers.dataSent(at: end, jitter: .max / 2)
    timers.dataReceived(at: end)
    timers.anyAuthenticatedPacketTraversal(at: end)
    timers.initiationSent(at: end, jitter: 5)
    timers.sessionDerived(at: end)
    #expect(timers.next == .never)
  }
}

/// The heap against a list of deadlines that is searched linearly.
@Suite struct ScheduleTests {
  private static let peers = 9

  @Test(arguments: Array(1...12) as [UInt64])
  func theTopIsTheLeastOfAll(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let memory = TestArena(byteCount: 1 << 13)
    var schedule = Schedule(carvingFrom: &memory.arena, peers: ScheduleTests.peers)
    var model: [UInt32: UInt64] = [:]
    for _ in 0..<3000 {
      let peer = UInt32(generator.next() % UInt64(ScheduleTests.peers))
      // Few values, so that equal ones are common.
      let time = generator.next() % 40
      switch generator.next() % 6 {
      case 0, 1, 2:
        schedule.lower(peer, to: Deadline(nanoseconds: time))
        model[peer] = min(model[peer] ?? .max, time)
      case 3:
        schedule.lower(peer, to: .never)
      case 4:
        let isOut = generator.next() % 3 == 0
        if let top = schedule.top?.peer { model[top] = isOut ? nil : time }
        schedule.replaceTop(isOut ? .never : Deadline(nanoseconds: time))
      default:
        schedule.remove(peer)
        model[peer] = nil
      }
      expect(schedule.count == model.count)
      if let top = schedule.top {
        #expect(top.deadline.nanoseconds == model.values.min())
        #expect(model[top.peer] == top.deadline.nanoseconds)
      } else {
        #expect(model.isEmpty)
      }
    }
    drain(&schedule, model)
    withExtendedLifetime(memory) {}
  }

  /// Checks that the remaining entries come out in order, each peer once.
  private func drain(_ schedule: inout Schedule, _ model: [UInt32: UInt64]) {
    var times: [UInt64] = []
    var peers: Set<UInt32> = []
    while let top = schedule.top {
      times.append(top.deadline.nanoseconds)
      peers.insert(top.peer)
      schedule.replaceTop(.never)
    }
    #expect(times == model.values.sorted())
    #expect(peers == Set(model.keys))
    schedule.replaceTop(.never)
    expect(schedule.count == 0)
  }
}

/// One peer's timers as described in section 6 of the whitepaper: a list of events, searched as a
/// whole for each deadline.
struct TimersModel {
  enum Event: Equatable {
    case dataSent(jitter: UInt64)
    case dataReceived
    case anySent
    case anyReceived
    case traversal
    case initiationSent(jitter: UInt64)
    case completed
    case derived
    case keepaliveExpired
    case newHandshakeExpired
    case retransmitExpired
    case givenUp
    case zeroKeysExpired
    case persistentExpired
  }

  private(set) var history: [(event: Event, time: Instant)] = []
  let interval: UInt64

  mutating func note(_ event: Event, at now: Instant) { history.append((event, now)) }

  /// The first `start` after the last `end`, and its time.
  private func first(
    _ isStart: (Event) -> Bool, afterLast isEnd: (Event) -> Bool
  ) -> (event: Event, time: Instant)? {
    let start = history.lastIndex { isEnd($0.event) }.map { $0 + 1 } ?? 0
    return history[start...].first { isStart($0.event) }
  }

  /// The last `start`, if no `end` has followed it.
  private func last(
    _ isStart: (Event) -> Bool, without isEnd: (Event) -> Bool
  ) -> (event: Event, time: Instant)? {
    guard let start = history.lastIndex(where: { isStart($0.event) }) else { return nil }
    return history[start...].contains { isEnd($0.event) } ? nil : history[start]
  }

  /// 6.5: 15 s after the first sent data that nothing authenticated has answered.
  var newHandshake: Deadline {
    let start = first(
      { if case .dataSent = $0 { true } else { false } },
      afterLast: { $0 == .anyReceived || $0 == .newHandshakeExpired })
    guard let start, case .dataSent(let jitter) = start.event else { return .never }
    return .after(15 * nanosecondsPerSecond + jitter, from: start.time)
  }

  /// 6.5: 10 s after the first received data that nothing has answered.
  var sendKeepalive: Deadline {
    // An expired timer that saw more data meanwhile restarts by itself.
    var deadline = Deadline.never
    var sawMore = false
    for (event, time) in history {
      switch event {
      case .dataReceived where deadline.isSet: sawMore = true
      case .dataReceived: deadline = .after(10 * nanosecondsPerSecond, from: time)
      case .anySent, .givenUp: deadline = .never
      case .keepaliveExpired:
        deadline = sawMore ? .after(10 * nanosecondsPerSecond, from: time) : .never
        sawMore = false
      default: break
      }
    }
    return deadline
  }

  /// 6.4: 5 s and a jitter after the last initiation, unless it was answered.
  var retransmit: Deadline {
    let start = last(
      { if case .initiationSent = $0 { true } else { false } },
      without: { $0 == .completed || $0 == .retransmitExpired || $0 == .givenUp })
    guard let start, case .initiationSent(let jitter) = start.event else { return .never }
    return .after(5 * nanosecondsPerSecond + jitter, from: start.time)
  }

  /// 6.3: 540 s after the last session was derived; after giving up, 540 s from then, unless it is
  /// set already.
  var zeroKeys: Deadline {
    var deadline = Deadline.never
    for (event, time) in history {
      switch event {
      case .derived: deadline = .after(540 * nanosecondsPerSecond, from: time)
      case .givenUp where !deadline.isSet:
        deadline = .after(540 * nanosecondsPerSecond, from: time)
      case .zeroKeysExpired: deadline = .never
      default: break
      }
    }
    return deadline
  }

  /// One interval after the last authenticated packet in either direction, or the last expiry.
  var persistentKeepalive: Deadline {
    let start = history.last { $0.event == .traversal || $0.event == .persistentExpired }
    guard let start, interval > 0 else { return .never }
    return .after(interval * nanosecondsPerSecond, from: start.time)
  }
}
