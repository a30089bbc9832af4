/// From the network to the TUN: the two steps of the inbound lane that need the tunnel.
extension Tunnel {
  // MARK: accept

  /// Classifies each datagram. For transport data, looks up the session and copies its key into the
  /// batch. Queues handshake messages.
  public mutating func accept(_ batch: inout InboundBatch, at now: Instant) {
    batchSerial &+= 1
    batch.serial = batchSerial
    batch.cipher = cipher
    if batch.surplusCount > 0 { counters.add(.truncated, batch.surplusCount) }
    let packets = batch.packets
    for index in 0..<batch.count {
      if let verdict = accept(&packets[index], of: &batch, at: now) {
        counters.add(verdict)
        packets[index].kind = .done
      }
    }
  }

  /// - Returns: nil for transport data, which `open` then decrypts.
  private mutating func accept(
    _ packet: inout InboundBatch.Packet, of batch: inout InboundBatch, at now: Instant
  ) -> Verdict? {
    guard packet.kind == .received else { return .truncated }
    let byteCount = Int(packet.byteCount)
    guard let type = MessageType(at: packet.start, byteCount: byteCount) else {
      return .malformedMessage
    }
    guard type == .transportData else {
      return queueHandshake(
        packet.start, byteCount: byteCount, from: batch.arrivals[Int(packet.arrival)].path,
        at: now)
    }
    guard let message = TransportDataMessage(at: packet.start, byteCount: byteCount) else {
      return .malformedMessage
    }
    guard let entry = indices.find(message.receiver), entry.kind == IndexKind.keypair.rawValue,
      peerTable.contains(entry.peer),
      let role = peers[entry.peer].keypairs.role(of: message.receiver)
    else { return .unknownReceiver }
    let peers = peers
    guard peers[entry.peer].keypairs[role].canReceive(at: now) else { return .expiredSession }
    packet.session = session(
      in: &batch, of: &peers[entry.peer], role: role, localIndex: message.receiver)
    batch.sealedByteCount &+= byteCount
    packet.counter = message.counter
    packet.kind = .sealed
    return nil
  }

  private func session(
    in batch: inout InboundBatch, of peer: inout Peer, role: Keypairs.Role, localIndex: UInt32
  ) -> UInt16 {
    if peer.inboundSerial == batch.serial,
      batch.sessions[peer.inboundSession].localIndex == localIndex
    {
      return peer.inboundSession
    }
    let index = batch.sessions.append(
      BatchSession(
        peer: peer.id, localIndex: localIndex,
        path: Path(to: Endpoint(address: IPAddress(ipv4: 0), port: 0))),
      key: peer.keypairs[role].receivingKey)
    peer.inboundSerial = batch.serial
    peer.inboundSession = index
    return index
  }

  // MARK: deliver

  /// Checks each decrypted packet against the replay window and the allowed IPs, updates the peer's
  /// path and timers, and marks the packets that the shell writes to the TUN.
  public mutating func deliver(_ batch: inout InboundBatch, at now: Instant) {
    let peers = peers
    let packets = batch.packets
    for index in 0..<batch.count {
      switch batch.packets[index].kind {
      case .sealed:
        counters.add(.badTag)
        batch.packets[index].kind = .done
      case .authentic:
        batch.packets[index].kind = .done
        let session = batch.sessions[batch.packets[index].session]
        guard peerTable.contains(session.peer) else {
          counters.add(.peerRemoved)
          continue
        }
        counters.add(
          deliver(
            &packets[index], batch.text(index), from: &peers[session.peer],
            localIndex: session.localIndex,
            arrival: batch.arrivals[Int(batch.packets[index].arrival)], at: now))
      case .received, .truncated, .delivered, .done: break
      }
    }
  }

  private mutating func deliver(
    _ packet: inout InboundBatch.Packet, _ text: UnsafeMutableRawPointer, from peer: inout Peer,
    localIndex: UInt32, arrival: InboundBatch.Arrival, at now: Instant
  ) -> Verdict {
    guard let role = peer.keypairs.role(of: localIndex) else { return .expiredSession }
    guard peer.keypairs.accept(packet.counter, on: role) else { return .replayed }

    // Only now is it certain that the datagram is new and comes from the peer, so the peer may roam
    // (R8).
    move(&peer, to: arrival.path)
    peer.receivedByteCount &+= UInt64(packet.byteCount)
    if role == .next { confirmSession(&peer, at: now) }
    noteReceived(&peer, isData: packet.byteCount > WireGuard.keepaliveByteCount, at: now)

    let byteCount = Int(packet.byteCount) - WireGuard.overheadByteCount
    guard byteCount > 0 else { return .keepalive }
    guard let inner = InnerPacket(at: text, byteCount: byteCount) else { return .malformedInner }
    guard allowedIPs.route(inner.source) == peer.id.index else { return .sourceNotAllowed }
    if arrival.trafficClass & ECN.mask != 0 {
      let mark = ECN.combine(inner: inner.trafficClass, outer: arrival.trafficClass)
      inner.setECN(mark, at: text, byteCount: byteCount)
    }
    packet.innerByteCount = UInt32(truncatingIfNeeded: inner.byteCount)
    packet.kind = .delivered
    return .delivered
  }

  /// Handles the initiator's first packet on a session for which we sent the response.
  private mutating func confirmSession(_ peer: inout Peer, at now: Instant) {
    freeIndex(peer.keypairs.confirmNext())
    peer.lastHandshake = now
    peer.isLooping = false
    peer.timers.handshakeCompleted()
    if !peer.staged.isEmpty { peer.timers.wantFlush(at: now) }
  }

  private mutating func noteReceived(_ peer: inout Peer, isData: Bool, at now: Instant) {
    if !peer.timers.hasRenewedOnReceive, peer.keypairs.current.exists,
      peer.keypairs.current.isStaleForReceiving(at: now)
    {
      peer.timers.renewedOnReceive()
      peer.timers.wantInitiation(at: now)
    }
    peer.lastReceived = now
    peer.timers.anyAuthenticatedPacketReceived()
    peer.timers.anyAuthenticatedPacketTraversal(at: now)
    if isData { peer.timers.dataReceived(at: now) }
    reschedule(&peer)
  }

  /// Records that the shell could not write `count` delivered packets to the TUN.
  public func didFailToDeliver(_ count: Int = 1) {
    counters.add(.writeFailed, UInt64(truncatingIfNeeded: count))
  }

  // MARK: Local addresses

  /// Whether local addresses wait for `nextUncheckedSource`. Paths without an interface never do.
  package var hasUncheckedSources: Bool { !sourceDoubts.isEmpty }

  /// Has all local addresses checked again, because routes may have changed.
  package mutating func recheckSources() { sourceDoubts.addAll() }

  /// The next peer whose route the shell must look up, with its path; nil if there is none left, or
  /// none among the next `visits` peers.
  package mutating func nextUncheckedSource(
    visits: inout Int
  ) -> (peer: PeerID, path: Path)? {
    let peers = peers
    while visits > 0 {
      let isThorough = sourceDoubts.isThorough
      guard let place = sourceDoubts.next(limit: peerTable.capacity) else { return nil }
      visits -= 1
      guard let id = peerTable.peer(atPlace: place) else { continue }
      if isThorough { peers[id].doubtSource() }
      guard peers[id].isSourceUnchecked, let path = peers[id].path else { continue }
      peers[id].isSourceUnchecked = false
      // The kernel may just have refused the address.
      if path.interface == 0 { continue }
      return (id, path)
    }
    return nil
  }

  /// Applies what the routing table says about the path that `nextUncheckedSource` has returned. If
  /// its local address is refused, datagrams that are still in flight do not bring it back (R40).
  package mutating func settleSource(of id: PeerID, as verdict: SourceVerdict) {
    guard peerTable.contains(id) else { return }
    let peers = peers
    peers[id].settleSource(verdict)
  }

  /// Checks local addresses that a planned batch is about to use for the first time. If the answer
  /// to an initiation had the wrong one, the peer would try again only after 5 s.
  ///
  /// - Parameter judge: looks up the route. It is called for all unchecked peers, but only for a
  ///   few cookie replies: a flood must not cost a look-up for each datagram.
  package mutating func checkSources(
    of batch: inout OutboundBatch, _ judge: (Path) -> SourceVerdict
  ) {
    let peers = peers
    var cookieReplies = 0
    for index in 0..<batch.sessions.count {
      let session = UInt16(truncatingIfNeeded: index)
      let id = batch.sessions[session].peer
      let path = batch.sessions[session].path
      guard path.interface != 0 else { continue }
      let verdict: SourceVerdict
      if id == .none {
        cookieReplies += 1
        if cookieReplies > Policy.cookieReplyChecksPerTurn { continue }
        verdict = judge(path)
      } else {
        guard peerTable.contains(id), peers[id].isSourceUnchecked else { continue }
        verdict = judge(path)
        peers[id].settleSource(verdict)
      }
      if verdict == .refused { batch.sessions[session].path = Path(to: path.endpoint) }
    }
  }
}
