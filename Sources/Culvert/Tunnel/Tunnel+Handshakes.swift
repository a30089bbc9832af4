/// Handshake messages, from the queue to the answer. The inbound lane only queues them. The
/// expensive work is done here, for a limited number of messages per call.
extension Tunnel {
  /// DSCP AF41, no ECN. The kernel's WireGuard marks handshake messages in the same way. A lost
  /// message delays the handshake by seconds.
  static let handshakeTrafficClass: UInt8 = 0x88

  // MARK: The ring

  /// Copies a message to the ring. `accept` calls it.
  mutating func queueHandshake(
    _ message: UnsafeRawPointer, byteCount: Int, from path: Path, at now: Instant
  ) -> Verdict {
    // A message for another public key is dropped here, at the cost of one keyed hash and without
    // taking a slot. A cookie reply has no mac1. Its tag is verified later, but its receiver index
    // must be one of ours.
    if byteCount == WireGuard.cookieReplyByteCount {
      let receiver = message.loadLittle(CookieReplyMessage.receiverOffset, as: UInt32.self)
      guard indices.find(receiver) != nil else { return .unknownReceiver }
    } else {
      guard cookieChecker.hasValidMAC1(message, byteCount: byteCount) else { return .badMAC }
    }
    guard let slot = handshakePool.allocate() else {
      loadEnd = now.advanced(by: Policy.loadHysteresis)
      return .handshakeRingFull
    }
    HandshakeEntry(in: slot).write(message, byteCount: byteCount, from: path)
    guard handshakeRing.push(slot) else { return .handshakeRingFull }
    noteLoad(at: now)
    return .handshakeQueued
  }

  /// Prolongs the load while the ring is at least one eighth full.
  private mutating func noteLoad(at now: Instant) {
    guard handshakeRing.count >= max(1, handshakeRing.capacity / Policy.loadRingFraction) else {
      return
    }
    loadEnd = now.advanced(by: Policy.loadHysteresis)
  }

  /// True while the ring is at least one eighth full, and for one second after (R5, R49).
  func isUnderLoad(at now: Instant) -> Bool { now < loadEnd }

  /// Processes up to `limit` queued messages, while the batch has room for the answers.
  mutating func serveHandshakes(into batch: inout OutboundBatch, limit: Int, at now: Instant) {
    var served = 0
    while served < limit, batch.room(for: WireGuard.initiationByteCount) != nil {
      // A full ring takes no more messages, so it must count as load here too (R49).
      noteLoad(at: now)
      guard let slot = handshakeRing.pop() else { break }
      let entry = HandshakeEntry(in: slot)
      counters.add(serve(entry, into: &batch, at: now))
      noise.wipe()
      served += 1
    }
  }

  private mutating func serve(
    _ entry: HandshakeEntry, into batch: inout OutboundBatch, at now: Instant
  ) -> Verdict {
    if let reply = CookieReplyMessage(at: entry.message, byteCount: entry.byteCount) {
      return serveCookieReply(reply, at: now)
    }
    let initiation = InitiationMessage(at: entry.message, byteCount: entry.byteCount)
    let response = ResponseMessage(at: entry.message, byteCount: entry.byteCount)
    guard initiation != nil || response != nil else { return .malformedMessage }
    if isUnderLoad(at: now) {
      guard
        cookieChecker.hasValidMAC2(
          entry.message, byteCount: entry.byteCount, from: entry.path.endpoint, at: now)
      else {
        planCookieReply(to: entry, in: &batch, at: now)
        return .cookieDemanded
      }
      guard rateLimiter.allow(entry.path.endpoint.address, at: now) else { return .rateLimited }
    }
    if let initiation { return serveInitiation(initiation, entry, into: &batch, at: now) }
    if let response { return serveResponse(response, entry, at: now) }
    return .malformedMessage
  }

  // MARK: Cookies

  /// Plans a cookie reply (whitepaper 5.4.7). It is smaller than the message that it answers, and
  /// takes no Diffie-Hellman computation.
  private mutating func planCookieReply(
    to entry: HandshakeEntry, in batch: inout OutboundBatch, at now: Instant
  ) {
    guard let room = batch.room(for: WireGuard.cookieReplyByteCount) else { return }
    cookieChecker.writeReply(
      into: room.baseAddress!, to: entry.message, byteCount: entry.byteCount,
      from: entry.path.endpoint, at: now,
      entropy: &entropy)
    planMessage(
      &batch, byteCount: WireGuard.cookieReplyByteCount, to: .none, path: entry.path)
  }

  /// Stores the cookie. A cookie reply never changes the peer's endpoint (R8).
  private mutating func serveCookieReply(
    _ reply: CookieReplyMessage, at now: Instant
  ) -> Verdict {
    guard let entry = indices.find(reply.receiver), peerTable.contains(entry.peer) else {
      return .unknownReceiver
    }
    let peers = peers
    guard peers[entry.peer].cookie.store(reply, at: now) else { return .cookieRefused }
    events.append(.cookieReceived, peers[entry.peer].publicKey)
    return .cookieAccepted
  }

  // MARK: Initiation

  /// Plans an initiation. The caller has checked that it is due and that there is room.
  mutating func planInitiation(
    to peer: inout Peer, in batch: inout OutboundBatch, at now: Instant, wall: WallTime
  ) {
    guard identity.isSet, let path = peer.path,
      let room = batch.room(for: WireGuard.initiationByteCount)
    else {
      peer.timers.initiationFailed(at: now)
      return
    }
    let timestamp = timestamps.next(wall, after: peer.lastTimestamp)
    if timestamps.mustWait(timestamp, at: now) {
      peer.timers.initiationHeld(
        until: .after(TimestampSource.holdInterval, from: now))
      return
    }
    // Before a new index is made, so that no peer ever has more than four.
    resetHandshake(&peer)
    guard let index = makeIndex(for: peer.id, kind: .handshake) else {
      peer.timers.initiationFailed(at: now)
      return
    }
    peer.lastTimestamp = timestamp
    let message = InitiationMessage(writingTo: room.baseAddress!, sender: index)
    let isCreated = peer.handshake.createInitiation(
      message, localIndex: index, remoteStatic: peer.publicKey, timestamp: timestamp,
      identity: identity, constants: constants, noise: noise, entropy: &entropy)
    noise.wipe()
    guard isCreated else {
      freeIndex(index)
      peer.timers.initiationFailed(at: now)
      counters.add(.lowOrderPoint)
      // Later attempts would fail too, so no packet may stay in the pool, which all peers share.
      answerStaged(of: &peer, &batch, at: now)
      return
    }
    peer.cookie.addMACs(
      to: room.baseAddress!, byteCount: WireGuard.initiationByteCount, at: now)
    planMessage(&batch, byteCount: WireGuard.initiationByteCount, to: peer.id, path: path)
    peer.timers.initiationSent(at: now, jitter: jitter())
    events.append(.initiationSent, peer.publicKey)
  }

  private mutating func serveInitiation(
    _ message: InitiationMessage, _ entry: HandshakeEntry, into batch: inout OutboundBatch,
    at now: Instant
  ) -> Verdict {
    guard
      let remoteStatic = Handshake.openInitiation(
        message, identity: identity, constants: constants, noise: noise)
    else { return .handshakeFailed }
    guard let id = peerTable.find(at: noise.remoteStatic) else { return .unknownPeer }
    let peers = peers
    return serveInitiation(
      message, entry, from: &peers[id], remoteStatic: remoteStatic, into: &batch, at: now)
  }

  private mutating func serveInitiation(
    _ message: InitiationMessage, _ entry: HandshakeEntry, from peer: inout Peer,
    remoteStatic: Key, into batch: inout OutboundBatch, at now: Instant
  ) -> Verdict {
    let replacedIndex = peer.handshake.localIndex
    switch peer.handshake.consumeInitiation(message, noise: noise, at: now) {
    case .accepted: break
    case .invalid: return .handshakeFailed
    case .lowOrderPoint: return .lowOrderPoint
    case .replayed: return .handshakeReplayed
    case .tooMany: return .rateLimited
    }
    freeIndex(replacedIndex)
    events.append(.initiationReceived, remoteStatic)
    move(&peer, to: entry.path)
    peer.receivedByteCount &+= UInt64(entry.byteCount)
    peer.timers.anyAuthenticatedPacketReceived()
    peer.timers.anyAuthenticatedPacketTraversal(at: now)
    let isAnswered = planResponse(to: &peer, remoteStatic: remoteStatic, in: &batch, at: now)
    reschedule(&peer)
    return isAnswered ? .handshakeAccepted : .lowOrderPoint
  }

  // MARK: Response

  private mutating func planResponse(
    to peer: inout Peer, remoteStatic: Key, in batch: inout OutboundBatch, at now: Instant
  ) -> Bool {
    guard let room = batch.room(for: WireGuard.responseByteCount), let path = peer.path,
      let index = makeIndex(for: peer.id, kind: .keypair)
    else { return false }
    let message = ResponseMessage(
      writingTo: room.baseAddress!, sender: index, receiver: peer.handshake.remoteIndex)
    guard
      peer.handshake.createResponse(
        message, localIndex: index, remoteStatic: remoteStatic, noise: noise, entropy: &entropy)
    else {
      freeIndex(index)
      peer.handshake.reset()
      return false
    }
    peer.cookie.addMACs(
      to: room.baseAddress!, byteCount: WireGuard.responseByteCount, at: now)
    guard startSession(of: &peer, at: now) else {
      freeIndex(index)
      return false
    }
    if peer.timers.retransmitHandshake.isSet {
      peer.timers.initiationOverruled(
        at: now, delay: entropy.below(Policy.overruledInitiationDelay))
    }
    planMessage(&batch, byteCount: WireGuard.responseByteCount, to: peer.id, path: path)
    events.append(.responseSent, remoteStatic)
    return true
  }

  private mutating func serveResponse(
    _ message: ResponseMessage, _ entry: HandshakeEntry, at now: Instant
  ) -> Verdict {
    guard let found = indices.find(message.receiver),
      found.kind == IndexKind.handshake.rawValue, peerTable.contains(found.peer)
    else { return .unknownReceiver }
    let peers = peers
    return serveResponse(message, entry, from: &peers[found.peer], at: now)
  }

  private mutating func serveResponse(
    _ message: ResponseMessage, _ entry: HandshakeEntry, from peer: inout Peer, at now: Instant
  ) -> Verdict {
    switch peer.handshake.consumeResponse(message, identity: identity, noise: noise) {
    case .accepted: break
    case .lowOrderPoint: return .lowOrderPoint
    case .invalid, .replayed, .tooMany: return .handshakeFailed
    }
    move(&peer, to: entry.path)
    peer.receivedByteCount &+= UInt64(entry.byteCount)
    // The index referred to the handshake. From here on it refers to the session.
    let index = peer.handshake.localIndex
    guard startSession(of: &peer, at: now) else { return .handshakeFailed }
    events.append(.responseReceived, peer.publicKey)
    indices.setKind(IndexKind.keypair.rawValue, of: index)
    peer.lastHandshake = now
    peer.timers.anyAuthenticatedPacketReceived()
    peer.timers.anyAuthenticatedPacketTraversal(at: now)
    peer.timers.handshakeCompleted()
    // This sends the staged packets, or else a keepalive. The responder may not send before it has
    // received a packet on this session.
    peer.timers.wantKeepalive(at: now)
    reschedule(&peer)
    return .handshakeAccepted
  }

  /// Turns the finished handshake into a session, and frees the indices of the sessions that it
  /// replaces.
  private mutating func startSession(of peer: inout Peer, at now: Instant) -> Bool {
    // The path's MTU may have changed, so each session tries segmented sends again.
    peer.segmentLimit = .max
    guard let replaced = peer.keypairs.startSession(from: &peer.handshake, at: now) else {
      return false
    }
    freeIndex(replaced.0)
    freeIndex(replaced.1)
    peer.timers.sessionDerived(at: now)
    return true
  }

  /// Appends the handshake message that was written to the batch's room, ready to be sent.
  private func planMessage(
    _ batch: inout OutboundBatch, byteCount: Int, to peer: PeerID, path: Path
  ) {
    let index = batch.append(byteCount: byteCount, kind: .message)
    batch.packets[index].session = batch.sessions.append(
      BatchSession(peer: peer, path: path), key: nil)
    batch.packets[index].trafficClass = Tunnel.handshakeTrafficClass
  }
}

/// A handshake message that `accept` has queued for `serveHandshakes`: a slot with the path that
/// the message arrived on, its length, and the message.
struct HandshakeEntry {
  private static let pathOffset = 0
  private static let byteCountOffset = 96
  private static let messageOffset = 104

  private let bytes: UnsafeMutableRawPointer

  init(in slot: borrowing Slot) {
    bytes = slot.bytes.baseAddress!
  }

  func write(_ message: UnsafeRawPointer, byteCount: Int, from path: Path) {
    (bytes + HandshakeEntry.pathOffset).storeBytes(of: path, as: Path.self)
    (bytes + HandshakeEntry.byteCountOffset).storeBytes(of: byteCount, as: Int.self)
    self.message.copyMemory(from: message, byteCount: byteCount)
  }

  var path: Path { (bytes + HandshakeEntry.pathOffset).load(as: Path.self) }
  var byteCount: Int { (bytes + HandshakeEntry.byteCountOffset).load(as: Int.self) }
  var message: UnsafeMutableRawPointer { bytes + HandshakeEntry.messageOffset }
}
