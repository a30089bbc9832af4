import Culvert

/// The handshake timestamps of the hops, which the helper process stores (R28, R41).
extension Hops {
  /// Restores the timestamps of earlier runs. If the state directory does not answer in time, the
  /// start goes on, and a timestamp that arrives later is applied then.
  func restoreTimestamps() {
    for hop in 0..<count { self[hop].stamps.read() }
    let end = Clock.boottime().advanced(
      by: UInt64(Helper.startMilliseconds) * nanosecondsPerMillisecond)
    var remaining = count
    while remaining > 0 {
      let left = Hops.milliseconds(until: end)
      if left == 0 { break }
      let reply = Helper.receive(milliseconds: left)
      if case .stored = reply { remaining -= 1 }
      if !apply(reply, at: Clock.boottime()) { return Helper.abandon() }
    }
    guard remaining > 0 else { return }
    innermost.log.error(at: Clock.boottime()) {
      $0.append("the state directory does not answer; starting without the last timestamps")
    }
  }

  /// Applies the replies that have arrived. False if the helper has ended.
  func applyReplies(at now: Instant) -> Bool {
    while true {
      let reply = Helper.receive()
      if case .none = reply { return true }
      if !apply(reply, at: now) { return false }
    }
  }

  /// Another helper has started: the requests that the last one has not replied to were lost.
  func storeTimestampsAgain(at now: Instant) {
    for hop in 0..<count {
      self[hop].tunnel.forgetStorageRequests()
      guard let stamp = self[hop].tunnel.timestampToPersist() else { continue }
      self[hop].report(
        self[hop].stamps.write(stamp), "cannot store the handshake timestamp", at: now)
    }
  }

  /// False if the helper has ended.
  private func apply(_ reply: Helper.Reply, at now: Instant) -> Bool {
    switch reply {
    case .stored(let stamp, let hop):
      if let stamp, hop < count { self[hop].tunnel.restoreTimestamp(stamp) }
    case .didStore(let stamp, let error, let hop):
      guard hop < count else { break }
      self[hop].tunnel.didPersistTimestamp(stamp)
      self[hop].report(error, "cannot store the handshake timestamp", at: now)
    case .didDiscardOutput, .none: break
    case .gone: return false
    }
    return true
  }

  /// Makes the helper's output /dev/null, so that the caller's pipes are closed when its command
  /// returns. Waits for the helper, but not for long.
  func discardOutput() {
    guard Helper.send(.discardOutput) == 0 else { return }
    let end = Clock.boottime().advanced(
      by: UInt64(Helper.exitMilliseconds) * nanosecondsPerMillisecond)
    while true {
      let left = Hops.milliseconds(until: end)
      if left == 0 { return }
      let reply = Helper.receive(milliseconds: left)
      if case .didDiscardOutput = reply { return }
      // The event loop then notices it too.
      if !apply(reply, at: Clock.boottime()) { return }
    }
  }

  /// Stores the last handshake timestamps, so that the next start continues from them. Only after a
  /// crash does it have to skip ahead. Waits for the disk, but not for long (R41).
  func storeTimestamps() {
    var remaining = 0
    for hop in 0..<count {
      guard let stamp = self[hop].tunnel.lastTimestamp else { continue }
      if self[hop].stamps.write(stamp) == nil { remaining += 1 }
    }
    let end = Clock.boottime().advanced(
      by: UInt64(Helper.exitMilliseconds) * nanosecondsPerMillisecond)
    while remaining > 0 {
      let left = Hops.milliseconds(until: end)
      if left == 0 { break }
      switch Helper.receive(milliseconds: left) {
      case .didStore(let stamp, _, let hop):
        // The reply to an earlier request may still arrive.
        if hop < count, self[hop].tunnel.lastTimestamp == stamp { remaining -= 1 }
      case .gone: return
      case .stored, .didDiscardOutput, .none: break
      }
    }
  }

  /// Rounded up; 0 if `end` has passed.
  private static func milliseconds(until end: Instant) -> Int32 {
    let now = Clock.boottime()
    guard now < end else { return 0 }
    return Int32(clamping: end.since(now) / nanosecondsPerMillisecond + 1)
  }
}
