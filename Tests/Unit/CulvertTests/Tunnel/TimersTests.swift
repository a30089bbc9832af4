import Testing

@testable import Culvert

/// The timers' arithmetic against the whitepaper's rules.
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

  /// As `Tunnel.expire` does, without the tunnel.
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
