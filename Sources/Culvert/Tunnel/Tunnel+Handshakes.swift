/// Handshake messages, from the queue to the answer. The inbound lane only queues them. The
/// expensive work is done here, for a limited number of messages per turn.
///
/// There are two rings, which share the slots. `preferredRing` is for what has a valid mac2 under
/// load, and for answers that we wait for. It is served first, and takes slots from `handshakeRing`
/// if there is no other, so a flood without cookies keeps neither slots nor turns from it (R50).
///
/// A message without a cookie from the endpoint of a peer may take such a slot too, once a second,
/// but is served in its turn: the cookie of the last handshake is too old when a session has to be
/// renewed.
extension Tunnel {
  /// DSCP AF41, no ECN. The kernel's WireGuard marks handshake messages in the same way. A lost
  /// message delays the handshake by seconds.
  static let handshakeTrafficClass: UInt8 = 0x88

  // MARK: Admission

  /// Copies a message to one of the two rings. `accept` calls it.
  ///
  /// The checks are in the order of their cost, because a flood passes through here. What arrives
  /// under load without a cookie while there is no slot is dropped without any hash (R50).
  mutating func queueHandshake(
    _ message: UnsafeRawPointer, byteCount: Int, from path: Path, at now: Instant
  ) -> Verdict {
    if byteCount == WireGuard.cookieReplyByteCount {
      return queueCookieReply(message, from: path, at: now)
    }
    guard byteCount >= Cookie.trailerByteCount else { return .malformedMessage }
    // A response to nothing of ours costs a look-up. One to our outstanding initiation is expected:
    // only who has seen the initiation knows its index.
    let isExpected: Bool
    if byteCount == WireGuard.responseByteCount {
      guard isAwaited(message.loadLittle(ResponseMessage.receiverOffset, as: UInt32.self)) else {
        return .unknownReceiver
      }
      isExpected = true
    } else {
      isExpected = false
    }
    guard isUnderLoad(at: now) else {
      guard cookieChecker.hasValidMAC1(message, byteCount: byteCount) else { return .badMAC }
      return queue(message, byteCount: byteCount, from: path, isPreferred: isExpected, at: now)
    }
    let hasMAC2 = CookieChecker.hasMAC2(message, byteCount: byteCount)
    let isFull = handshakePool.freeCount == 0
    let isKnown = isFull && knownEndpoints.contains(path.endpoint)
    if isFull, !hasMAC2, !isExpected, !isKnown { return refuse(at: now) }
    // It proves that the sender knows our public key.
    guard cookieChecker.hasValidMAC1(message, byteCount: byteCount) else { return .badMAC }
    let isProven =
      hasMAC2
      && cookieChecker.hasValidMAC2(message, byteCount: byteCount, from: path.endpoint, at: now)
    if isProven {
      guard rateLimiter.allow(path.endpoint.address, at: now) else { return .rateLimited }
    }
    if isKnown, knownEndpoints.allow(path.endpoint, at: now) { evictHandshake() }
    return queue(
      message, byteCount: byteCount, from: path, isPreferred: isProven || isExpected,
      isProven: isProven, at: now)
  }

  /// A cookie reply has no mac1, and its tag is verified later. It takes a slot only if it answers
  /// a message of ours that is not answered yet (R50).
  private mutating func queueCookieReply(
    _ message: UnsafeRawPointer, from path: Path, at now: Instant
  ) -> Verdict {
    let receiver = message.loadLittle(CookieReplyMessage.receiverOffset, as: UInt32.self)
    guard let entry = indices.find(receiver), peerTable.contains(entry.peer) else {
      return .unknownReceiver
    }
    let peers = peers
    // Our last message is an initiation, or a response that the peer has not confirmed.
    let isUnanswered =
      entry.kind == IndexKind.handshake.rawValue
      || peers[entry.peer].keypairs.next.localIndex == receiver
    guard isUnanswered, peers[entry.peer].cookie.awaitsReply else { return .cookieRefused }
    return queue(
      message, byteCount: WireGuard.cookieReplyByteCount, from: path, isPreferred: true, at: now)
  }

  /// Whether this is the index of an outstanding initiation.
  private func isAwaited(_ receiver: UInt32) -> Bool {
    guard let entry = indices.find(receiver) else { return false }
    return entry.kind == IndexKind.handshake.rawValue && peerTable.contains(entry.peer)
  }

  /// - Parameters:
  ///   - isPreferred: whether the message may take the slot of one that is not preferred, and is
  ///     served before them.
  ///   - isProven: whether its mac2 has been verified, and its source has paid for it.
  private mutating func queue(
    _ message: UnsafeRawPointer, byteCount: Int, from path: Path, isPreferred: Bool,
    isProven: Bool = false, at now: Instant
  ) -> Verdict {
    if isPreferred { evictHandshake() }
    guard let slot = handshakePool.allocate() else { return refuse(at: now) }
    HandshakeEntry(in: slot).write(
      message, byteCount: byteCount, from: path, isProven: isProven)
    let isQueued = isPreferred ? preferredRing.push(slot) : handshakeRing.push(slot)
    guard isQueued else { return refuse(at: now) }
    noteLoad(at: now)
    return .handshakeQueued
  }

  /// Drops the oldest message that is not preferred, if there is no free slot.
  private mutating func evictHandshake() {
    guard handshakePool.freeCount == 0, let oldest = handshakeRing.pop() else { return }
    _ = consume oldest
    counters.add(.handshakeEvicted)
  }

  private mutating func refuse(at now: Instant) -> Verdict {
    loadEnd = now.advanced(by: Policy.loadHysteresis)
    return .handshakeRingFull
  }

  /// The number of queued messages.
  var queuedHandshakes: Int { handshakeRing.count &+ preferredRing.count }

  /// Prolongs the load while at least one eighth of the slots are in use.
  private mutating func noteLoad(at now: Instant) {
    guard queuedHandshakes >= max(1, handshakeRing.capacity / Policy.loadRingFraction) else {
      return
    }
    loadEnd = now.advanced(by: Policy.loadHysteresis)
  }

  /// True while at least one eighth of the slots are in use, and for one second after (R5, R49).
  func isUnderLoad(at now: Instant) -> Bool { now < loadEnd }

  // MARK: Service

  /// Processes queued messages, the preferred ones first, while the batch has room for the answers.
  ///
  /// Only Diffie-Hellman computations count against `Policy.handshakesPerTurn`. What ends before
  /// them (cookie replies, both ways) counts against `Policy.messagesPerTurn` alone (R50).
  mutating func serveHandshakes(into batch: inout OutboundBatch, at now: Instant) {
    var remaining = Policy.messagesPerTurn
    var agreements = Policy.handshakesPerTurn
    while remaining > 0, agreements > 0, batch.room(for: WireGuard.initiationByteCount) != nil {
      // A full ring takes no more messages, so it must count as load here too (R49).
      noteLoad(at: now)
      guard let slot = popHandshake(at: now) else { break }
      let verdict = serve(HandshakeEntry(in: slot), into: &batch, at: now)
      counters.add(verdict)
      if !verdict.isWithoutKeyAgreement {
        noise.wipe()
        agreements &-= 1
      }
      remaining &-= 1
    }
    if isUnderLoad(at: now), areCookiesDue(at: now) {
      nextCookies = now.advanced(by: Policy.cookieInterval)
    }
  }

  private mutating func popHandshake(at now: Instant) -> Slot? {
    if let slot = preferredRing.pop() { return slot }
    guard !isUnderLoad(at: now) || areCookiesDue(at: now) else { return nil }
    return handshakeRing.pop()
  }

  /// False for the interval after the last cookie replies, but not if the clock went backwards.
  private func areCookiesDue(at now: Instant) -> Bool {
    now >= nextCookies || nextCookies.since(now) > Policy.cookieInterval
  }

  /// When queued messages and initiations must be served; never if there are none.
  func handshakeDeadline(at now: Instant) -> Deadline {
    if preferredRing.count > 0 || initiations.count > 0 { return Deadline(now) }
    guard handshakeRing.count > 0 else { return .never }
    return !isUnderLoad(at: now) || areCookiesDue(at: now)
      ? Deadline(now) : Deadline(min(nextCookies, loadEnd))
  }

  /// Drops all queued messages.
  mutating func dropHandshakes() {
    while let slot = preferredRing.pop() { _ = consume slot }
    while let slot = handshakeRing.pop() { _ = consume slot }
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
    if !entry.isProven, isUnderLoad(at: now) {
      // In a flood most have no mac2, and to compute one costs more than the reply.
      guard CookieChecker.hasMAC2(entry.message, byteCount: entry.byteCount),
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
    peers[entry.peer].timers.cookieReceived()
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
    } else {
      peer.timers.responseSent(at: now)
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
    peer.isLooping = false
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
    peer.forgetSegmentLimit()
    guard let replaced = peer.keypairs.startSession(from: &peer.handshake, at: now) else {
      return false
    }
    freeIndex(replaced.0)
    freeIndex(replaced.1)
    peer.timers.sessionDerived(at: now)
    if let path = peer.path { knownEndpoints.insert(path.endpoint) }
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
  private static let isProvenOffset = 100
  private static let messageOffset = 104

  private let bytes: UnsafeMutableRawPointer

  init(in slot: borrowing Slot) {
    bytes = slot.bytes.baseAddress!
  }

  func write(
    _ message: UnsafeRawPointer, byteCount: Int, from path: Path, isProven: Bool
  ) {
    (bytes + HandshakeEntry.pathOffset).storeBytes(of: path, as: Path.self)
    (bytes + HandshakeEntry.byteCountOffset).storeBytes(
      of: UInt32(truncatingIfNeeded: byteCount), as: UInt32.self)
    (bytes + HandshakeEntry.isProvenOffset).storeBytes(of: isProven, as: Bool.self)
    self.message.copyMemory(from: message, byteCount: byteCount)
  }

  var path: Path { (bytes + HandshakeEntry.pathOffset).load(as: Path.self) }
  var byteCount: Int { Int((bytes + HandshakeEntry.byteCountOffset).load(as: UInt32.self)) }
  /// Whether the mac2 was valid when the message arrived.
  var isProven: Bool { (bytes + HandshakeEntry.isProvenOffset).load(as: Bool.self) }
  var message: UnsafeMutableRawPointer { bytes + HandshakeEntry.messageOffset }
}
