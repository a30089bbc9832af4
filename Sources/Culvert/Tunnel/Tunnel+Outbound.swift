/// From the TUN to the network: the two steps of the outbound lane that need the tunnel.
extension Tunnel {
  // MARK: plan

  /// Routes each packet of the batch, reserves its counter and copies its key into the batch.
  /// Packets without a session are staged and a handshake is asked for; packets without a peer
  /// become ICMP errors, in place.
  public mutating func plan(_ batch: inout OutboundBatch, at now: Instant) {
    begin(&batch)
    for index in 0..<batch.count where batch.packets[index].kind == .unplanned {
      let verdict = plan(&batch, index, at: now)
      if verdict != .sent {
        counters.add(verdict)
        if batch.packets[index].kind == .unplanned { batch.packets[index].kind = .dropped }
      }
    }
  }

  /// Gives this filling of the batch a number of its own, and what `seal` goes by.
  mutating func begin(_ batch: inout OutboundBatch) {
    batchSerial &+= 1
    batch.serial = batchSerial
    batch.cipher = cipher
    batch.mtu = mtu
  }

  /// `.sent` stands for "will be sealed"; `emit` counts what was really sent.
  private mutating func plan(
    _ batch: inout OutboundBatch, _ index: Int, at now: Instant
  ) -> Verdict {
    let text = batch.text(index)
    let byteCount = Int(batch.packets[index].byteCount)
    let offload = batch.packets[index].offload
    var segmentCount = 1
    var largest = byteCount
    if !offload.isNone {
      guard let segmenter = batch.segmenter(index) else { return .malformedInner }
      segmentCount = segmenter.segmentCount
      largest = segmenter.byteCount(0)
    }
    // The interface's MTU is its owner's; what a datagram can carry is not (R33).
    guard largest <= limits.maximumMTU else { return .tooLarge }
    guard let inner = InnerPacket(at: text, byteCount: byteCount) else { return .malformedInner }
    guard let route = allowedIPs.route(inner.destination) else {
      finishFirstSegment(&batch, index)
      answerUnreachable(&batch, index, at: now)
      return .noPeerForDestination
    }
    let peer = peers + Int(route)
    guard peer.pointee.path != nil else {
      finishFirstSegment(&batch, index)
      answerUnreachable(&batch, index, at: now)
      return .noEndpoint
    }
    // Staged packets go first, or the flow would be reordered.
    guard peer.pointee.keypairs.current.canSend(segmentCount, at: now),
      peer.pointee.staged.isEmpty
    else { return stage(peer, &batch, index, at: now) }
    planText(
      &batch, index, for: peer, trafficClass: ECN.encapsulate(inner.trafficClass),
      segmentCount: segmentCount)
    return .sent
  }

  /// Marks a packet for sealing in `peer`'s current session, which can send.
  func planText(
    _ batch: inout OutboundBatch, _ index: Int, for peer: UnsafeMutablePointer<Peer>,
    trafficClass: UInt8, segmentCount: Int = 1
  ) {
    if peer.pointee.outboundSerial != batch.serial {
      var session = BatchSession(
        peer: peer.pointee.id, receiver: peer.pointee.keypairs.current.remoteIndex,
        path: peer.pointee.path!)
      session.segmentLimit = peer.pointee.segmentLimit
      peer.pointee.outboundSerial = batch.serial
      peer.pointee.outboundSession = batch.sessions.append(
        session, key: peer.pointee.keypairs.current.sendingKey)
    }
    let packet = batch.packets.baseAddress! + index
    packet.pointee.kind = .text
    packet.pointee.session = peer.pointee.outboundSession
    packet.pointee.counter = peer.pointee.keypairs.reserveCounters(segmentCount)
    packet.pointee.trafficClass = trafficClass
  }

  /// What an ICMP error quotes of a packet whose segments or checksum the kernel left to us: its
  /// first segment, finished.
  private func finishFirstSegment(_ batch: inout OutboundBatch, _ index: Int) {
    let packet = batch.packets.baseAddress! + index
    guard !packet.pointee.offload.isNone, var segmenter = batch.segmenter(index) else { return }
    _ = segmenter.cut(0)
    packet.pointee.byteCount = UInt32(truncatingIfNeeded: segmenter.byteCount(0))
  }

  /// Stages a packet, each of its segments as a packet of its own.
  private mutating func stage(
    _ peer: UnsafeMutablePointer<Peer>, _ batch: inout OutboundBatch, _ index: Int,
    at now: Instant
  ) -> Verdict {
    let packet = batch.packets[index]
    guard !packet.offload.isNone, var segmenter = batch.segmenter(index) else {
      return stage(peer, batch.text(index), byteCount: Int(packet.byteCount), at: now)
    }
    var verdict = Verdict.staged
    for segment in 0..<segmenter.segmentCount {
      if segment > 0 { counters.add(verdict) }
      let byteCount = segmenter.byteCount(segment)
      verdict = stage(peer, segmenter.cut(segment), byteCount: byteCount, at: now)
    }
    return verdict
  }

  /// Keeps a packet until there is a session, and sees to it that there will be one.
  mutating func stage(
    _ peer: UnsafeMutablePointer<Peer>, _ packet: UnsafeRawPointer, byteCount: Int,
    at now: Instant
  ) -> Verdict {
    let needed = StagedPackets.slots(for: byteCount)
    // Two limits, packets and slots. The second leaves room for one packet of any size.
    let slotLimit = max(
      limits.stagedPacketsPerPeer, StagedPackets.slots(for: limits.maximumMTU))
    while peer.pointee.staged.packetCount >= limits.stagedPacketsPerPeer
      || (peer.pointee.staged.heldSlots + needed > slotLimit && !peer.pointee.staged.isEmpty)
    {
      peer.pointee.staged.dropOldest(from: stagingPool)
      counters.add(.droppedFromStaging)
    }
    let isStaged = peer.pointee.staged.push(packet, byteCount: byteCount, into: stagingPool)
    if peer.pointee.keypairs.current.canSend(at: now) {
      peer.pointee.timers.wantFlush(at: now)
    } else {
      peer.pointee.timers.wantInitiation(at: now)
    }
    reschedule(peer)
    return isStaged ? .staged : .droppedFromStaging
  }

  /// Turns a packet that cannot be sent into the ICMP error that says so: host unreachable, as
  /// the kernel's WireGuard answers.
  mutating func answerUnreachable(_ batch: inout OutboundBatch, _ index: Int, at now: Instant) {
    let packet = batch.packets.baseAddress! + index
    packet.pointee.kind = .dropped
    // Around a packet that stands elsewhere there is no room for an error, and nobody to read it.
    guard batch.holds(packet.pointee.start), icmpBudget.allow(at: now) else { return }
    let buffer = packet.pointee.start - BatchLayout.headroom
    guard
      let error = ICMPError.write(
        .hostUnreachable, in: buffer, packetByteOffset: BatchLayout.headroom,
        packetByteCount: Int(packet.pointee.byteCount))
    else { return }
    packet.pointee.start = buffer + error.byteOffset
    packet.pointee.byteCount = UInt32(truncatingIfNeeded: error.byteCount)
    packet.pointee.kind = .reply
  }

  // MARK: emit

  /// Counts what was sent and moves the timers.
  public mutating func emit(_ batch: inout OutboundBatch, at now: Instant) {
    batch.tally()
    batch.outputs.reset()
    for index in 0..<batch.sessions.count {
      settle(batch.sessions[UInt16(truncatingIfNeeded: index)].pointee, at: now)
    }
  }

  /// Timers of one session that a batch has sent on.
  private mutating func settle(_ session: BatchSession, at now: Instant) {
    guard session.didTry else { return }
    counters.add(.sent, UInt64(session.sentCount))
    counters.add(.sendFailed, UInt64(session.failedCount))
    guard let peer = peer(session.peer) else { return }
    peer.pointee.sentByteCount &+= session.sentByteCount
    if peer.pointee.path?.endpoint == session.path.endpoint {
      if session.didLoseSource { peer.pointee.path = session.path }
      if session.didRefuseSegments, session.segmentLimit < peer.pointee.segmentLimit {
        peer.pointee.segmentLimit = session.segmentLimit
        events.append(.segmentsRefused, peer.pointee.publicKey)
      }
    }
    // With several workers an answer may have been delivered since the batch set out. It has
    // already set right what these timers would wait for.
    let isAnswered = peer.pointee.lastReceived.map { $0 > now } ?? false
    if !isAnswered { peer.pointee.timers.anyAuthenticatedPacketSent() }
    peer.pointee.timers.anyAuthenticatedPacketTraversal(at: now)
    // Randomness costs a system call: only where the timer is not running yet.
    if session.didSendData, !isAnswered, !peer.pointee.timers.newHandshake.isSet {
      peer.pointee.timers.dataSent(at: now, jitter: jitter())
    }
    // An initiation is no use of the session: counted as one, each retry would start the tries
    // anew (R17).
    if session.didSendTransport, peer.pointee.keypairs.current.exists,
      peer.pointee.keypairs.current.isStaleForSending(at: now)
    {
      peer.pointee.timers.wantInitiation(at: now)
    }
    reschedule(peer)
  }
}
