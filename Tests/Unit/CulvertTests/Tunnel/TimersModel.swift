@testable import Culvert

/// One peer's timers as the whitepaper's section 6 words them: what has happened is kept as a
/// list, and each deadline is found by going through all of it.
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

  /// The last `start`, where no `end` has come after it.
  private func last(
    _ isStart: (Event) -> Bool, without isEnd: (Event) -> Bool
  ) -> (event: Event, time: Instant)? {
    guard let start = history.lastIndex(where: { isStart($0.event) }) else { return nil }
    return history[start...].contains { isEnd($0.event) } ? nil : history[start]
  }

  /// 6.5: 15 s after the first data that nothing authenticated has come back for.
  var newHandshake: Deadline {
    let start = first(
      { if case .dataSent = $0 { true } else { false } },
      afterLast: { $0 == .anyReceived || $0 == .newHandshakeExpired })
    guard let start, case .dataSent(let jitter) = start.event else { return .never }
    return .after(15 * nanosecondsPerSecond + jitter, from: start.time)
  }

  /// 6.5: 10 s after the first data that nothing has been sent back for.
  var sendKeepalive: Deadline {
    // An expired timer that saw more data in between starts anew by itself.
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

  /// 6.3: 540 s after the last session was derived; after giving up, 540 s from then unless set.
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

  /// Each interval after the last authenticated packet in either direction.
  var persistentKeepalive: Deadline {
    let start = history.last { $0.event == .traversal || $0.event == .persistentExpired }
    guard let start, interval > 0 else { return .never }
    return .after(interval * nanosecondsPerSecond, from: start.time)
  }
}
