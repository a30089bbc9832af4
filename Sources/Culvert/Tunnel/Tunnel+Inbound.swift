/// From the network to the TUN: the two steps of the inbound lane that need the tunnel.
extension Tunnel {
  // MARK: accept

  /// Classifies each datagram. Transport data is matched to its session, whose key is copied into
  /// the batch; handshake messages go to the ring of the control path.
  public mutating func accept(_ batch: inout InboundBatch, at now: Instant) {
    batchSerial &+= 1
    batch.serial = batchSerial
    batch.cipher = cipher
    if batch.surplusCount > 0 { counters.add(.truncated, batch.surplusCount) }
    for index in 0..<batch.count {
      if let verdict = accept(&batch, index, at: now) {
        counters.add(verdict)
        batch.packets[index].kind = .done
      }
    }
  }

  /// Nil for transport data that is to be opened.
  private mutating func accept(
    _ batch: inout InboundBatch, _ index: Int, at now: Instant
  ) -> Verdict? {
    let packet = batch.packets.baseAddress! + index
    guard packet.pointee.kind == .received else { return .truncated }
    let datagram = batch.datagram(index)
    let byteCount = Int(packet.pointee.byteCount)
    guard let type = MessageType(at: datagram, byteCount: byteCount) else {
      return .malformedMessage
    }
    guard type == .transportData else {
      return queueHandshake(
        datagram, byteCount: byteCount, from: batch.arrivals[Int(packet.pointee.arrival)].path,
        at: now)
    }
    guard let message = TransportDataMessage(at: datagram, byteCount: byteCount) else {
      return .malformedMessage
    }
    guard let entry = indices.find(message.receiver), entry.kind == IndexKind.keypair.rawValue,
      let peer = peer(entry.peer),
      let role = peer.pointee.keypairs.role(of: message.receiver)
    else { return .unknownReceiver }
    guard peer.pointee.keypairs[role].canReceive(at: now) else { return .expiredSession }
    packet.pointee.session = session(
      in: &batch, of: peer, role: role, localIndex: message.receiver)
    packet.pointee.counter = message.counter
    packet.pointee.kind = .sealed
    return nil
  }

  private func session(
    in batch: inout InboundBatch, of peer: UnsafeMutablePointer<Peer>, role: Keypairs.Role,
    localIndex: UInt32
  ) -> UInt16 {
    if peer.pointee.inboundSerial == batch.serial,
      batch.sessions[peer.pointee.inboundSession].pointee.localIndex == localIndex
    {
      return peer.pointee.inboundSession
    }
    let index = batch.sessions.append(
      BatchSession(
        peer: peer.pointee.id, localIndex: localIndex,
        path: Path(to: Endpoint(address: IPAddress(ipv4: 0), port: 0))),
      key: peer.pointee.keypairs[role].receivingKey)
    peer.pointee.inboundSerial = batch.serial
    peer.pointee.inboundSession = index
    return index
  }

  // MARK: deliver

  /// Checks each decrypted packet against the replay window and the allowed IPs, learns the peer's
  /// path, moves the timers, and marks what the shell writes to the TUN.
  public mutating func deliver(_ batch: inout InboundBatch, at now: Instant) {
    for index in 0..<batch.count {
      let packet = batch.packets.baseAddress! + index
      switch packet.pointee.kind {
      case .sealed:
        counters.add(.badTag)
        packet.pointee.kind = .done
      case .authentic:
        packet.pointee.kind = .done
        counters.add(deliver(&batch, packet, batch.text(index), at: now))
      case .received, .truncated, .delivered, .done: break
      }
    }
  }

  private mutating func deliver(
    _ batch: inout InboundBatch, _ packet: UnsafeMutablePointer<InboundBatch.Packet>,
    _ text: UnsafeMutableRawPointer, at now: Instant
  ) -> Verdict {
    let arrival = batch.arrivals[Int(packet.pointee.arrival)]
    let session = batch.sessions[packet.pointee.session]
    guard let peer = peer(session.pointee.peer) else { return .peerRemoved }
    guard let role = peer.pointee.keypairs.role(of: session.pointee.localIndex) else {
      return .expiredSession
    }
    guard peer.pointee.keypairs.accept(packet.pointee.counter, on: role) else { return .replayed }

    // Only now is the datagram known to be new and the peer's own: it may roam (R8).
    move(peer, to: arrival.path)
    peer.pointee.receivedByteCount &+= UInt64(packet.pointee.byteCount)
    if role == .next { confirmSession(peer, at: now) }
    noteReceived(peer, isData: packet.pointee.byteCount > WireGuard.keepaliveByteCount, at: now)

    let byteCount = Int(packet.pointee.byteCount) - WireGuard.overheadByteCount
    guard byteCount > 0 else { return .keepalive }
    guard let inner = InnerPacket(at: text, byteCount: byteCount) else { return .malformedInner }
    guard allowedIPs.route(inner.source) == peer.pointee.id.index else { return .sourceNotAllowed }
    if arrival.trafficClass & ECN.mask != 0 {
      guard
        let mark = ECN.combine(inner: inner.trafficClass, outer: arrival.trafficClass)
      else { return .brokenCongestionMark }
      inner.setECN(mark, at: text, byteCount: byteCount)
    }
    packet.pointee.innerByteCount = UInt32(truncatingIfNeeded: inner.byteCount)
    packet.pointee.kind = .delivered
    return .delivered
  }

  /// The initiator's first packet on the session that we answered for.
  private mutating func confirmSession(_ peer: UnsafeMutablePointer<Peer>, at now: Instant) {
    freeIndex(peer.pointee.keypairs.confirmNext())
    peer.pointee.lastHandshake = now
    peer.pointee.timers.handshakeCompleted()
    if !peer.pointee.staged.isEmpty { peer.pointee.timers.wantFlush(at: now) }
  }

  private mutating func noteReceived(
    _ peer: UnsafeMutablePointer<Peer>, isData: Bool, at now: Instant
  ) {
    if !peer.pointee.timers.hasRenewedOnReceive, peer.pointee.keypairs.current.exists,
      peer.pointee.keypairs.current.isStaleForReceiving(at: now)
    {
      peer.pointee.timers.renewedOnReceive()
      peer.pointee.timers.wantInitiation(at: now)
    }
    peer.pointee.lastReceived = now
    peer.pointee.timers.anyAuthenticatedPacketReceived()
    peer.pointee.timers.anyAuthenticatedPacketTraversal(at: now)
    if isData { peer.pointee.timers.dataReceived(at: now) }
    reschedule(peer)
  }

  /// Records that the shell could not write so many delivered packets to the TUN.
  public func didFailToDeliver(_ count: Int = 1) {
    counters.add(.writeFailed, UInt64(truncatingIfNeeded: count))
  }
}
