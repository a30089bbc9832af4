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

  /// Gives this filling of the batch a number of its own.
  mutating func begin(_ batch: inout OutboundBatch) {
    batchSerial &+= 1
    batch.serial = batchSerial
  }

  /// `.sent` stands for "will be sealed"; `emit` counts what was really sent.
  private mutating func plan(
    _ batch: inout OutboundBatch, _ index: Int, at now: Instant
  ) -> Verdict {
    let text = batch.text(index)
    let byteCount = Int(batch.packets[index].byteCount)
    // The interface's MTU is its owner's; what a datagram can carry is not (R33).
    guard byteCount <= limits.maximumMTU else { return .tooLarge }
    guard let inner = InnerPacket(at: text, byteCount: byteCount) else { return .malformedInner }
    guard let route = allowedIPs.route(inner.destination) else {
      answerUnreachable(&batch, index, at: now)
      return .noPeerForDestination
    }
    let peer = peers + Int(route)
    guard peer.pointee.path != nil else {
      answerUnreachable(&batch, index, at: now)
      return .noEndpoint
    }
    // Staged packets go first, or the flow would be reordered.
    guard peer.pointee.keypairs.current.canSend(at: now), peer.pointee.staged.isEmpty else {
      return stage(peer, text, byteCount: byteCount, at: now)
    }
    planText(
      &batch, index, for: peer, trafficClass: ECN.encapsulate(inner.trafficClass))
    return .sent
  }

  /// Marks a packet for sealing in `peer`'s current session, which can send.
  func planText(
    _ batch: inout OutboundBatch, _ index: Int, for peer: UnsafeMutablePointer<Peer>,
    trafficClass: UInt8
  ) {
    if peer.pointee.outboundSerial != batch.serial {
      peer.pointee.outboundSerial = batch.serial
      peer.pointee.outboundSession = batch.sessions.append(
        BatchSession(
          peer: peer.pointee.id, receiver: peer.pointee.keypairs.current.remoteIndex,
          path: peer.pointee.path!),
        key: peer.pointee.keypairs.current.sendingKey)
    }
    let packet = batch.packets.baseAddress! + index
    packet.pointee.kind = .text
    packet.pointee.session = peer.pointee.outboundSession
    packet.pointee.counter = peer.pointee.keypairs.reserveCounter()
    packet.pointee.trafficClass = trafficClass
    packet.pointee.paddedByteCount = UInt32(
      truncatingIfNeeded: paddedByteCount(Int(packet.pointee.byteCount)))
  }

  /// Zero-padding to 16 bytes, but never beyond the MTU (R7; whitepaper 5.4.6).
  func paddedByteCount(_ byteCount: Int) -> Int {
    let padded = roundUp(byteCount, to: WireGuard.paddingByteCount)
    return mtu > 0 ? max(byteCount, min(padded, mtu)) : padded
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
    guard icmpBudget.allow(at: now) else { return }
    guard
      let error = ICMPError.write(
        .hostUnreachable, in: batch.bytes.baseAddress!,
        packetByteOffset: Int(packet.pointee.offset),
        packetByteCount: Int(packet.pointee.byteCount))
    else { return }
    packet.pointee.offset = UInt32(truncatingIfNeeded: error.byteOffset)
    packet.pointee.byteCount = UInt32(truncatingIfNeeded: error.byteCount)
    packet.pointee.kind = .reply
  }

  // MARK: emit

  /// Counts what was sent and moves the timers.
  public mutating func emit(_ batch: inout OutboundBatch, at now: Instant) {
    for index in 0..<batch.count {
      let packet = batch.packets[index]
      let wireByteCount: UInt32
      switch packet.kind {
      case .sealed:
        wireByteCount = packet.paddedByteCount &+ UInt32(WireGuard.overheadByteCount)
      case .message: wireByteCount = packet.byteCount
      case .failed:
        counters.add(.sendFailed)
        batch.sessions[packet.session].pointee.didTry = true
        continue
      case .unplanned, .text, .reply, .dropped: continue
      }
      counters.add(.sent)
      let session = batch.sessions[packet.session]
      session.pointee.didTry = true
      if packet.kind == .sealed {
        session.pointee.didSendTransport = true
        if packet.byteCount > 0 { session.pointee.didSendData = true }
      }
      if let peer = peer(session.pointee.peer) {
        peer.pointee.sentByteCount &+= UInt64(wireByteCount)
      }
    }
    for index in 0..<batch.sessions.count {
      settle(batch.sessions[UInt16(truncatingIfNeeded: index)].pointee, at: now)
    }
  }

  /// Timers of one session that a batch has sent on.
  private mutating func settle(_ session: BatchSession, at now: Instant) {
    guard session.didTry, let peer = peer(session.peer) else { return }
    if session.didLoseSource, peer.pointee.path?.endpoint == session.path.endpoint {
      peer.pointee.path = session.path
    }
    peer.pointee.timers.anyAuthenticatedPacketSent()
    peer.pointee.timers.anyAuthenticatedPacketTraversal(at: now)
    // Randomness costs a system call: only where the timer is not running yet.
    if session.didSendData, !peer.pointee.timers.newHandshake.isSet {
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
