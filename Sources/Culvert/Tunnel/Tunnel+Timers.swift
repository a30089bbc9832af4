/// What the tunnel does without new packets: it processes queued handshake messages and due timers.
extension Tunnel {
  /// When `runTimers` must be called next. `never` for an idle tunnel, so that nothing wakes it up.
  public mutating func nextDeadline(at now: Instant) -> Deadline {
    guard isUp else { return .never }
    let handshakes = handshakeDeadline(at: now)
    if handshakes.isDue(at: now) { return handshakes }
    // The heap may hold outdated, earlier times. They are corrected when they reach the top.
    while let top = schedule.top {
      let due = peers[top.peer].timers.next
      if due <= top.deadline { return min(due, handshakes) }
      schedule.replaceTop(due)
    }
    return handshakes
  }

  /// Processes queued handshake messages and due timers. The shell calls it at `nextDeadline`, and
  /// after `accept` has queued handshake messages.
  ///
  /// - Parameters:
  ///   - batch: an empty batch. It receives the messages to send, already planned. The shell seals,
  ///     sends and emits it like any other batch.
  ///   - wall: the wall-clock time, only used for the timestamps in handshakes.
  public mutating func runTimers(
    into batch: inout OutboundBatch, at now: Instant, wall: WallTime
  ) {
    stamp(&batch)
    guard isUp else { return }
    let peers = peers
    serveHandshakes(into: &batch, at: now)
    // At most as many rounds as there are peers, so that the call ends even if timers are due again
    // at once.
    var remaining = min(schedule.count, Policy.peersPerTurn)
    while remaining > 0, let top = schedule.top, top.deadline.isDue(at: now),
      batch.room(for: Policy.ipv6MinimumMTU) != nil
    {
      runTimers(of: &peers[top.peer], into: &batch, at: now)
      schedule.replaceTop(peers[top.peer].timers.next)
      remaining &-= 1
    }
    sendInitiations(into: &batch, at: now, wall: wall)
  }

  private mutating func runTimers(
    of peer: inout Peer, into batch: inout OutboundBatch, at now: Instant
  ) {
    expireTimers(of: &peer, into: &batch, at: now)
    if peer.timers.wantsKeepalive { planKeepalive(to: &peer, in: &batch, at: now) }
    if peer.timers.wantsFlush { planStaged(of: &peer, in: &batch, at: now) }
    // Also if there was no session for a keepalive or staged packets. The next turn sends it.
    if peer.timers.wantsInitiation {
      initiations.lower(peer.id.index, to: Deadline(now))
      peer.timers.initiationQueued()
    }
  }

  /// Sends initiations that are due, a few per turn (R47). Thousands may be due at the same time,
  /// each takes two Diffie-Hellman computations, and packets of other peers must not wait for them.
  private mutating func sendInitiations(
    into batch: inout OutboundBatch, at now: Instant, wall: WallTime
  ) {
    let peers = peers
    for _ in 0..<Policy.handshakesPerTurn {
      guard let top = initiations.top, batch.room(for: WireGuard.initiationByteCount) != nil
      else { return }
      initiations.remove(top.peer)
      // It may have become needless since.
      guard peers[top.peer].timers.wantsInitiation else { continue }
      planInitiation(to: &peers[top.peer], in: &batch, at: now, wall: wall)
      reschedule(&peers[top.peer])
    }
  }

  // MARK: Expiries

  private mutating func expireTimers(
    of peer: inout Peer, into batch: inout OutboundBatch, at now: Instant
  ) {
    // Each timer is read only when its turn comes, because one expiry may clear another timer.
    if peer.timers.retransmitHandshake.isDue(at: now) {
      peer.forgetSource()
      if peer.timers.retransmitExpired(at: now) == .giveUp {
        giveUp(on: &peer, &batch, at: now)
      }
    }
    if peer.timers.newHandshake.isDue(at: now) {
      peer.forgetSource()
      peer.timers.newHandshakeExpired(at: now)
    }
    if peer.timers.postponedInitiation.isDue(at: now) {
      peer.timers.postponedInitiationExpired()
      if !peer.staged.isEmpty { requestSession(with: &peer, at: now) }
    }
    if peer.timers.sendKeepalive.isDue(at: now) { peer.timers.keepaliveExpired(at: now) }
    if peer.timers.persistentKeepalive.isDue(at: now) {
      peer.timers.persistentKeepaliveExpired(at: now)
    }
    if peer.timers.zeroKeys.isDue(at: now) {
      peer.timers.zeroKeysExpired()
      events.append(.keysWiped, peer.publicKey)
      resetHandshake(&peer)
      eraseKeypairs(&peer)
    }
  }

  /// Ends the handshake after the last attempt went unanswered.
  private mutating func giveUp(
    on peer: inout Peer, _ batch: inout OutboundBatch, at now: Instant
  ) {
    events.append(.handshakeGivenUp, peer.publicKey)
    resetHandshake(&peer)
    answerStaged(of: &peer, &batch, at: now)
  }

  /// Answers each staged packet with an ICMP error, because there will be no session for it. This
  /// way programs do not have to wait for their own timeouts.
  mutating func answerStaged(
    of peer: inout Peer, _ batch: inout OutboundBatch, at now: Instant
  ) {
    defer { noteStaged(peer) }
    while let byteCount = peer.staged.oldestByteCount(in: stagingPool) {
      counters.add(.peerUnreachable)
      guard byteCount > 0, let room = batch.room(for: byteCount) else {
        peer.staged.dropOldest(from: stagingPool)
        continue
      }
      peer.staged.pop(into: room.baseAddress!, from: stagingPool)
      let index = batch.append(byteCount: byteCount, kind: .dropped)
      answerUnreachable(&batch, index, at: now)
    }
  }

  // MARK: Requests

  /// Plans a keepalive, which is an empty packet. If packets are staged, they are sent instead.
  private mutating func planKeepalive(
    to peer: inout Peer, in batch: inout OutboundBatch, at now: Instant
  ) {
    guard peer.staged.isEmpty else {
      peer.timers.clearKeepaliveWish()
      peer.timers.wantFlush(at: now)
      return
    }
    guard peer.path != nil else {
      peer.timers.clearKeepaliveWish()
      return
    }
    guard peer.keypairs.current.canSend(at: now) else {
      peer.timers.clearKeepaliveWish()
      _ = stage(noise.plaintext, byteCount: 0, for: &peer, at: now)
      return
    }
    guard batch.room(for: 0) != nil else { return }
    peer.timers.clearKeepaliveWish()
    planText(
      &batch, batch.append(byteCount: 0, kind: .text), for: &peer, trafficClass: 0, at: now)
  }

  /// Moves staged packets into the batch, as many as fit.
  private mutating func planStaged(
    of peer: inout Peer, in batch: inout OutboundBatch, at now: Instant
  ) {
    defer { noteStaged(peer) }
    while let byteCount = peer.staged.oldestByteCount(in: stagingPool) {
      guard peer.path != nil else {
        dropStaged(of: &peer)
        break
      }
      guard peer.keypairs.current.canSend(at: now) else {
        peer.timers.clearFlushWish()
        requestSession(with: &peer, at: now)
        return
      }
      guard let room = batch.room(for: byteCount) else { return }
      peer.staged.pop(into: room.baseAddress!, from: stagingPool)
      let trafficClass =
        InnerPacket(at: room.baseAddress!, byteCount: byteCount)?.trafficClass ?? 0
      planText(
        &batch, batch.append(byteCount: byteCount, kind: .text), for: &peer,
        trafficClass: ECN.encapsulate(trafficClass), at: now)
    }
    peer.timers.clearFlushWish()
  }
}
