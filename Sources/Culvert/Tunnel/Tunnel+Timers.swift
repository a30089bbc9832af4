/// What time brings: the control path's half of the tunnel. The shell calls `runTimers` when
/// `nextDeadline` has come, or after `accept` has queued handshake messages.
extension Tunnel {
  /// Handshake messages handled in one call: each costs up to four Diffie-Hellman products, and
  /// transport data waits for them.
  private static let handshakesPerCall = 16

  /// When `runTimers` has something to do; `never` for an idle tunnel, which therefore never wakes.
  public mutating func nextDeadline(at now: Instant) -> Deadline {
    guard isUp else { return .never }
    if !handshakeRing.isEmpty { return Deadline(now) }
    // The heap may hold times that have moved later since; they are put right at the top.
    while let top = schedule.top {
      let due = peers[Int(top.peer)].timers.next
      if due <= top.deadline { return due }
      schedule.replaceTop(due)
    }
    return .never
  }

  /// Handles queued handshake messages and due timers, and writes what they send to `batch`, which
  /// is empty and is sealed, sent and emitted like any other.
  ///
  /// - Parameter wall: for the timestamps in handshakes only.
  public mutating func runTimers(
    into batch: inout OutboundBatch, at now: Instant, wall: WallTime
  ) {
    stamp(&batch)
    guard isUp else { return }
    serveHandshakes(into: &batch, limit: Tunnel.handshakesPerCall, at: now)
    // Each peer once at most, so that one call ends whatever its timers do.
    var remaining = schedule.count
    while remaining > 0, let top = schedule.top, top.deadline.isDue(at: now),
      batch.room(for: Policy.ipv6MinimumMTU) != nil
    {
      let peer = peers + Int(top.peer)
      runTimers(of: peer, into: &batch, at: now, wall: wall)
      schedule.replaceTop(peer.pointee.timers.next)
      remaining &-= 1
    }
  }

  private mutating func runTimers(
    of peer: UnsafeMutablePointer<Peer>, into batch: inout OutboundBatch, at now: Instant,
    wall: WallTime
  ) {
    expireTimers(of: peer, into: &batch, at: now)
    if peer.pointee.timers.wantsInitiation {
      if batch.room(for: WireGuard.initiationByteCount) == nil { return }
      planInitiation(to: peer, in: &batch, at: now, wall: wall)
    }
    if peer.pointee.timers.wantsKeepalive {
      planKeepalive(to: peer, in: &batch, at: now)
    }
    if peer.pointee.timers.wantsFlush {
      planStaged(of: peer, in: &batch, at: now)
    }
    // A keepalive or a flush without a session asked for an initiation: the next call sends it.
  }

  // MARK: Expiries

  private mutating func expireTimers(
    of peer: UnsafeMutablePointer<Peer>, into batch: inout OutboundBatch, at now: Instant
  ) {
    // Each is read when its turn comes: one expiry may clear another.
    if peer.pointee.timers.retransmitHandshake.isDue(at: now) {
      forgetSource(of: peer)
      if peer.pointee.timers.retransmitExpired(at: now) == .giveUp {
        giveUp(on: peer, &batch, at: now)
      }
    }
    if peer.pointee.timers.newHandshake.isDue(at: now) {
      forgetSource(of: peer)
      peer.pointee.timers.newHandshakeExpired(at: now)
    }
    if peer.pointee.timers.sendKeepalive.isDue(at: now) {
      peer.pointee.timers.keepaliveExpired(at: now)
    }
    if peer.pointee.timers.persistentKeepalive.isDue(at: now) {
      peer.pointee.timers.persistentKeepaliveExpired(at: now)
    }
    if peer.pointee.timers.zeroKeys.isDue(at: now) {
      peer.pointee.timers.zeroKeysExpired()
      events.append(.keysWiped, peer.pointee.publicKey)
      resetHandshake(peer)
      eraseKeypairs(peer)
    }
  }

  /// The peer does not answer: perhaps because our local address is no longer the right one.
  private func forgetSource(of peer: UnsafeMutablePointer<Peer>) {
    if let path = peer.pointee.path { peer.pointee.path = Path(to: path.endpoint) }
  }

  /// No answer to any try.
  private mutating func giveUp(
    on peer: UnsafeMutablePointer<Peer>, _ batch: inout OutboundBatch, at now: Instant
  ) {
    events.append(.handshakeGivenUp, peer.pointee.publicKey)
    resetHandshake(peer)
    answerStaged(of: peer, &batch, at: now)
  }

  /// What is staged will find no session: it is answered with ICMP, so that programs need not wait
  /// for their own time-outs.
  mutating func answerStaged(
    of peer: UnsafeMutablePointer<Peer>, _ batch: inout OutboundBatch, at now: Instant
  ) {
    while let byteCount = peer.pointee.staged.oldestByteCount(in: stagingPool) {
      counters.add(.peerUnreachable)
      guard byteCount > 0, let room = batch.room(for: byteCount) else {
        peer.pointee.staged.dropOldest(from: stagingPool)
        continue
      }
      peer.pointee.staged.pop(into: room.baseAddress!, from: stagingPool)
      let index = batch.append(byteCount: byteCount, kind: .dropped)
      answerUnreachable(&batch, index, at: now)
    }
  }

  // MARK: Wishes

  /// A keepalive is an empty packet. Staged packets say the same and go instead.
  private mutating func planKeepalive(
    to peer: UnsafeMutablePointer<Peer>, in batch: inout OutboundBatch, at now: Instant
  ) {
    guard peer.pointee.staged.isEmpty else {
      peer.pointee.timers.clearKeepaliveWish()
      peer.pointee.timers.wantFlush(at: now)
      return
    }
    guard peer.pointee.path != nil else {
      peer.pointee.timers.clearKeepaliveWish()
      return
    }
    guard peer.pointee.keypairs.current.canSend(at: now) else {
      peer.pointee.timers.clearKeepaliveWish()
      _ = stage(peer, noise.plaintext, byteCount: 0, at: now)
      return
    }
    guard batch.room(for: 0) != nil else { return }
    peer.pointee.timers.clearKeepaliveWish()
    planText(&batch, batch.append(byteCount: 0, kind: .text), for: peer, trafficClass: 0)
  }

  /// Moves staged packets into the batch, as many as fit.
  private mutating func planStaged(
    of peer: UnsafeMutablePointer<Peer>, in batch: inout OutboundBatch, at now: Instant
  ) {
    while let byteCount = peer.pointee.staged.oldestByteCount(in: stagingPool) {
      guard peer.pointee.path != nil else {
        peer.pointee.staged.dropAll(from: stagingPool)
        break
      }
      guard peer.pointee.keypairs.current.canSend(at: now) else {
        peer.pointee.timers.clearFlushWish()
        peer.pointee.timers.wantInitiation(at: now)
        return
      }
      guard let room = batch.room(for: byteCount) else { return }
      peer.pointee.staged.pop(into: room.baseAddress!, from: stagingPool)
      let trafficClass =
        InnerPacket(at: room.baseAddress!, byteCount: byteCount)?.trafficClass ?? 0
      planText(
        &batch, batch.append(byteCount: byteCount, kind: .text), for: peer,
        trafficClass: ECN.encapsulate(trafficClass))
    }
    peer.pointee.timers.clearFlushWish()
  }
}
