/// From the TUN to the network: the two steps of the outbound lane that need the tunnel.
extension Tunnel {
  // MARK: plan

  /// Routes each packet of the batch, reserves its counter and copies its key into the batch. If
  /// the peer has no session, the packet is staged and a handshake is requested. If there is no
  /// peer or no endpoint, an ICMP error replaces the packet in place.
  public mutating func plan(_ batch: inout OutboundBatch, at now: Instant) {
    stamp(&batch)
    for index in 0..<batch.count where batch.packets[index].kind == .unplanned {
      let verdict = plan(&batch, index, at: now)
      if verdict != .sent {
        counters.add(verdict)
        if batch.packets[index].kind == .unplanned { batch.packets[index].kind = .dropped }
      }
    }
  }

  /// Gives the contents of the batch a serial number, and copies the settings that `seal` needs.
  mutating func stamp(_ batch: inout OutboundBatch) {
    batchSerial &+= 1
    batch.serial = batchSerial
    batch.cipher = cipher
    batch.mtu = mtu
  }

  /// - Returns: `.sent` for a packet that will be sealed. `emit` counts the packets actually sent.
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
    // The kernel enforces the interface's MTU. This limit is the capacity of one datagram (R33).
    guard largest <= limits.maximumMTU else { return .tooLarge }
    guard let inner = InnerPacket(at: text, byteCount: byteCount) else { return .malformedInner }
    guard let route = allowedIPs.route(inner.destination) else {
      finishFirstSegment(&batch, index)
      answerUnreachable(&batch, index, at: now)
      return .noPeerForDestination
    }
    let peers = peers
    guard peers[route].path != nil else {
      finishFirstSegment(&batch, index)
      answerUnreachable(&batch, index, at: now)
      return .noEndpoint
    }
    if isOwnDatagram(text, inner, to: peers[route]) {
      noteLoop(to: &peers[route])
      return .routingLoop
    }
    // While packets are staged, later ones are staged too, otherwise the flow would be reordered.
    guard peers[route].keypairs.current.canSend(segmentCount, at: now),
      peers[route].staged.isEmpty
    else { return stage(&batch, index, for: &peers[route], at: now) }
    planText(
      &batch, index, for: &peers[route], trafficClass: ECN.encapsulate(inner.trafficClass),
      segmentCount: segmentCount, at: now)
    return .sent
  }

  // MARK: Loops

  /// Whether a packet is a datagram of this tunnel to `peer`, which the routing table has led back
  /// into the tunnel (R66). The receiver or sender index is compared, so that another host's
  /// WireGuard may use the same endpoint through this tunnel.
  private func isOwnDatagram(
    _ packet: UnsafeMutableRawPointer, _ inner: InnerPacket, to peer: borrowing Peer
  ) -> Bool {
    guard let endpoint = peer.path?.endpoint, inner.destination == endpoint.address,
      let start = inner.datagramByteOffset(at: packet)
    else { return false }
    let message = packet + start + UDPHeader.byteCount
    // The type and an index: the first eight bytes of each message.
    guard inner.byteCount &- start >= UDPHeader.byteCount &+ 8,
      packet.loadBig(start &+ 2, as: UInt16.self) == endpoint.port
    else { return false }
    let index = message.loadLittle(4, as: UInt32.self)
    switch message.loadLittle(0, as: UInt32.self) {
    case UInt32(MessageType.transportData.rawValue):
      return peer.keypairs.isRemoteIndex(index)
    case UInt32(MessageType.initiation.rawValue), UInt32(MessageType.response.rawValue):
      return indices.find(index)?.peer == peer.id
    default: return false
    }
  }

  /// Drops the packets of a batch that are datagrams of this tunnel, for the outermost of nested
  /// tunnels: the routing table has led them into the innermost (R66). Call it before the innermost
  /// tunnel plans the batch.
  public mutating func dropOwnDatagrams(of batch: inout OutboundBatch) {
    for index in 0..<batch.count where batch.packets[index].kind == .unplanned {
      let text = batch.text(index)
      guard let inner = InnerPacket(at: text, byteCount: Int(batch.packets[index].byteCount)),
        let id = sender(of: text, inner)
      else { continue }
      let peers = peers
      noteLoop(to: &peers[id])
      counters.add(.routingLoop)
      batch.packets[index].kind = .dropped
    }
  }

  /// The peer to which this tunnel has sent a datagram. Looks at a few peers only, because an
  /// outermost tunnel rarely has more than one.
  private func sender(of packet: UnsafeMutableRawPointer, _ inner: InnerPacket) -> PeerID? {
    var next = peerTable.firstPeer
    for _ in 0..<Policy.outermostPeers {
      guard let id = next else { return nil }
      let peers = peers
      if isOwnDatagram(packet, inner, to: peers[id]) { return id }
      next = peerTable.peer(after: id)
    }
    return nil
  }

  /// Logs a loop once for each session and endpoint.
  private mutating func noteLoop(to peer: inout Peer) {
    guard !peer.isLooping else { return }
    peer.isLooping = true
    events.append(.routingLoop, peer.publicKey)
  }

  /// Marks a packet for sealing in `peer`'s current session. The caller has checked `canSend`.
  func planText(
    _ batch: inout OutboundBatch, _ index: Int, for peer: inout Peer, trafficClass: UInt8,
    segmentCount: Int = 1, at now: Instant
  ) {
    if peer.outboundSerial != batch.serial {
      var session = BatchSession(
        peer: peer.id, receiver: peer.keypairs.current.remoteIndex, path: peer.path!)
      peer.retrySegments(at: now)
      session.segmentLimit = peer.segmentLimit
      peer.outboundSerial = batch.serial
      peer.outboundSession = batch.sessions.append(
        session, key: peer.keypairs.current.sendingKey)
    }
    batch.packets[index].kind = .text
    batch.packets[index].session = peer.outboundSession
    batch.packets[index].counter = peer.keypairs.reserveCounters(segmentCount)
    batch.packets[index].trafficClass = trafficClass
  }

  /// Cuts the first segment of a packet whose segmentation or checksum the kernel left to us,
  /// because an ICMP error quotes a complete packet.
  private func finishFirstSegment(_ batch: inout OutboundBatch, _ index: Int) {
    guard !batch.packets[index].offload.isNone, var segmenter = batch.segmenter(index) else {
      return
    }
    _ = segmenter.cut(0)
    batch.packets[index].byteCount = UInt32(truncatingIfNeeded: segmenter.byteCount(0))
  }

  /// Stages a packet. A packet with segments is staged as separate packets, one for each segment.
  private mutating func stage(
    _ batch: inout OutboundBatch, _ index: Int, for peer: inout Peer, at now: Instant
  ) -> Verdict {
    let packet = batch.packets[index]
    guard !packet.offload.isNone, var segmenter = batch.segmenter(index) else {
      return stage(packet.start, byteCount: Int(packet.byteCount), for: &peer, at: now)
    }
    var verdict = Verdict.staged
    for segment in 0..<segmenter.segmentCount {
      if segment > 0 { counters.add(verdict) }
      let byteCount = segmenter.byteCount(segment)
      verdict = stage(segmenter.cut(segment), byteCount: byteCount, for: &peer, at: now)
    }
    return verdict
  }

  /// Stages a packet until it can be sent, and requests a handshake if there is no session.
  mutating func stage(
    _ packet: UnsafeRawPointer, byteCount: Int, for peer: inout Peer, at now: Instant
  ) -> Verdict {
    let needed = StagedPackets.slots(for: byteCount)
    // Packets and slots are both limited. The slot limit always allows one packet of any size.
    let slotLimit = StagingShares.slotLimit(limits)
    while peer.staged.packetCount >= limits.stagedPacketsPerPeer
      || (peer.staged.heldSlots + needed > slotLimit && !peer.staged.isEmpty)
    {
      dropOldestStaged(of: &peer)
    }
    makeStagingRoom(for: needed, &peer)
    let isStaged = peer.staged.push(packet, byteCount: byteCount, into: stagingPool)
    noteStaged(peer)
    if peer.keypairs.current.canSend(at: now) {
      peer.timers.wantFlush(at: now)
    } else {
      requestSession(with: &peer, at: now)
    }
    reschedule(&peer)
    return isStaged ? .staged : .droppedFromStaging
  }

  /// Requests an initiation for staged packets. If it is too early for one, because a response was
  /// just sent or an initiation just failed, a timer requests it later, so that no packet waits
  /// without one. Without a private key there is no timer: `setPrivateKey` sends what waits.
  mutating func requestSession(with peer: inout Peer, at now: Instant) {
    peer.timers.wantInitiation(at: now)
    guard identity.isSet, !peer.timers.isInitiating, !peer.timers.postponedInitiation.isSet else {
      return
    }
    peer.timers.postponeInitiation(by: entropy.below(Policy.overruledInitiationDelay))
  }

  // MARK: Staging slots

  /// Frees slots, if the pool has fewer than `needed`, by dropping the oldest packets of the peers
  /// that hold the most. Otherwise a few silent peers could keep all slots (R52). Each round drops
  /// a packet, so there are at most `needed` rounds.
  private mutating func makeStagingRoom(for needed: Int, _ peer: inout Peer) {
    guard needed <= limits.stagingSlots else { return }
    let peers = peers
    while stagingPool.freeCount < needed, let place = stagingShares.largest {
      if place == peer.id.index {
        dropOldestStaged(of: &peer)
      } else {
        dropOldestStaged(of: &peers[place])
      }
    }
  }

  private mutating func dropOldestStaged(of peer: inout Peer) {
    peer.staged.dropOldest(from: stagingPool)
    counters.add(.droppedFromStaging)
    noteStaged(peer)
  }

  /// Drops all packets that are staged for a peer.
  mutating func dropStaged(of peer: inout Peer) {
    counters.add(.droppedFromStaging, UInt64(peer.staged.packetCount))
    peer.staged.dropAll(from: stagingPool)
    noteStaged(peer)
  }

  /// Must be called after each change of the packets that are staged for a peer.
  @inline(__always)
  mutating func noteStaged(_ peer: borrowing Peer) {
    stagingShares.set(peer.id.index, peer.staged.heldSlots)
  }

  /// Replaces a packet that cannot be sent by the ICMP error "host unreachable", as the kernel's
  /// WireGuard does.
  mutating func answerUnreachable(_ batch: inout OutboundBatch, _ index: Int, at now: Instant) {
    let packet = batch.packets[index]
    batch.packets[index].kind = .dropped
    // A packet outside the batch's memory has no room for an error before it, and nobody would read
    // the error.
    guard batch.holds(packet.start), icmpBudget.allow(at: now) else { return }
    let buffer = packet.start - BatchLayout.headroom
    guard
      let error = ICMPError.write(
        .hostUnreachable, in: buffer, packetByteOffset: BatchLayout.headroom,
        packetByteCount: Int(packet.byteCount))
    else { return }
    batch.packets[index].start = buffer + error.byteOffset
    batch.packets[index].byteCount = UInt32(truncatingIfNeeded: error.byteCount)
    batch.packets[index].kind = .reply
  }

  // MARK: emit

  /// Counts what was sent and updates the timers.
  public mutating func emit(_ batch: inout OutboundBatch, at now: Instant) {
    batch.countOutcomes()
    batch.outputs.reset()
    for index in 0..<batch.sessions.count {
      settle(batch.sessions[UInt16(truncatingIfNeeded: index)], at: now)
    }
  }

  /// Adds the results of a session's datagrams to the counters and to the peer.
  private mutating func settle(_ session: BatchSession, at now: Instant) {
    guard session.didTry else { return }
    counters.add(.sent, UInt64(session.sentCount))
    counters.add(.sendFailed, UInt64(session.failedCount))
    guard peerTable.contains(session.peer) else { return }
    let peers = peers
    settle(session, of: &peers[session.peer], at: now)
  }

  private mutating func settle(_ session: BatchSession, of peer: inout Peer, at now: Instant) {
    peer.sentByteCount &+= session.sentByteCount
    if peer.path?.endpoint == session.path.endpoint {
      if session.didLoseSource { peer.path = session.path }
      if session.didRefuseSegments, peer.limitSegments(to: session.segmentLimit, at: now) {
        events.append(.segmentsRefused, peer.publicKey)
      }
    }
    // With several workers, an answer may have been delivered since the batch was planned. Then
    // there is nothing left for these timers to wait for.
    let isAnswered = peer.lastReceived.map { $0 > now } ?? false
    if !isAnswered { peer.timers.anyAuthenticatedPacketSent() }
    peer.timers.anyAuthenticatedPacketTraversal(at: now)
    // The jitter costs a system call, so it is drawn only if the timer is not running yet.
    if session.didSendData, !isAnswered, !peer.timers.newHandshake.isSet {
      peer.timers.dataSent(at: now, jitter: jitter())
    }
    // An initiation does not use the session. If it counted as use, each retry would start a new
    // series of attempts (R17).
    if session.didSendTransport, peer.keypairs.current.exists,
      peer.keypairs.current.isStaleForSending(at: now)
    {
      peer.timers.wantInitiation(at: now)
    }
    reschedule(&peer)
  }
}
