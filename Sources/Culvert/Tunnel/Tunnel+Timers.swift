/// What the tunnel does without new packets: it processes queued handshake messages and due timers.
extension Tunnel {
  /// The limit of handshake messages processed in one call. Each takes up to four Diffie-Hellman
  /// computations, and transport data has to wait for them.
  private static let handshakesPerCall = 16

  /// When `runTimers` must be called next. `never` for an idle tunnel, so that nothing wakes it up.
  public mutating func nextDeadline(at now: Instant) -> Deadline {
    guard isUp else { return .never }
    if !handshakeRing.isEmpty { return Deadline(now) }
    // The heap may hold outdated, earlier times. They are corrected when they reach the top.
    while let top = schedule.top {
      let due = peers[top.peer].timers.next
      if due <= top.deadline { return due }
      schedule.replaceTop(due)
    }
    return .never
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
    serveHandshakes(into: &batch, limit: Tunnel.handshakesPerCall, at: now)
    // At most as many rounds as there are peers, so that the call ends even if timers are due again
    // at once.
    var remaining = schedule.count
    while remaining > 0, let top = schedule.top, top.deadline.isDue(at: now),
      batch.room(for: Policy.ipv6MinimumMTU) != nil
    {
      runTimers(of: &peers[top.peer], into: &batch, at: now, wall: wall)
      schedule.replaceTop(peers[top.peer].timers.next)
      remaining &-= 1
    }
  }

  private mutating func runTimers(
    of peer: inout Peer, into batch: inout OutboundBatch, at now: Instant, wall: WallTime
  ) {
    expireTimers(of: &peer, into: &batch, at: now)
    if peer.timers.wantsInitiation {
      if batch.room(for: WireGuard.initiationByteCount) == nil { return }
      planInitiation(to: &peer, in: &batch, at: now, wall: wall)
    }
    if peer.timers.wantsKeepalive { planKeepalive(to: &peer, in: &batch, at: now) }
    if peer.timers.wantsFlush { planStaged(of: &peer, in: &batch, at: now) }
    // If there was no session for a keepalive or staged packets, an initiation has been requested.
    // The next round or call sends it.
  }

  // MARK: Expiries

  private mutating func expireTimers(
    of peer: inout Peer, into batch: inout OutboundBatch, at now: Instant
  ) {
    // Each timer is read only when its turn comes, because one expiry may clear another timer.
    if peer.timers.retransmitHandshake.isDue(at: now) {
      forgetSource(of: &peer)
      if peer.timers.retransmitExpired(at: now) == .giveUp {
        giveUp(on: &peer, &batch, at: now)
      }
    }
    if peer.timers.newHandshake.isDue(at: now) {
      forgetSource(of: &peer)
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

  /// Forgets the local address to send from. The peer does not answer, perhaps because this address
  /// is no longer valid.
  private func forgetSource(of peer: inout Peer) {
    if let path = peer.path { peer.path = Path(to: path.endpoint) }
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
    planText(&batch, batch.append(byteCount: 0, kind: .text), for: &peer, trafficClass: 0)
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
        trafficClass: ECN.encapsulate(trafficClass))
    }
    peer.timers.clearFlushWish()
  }
}
