/// Handshake messages, from the ring to the answer. The inbound lane only queues them; the
/// expensive work happens here, a bounded number at a time.
extension Tunnel {
  /// DSCP AF41, no ECN: what the kernel marks handshake messages with, as a lost one costs
  /// seconds.
  static let handshakeTrafficClass: UInt8 = 0x88

  // MARK: The ring

  /// Copies a message to the ring; called by the inbound lane.
  mutating func queueHandshake(
    _ message: UnsafeRawPointer, byteCount: Int, from path: Path, at now: Instant
  ) -> Verdict {
    // A message that is not even made for our key costs one keyed hash and no slot. Cookie
    // replies carry no mac1; their tag is their proof, and their index must be one of ours.
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
    if handshakeRing.count >= max(1, handshakeRing.capacity / Policy.loadRingFraction) {
      loadEnd = now.advanced(by: Policy.loadHysteresis)
    }
    return .handshakeQueued
  }

  /// R5: an eighth of the ring full, and a second longer.
  func isUnderLoad(at now: Instant) -> Bool { now < loadEnd }

  /// Handles up to `limit` queued messages, as long as the batch has room for the answers.
  mutating func processHandshakes(
    _ batch: inout OutboundBatch, limit: Int, at now: Instant
  ) {
    var handled = 0
    while handled < limit, batch.room(for: WireGuard.initiationByteCount) != nil,
      let slot = handshakeRing.pop()
    {
      let entry = HandshakeEntry(in: slot)
      counters.add(process(entry, &batch, at: now))
      noise.wipe()
      handled += 1
    }
  }

  private mutating func process(
    _ entry: HandshakeEntry, _ batch: inout OutboundBatch, at now: Instant
  ) -> Verdict {
    if let reply = CookieReplyMessage(at: entry.message, byteCount: entry.byteCount) {
      return consume(reply, at: now)
    }
    let initiation = InitiationMessage(at: entry.message, byteCount: entry.byteCount)
    let response = ResponseMessage(at: entry.message, byteCount: entry.byteCount)
    guard initiation != nil || response != nil else { return .malformedMessage }
    if isUnderLoad(at: now) {
      guard
        cookieChecker.hasValidMAC2(
          entry.message, byteCount: entry.byteCount, from: entry.path.endpoint, at: now)
      else {
        sendCookieReply(to: entry, &batch, at: now)
        return .cookieDemanded
      }
      guard rateLimiter.allow(entry.path.endpoint.address, at: now) else { return .rateLimited }
    }
    if let initiation { return consume(initiation, entry, &batch, at: now) }
    if let response { return consume(response, entry, at: now) }
    return .malformedMessage
  }

  // MARK: Cookies

  /// Whitepaper 5.4.7: an answer smaller than the question, which costs no Diffie-Hellman.
  private mutating func sendCookieReply(
    to entry: HandshakeEntry, _ batch: inout OutboundBatch, at now: Instant
  ) {
    guard let room = batch.room(for: WireGuard.cookieReplyByteCount) else { return }
    cookieChecker.writeReply(
      into: room.baseAddress!, to: entry.message, byteCount: entry.byteCount,
      from: entry.path.endpoint, at: now,
      entropy: &entropy)
    appendMessage(
      &batch, byteCount: WireGuard.cookieReplyByteCount, peer: .none, path: entry.path)
  }

  /// A cookie never moves a peer's endpoint (R8).
  private mutating func consume(_ reply: CookieReplyMessage, at now: Instant) -> Verdict {
    guard let entry = indices.find(reply.receiver), let peer = peer(entry.peer) else {
      return .unknownReceiver
    }
    guard peer.pointee.cookie.consume(reply, at: now) else { return .cookieRefused }
    events.append(.cookieReceived, peer.pointee.publicKey)
    return .cookieAccepted
  }

  // MARK: Initiation and response

  private mutating func consume(
    _ message: InitiationMessage, _ entry: HandshakeEntry, _ batch: inout OutboundBatch,
    at now: Instant
  ) -> Verdict {
    guard
      let remoteStatic = Handshake.openInitiation(
        message, identity: identity, constants: constants, noise: noise)
    else { return .handshakeFailed }
    guard let id = peerTable.find(at: noise.remoteStatic), let peer = peer(id) else {
      return .unknownPeer
    }
    let replacedIndex = peer.pointee.handshake.localIndex
    switch peer.pointee.handshake.consumeInitiation(message, noise: noise, at: now) {
    case .accepted: break
    case .invalid: return .handshakeFailed
    case .lowOrderPoint: return .lowOrderPoint
    case .replayed: return .handshakeReplayed
    case .tooMany: return .rateLimited
    }
    freeIndex(replacedIndex)
    events.append(.initiationReceived, remoteStatic)
    move(peer, to: entry.path)
    peer.pointee.receivedByteCount &+= UInt64(entry.byteCount)
    peer.pointee.timers.anyAuthenticatedPacketReceived()
    peer.pointee.timers.anyAuthenticatedPacketTraversal(at: now)
    let isAnswered = sendResponse(to: peer, remoteStatic: remoteStatic, &batch, at: now)
    reschedule(peer)
    return isAnswered ? .handshakeAccepted : .lowOrderPoint
  }

  private mutating func sendResponse(
    to peer: UnsafeMutablePointer<Peer>, remoteStatic: Key, _ batch: inout OutboundBatch,
    at now: Instant
  ) -> Bool {
    guard let room = batch.room(for: WireGuard.responseByteCount), let path = peer.pointee.path,
      let index = makeIndex(for: peer.pointee.id, kind: .keypair)
    else { return false }
    let message = ResponseMessage(
      writingTo: room.baseAddress!, sender: index, receiver: peer.pointee.handshake.remoteIndex)
    guard
      peer.pointee.handshake.createResponse(
        message, localIndex: index, remoteStatic: remoteStatic, noise: noise, entropy: &entropy)
    else {
      freeIndex(index)
      peer.pointee.handshake.reset()
      return false
    }
    peer.pointee.cookie.addMACs(
      to: room.baseAddress!, byteCount: WireGuard.responseByteCount, at: now)
    // The path's MTU may be another by now: with each session it is tried anew.
    peer.pointee.segmentLimit = .max
    guard let dropped = peer.pointee.keypairs.begin(&peer.pointee.handshake, at: now) else {
      freeIndex(index)
      return false
    }
    freeIndex(dropped.0)
    freeIndex(dropped.1)
    peer.pointee.timers.sessionDerived(at: now)
    if peer.pointee.timers.retransmitHandshake.isSet {
      peer.pointee.timers.initiationOverruled(
        at: now, delay: entropy.below(Policy.overruledInitiationDelay))
    }
    appendMessage(
      &batch, byteCount: WireGuard.responseByteCount, peer: peer.pointee.id, path: path)
    events.append(.responseSent, remoteStatic)
    return true
  }

  private mutating func consume(
    _ message: ResponseMessage, _ entry: HandshakeEntry, at now: Instant
  ) -> Verdict {
    guard let found = indices.find(message.receiver),
      found.kind == IndexKind.handshake.rawValue, let peer = peer(found.peer)
    else { return .unknownReceiver }
    switch peer.pointee.handshake.consumeResponse(message, identity: identity, noise: noise) {
    case .accepted: break
    case .lowOrderPoint: return .lowOrderPoint
    case .invalid, .replayed, .tooMany: return .handshakeFailed
    }
    move(peer, to: entry.path)
    peer.pointee.receivedByteCount &+= UInt64(entry.byteCount)
    let index = peer.pointee.handshake.localIndex
    // The path's MTU may be another by now: with each session it is tried anew.
    peer.pointee.segmentLimit = .max
    guard let dropped = peer.pointee.keypairs.begin(&peer.pointee.handshake, at: now) else {
      return .handshakeFailed
    }
    events.append(.responseReceived, peer.pointee.publicKey)
    // The index named the handshake; from here on it names the session.
    indices.setKind(IndexKind.keypair.rawValue, of: index)
    freeIndex(dropped.0)
    freeIndex(dropped.1)
    peer.pointee.lastHandshake = now
    peer.pointee.timers.anyAuthenticatedPacketReceived()
    peer.pointee.timers.anyAuthenticatedPacketTraversal(at: now)
    peer.pointee.timers.handshakeCompleted()
    peer.pointee.timers.sessionDerived(at: now)
    // Either staged packets or a keepalive: the responder may not send before it has heard us.
    peer.pointee.timers.wantKeepalive(at: now)
    reschedule(peer)
    return .handshakeAccepted
  }

  // MARK: Initiating

  /// Writes an initiation to the batch. The caller has checked that it is due and has room.
  mutating func sendInitiation(
    to peer: UnsafeMutablePointer<Peer>, _ batch: inout OutboundBatch, at now: Instant,
    wall: WallTime
  ) {
    guard identity.isSet, let path = peer.pointee.path,
      let room = batch.room(for: WireGuard.initiationByteCount)
    else {
      peer.pointee.timers.initiationFailed(at: now)
      return
    }
    // First, so that no peer ever holds more than its four indices.
    resetHandshake(peer)
    guard let index = makeIndex(for: peer.pointee.id, kind: .handshake) else {
      peer.pointee.timers.initiationFailed(at: now)
      return
    }
    let message = InitiationMessage(writingTo: room.baseAddress!, sender: index)
    let isCreated = peer.pointee.handshake.createInitiation(
      message, localIndex: index, remoteStatic: peer.pointee.publicKey,
      timestamp: timestamps.next(wall), identity: identity, constants: constants, noise: noise,
      entropy: &entropy)
    noise.wipe()
    guard isCreated else {
      freeIndex(index)
      peer.pointee.timers.initiationFailed(at: now)
      counters.add(.lowOrderPoint)
      // No try will ever do better, so nothing may wait for one in the common pool.
      answerStaged(of: peer, &batch, at: now)
      return
    }
    peer.pointee.cookie.addMACs(
      to: room.baseAddress!, byteCount: WireGuard.initiationByteCount, at: now)
    appendMessage(
      &batch, byteCount: WireGuard.initiationByteCount, peer: peer.pointee.id, path: path)
    peer.pointee.timers.initiationSent(at: now, jitter: jitter())
    events.append(.initiationSent, peer.pointee.publicKey)
  }

  /// Takes a handshake message that stands in the batch's room.
  private func appendMessage(
    _ batch: inout OutboundBatch, byteCount: Int, peer: PeerID, path: Path
  ) {
    let index = batch.append(byteCount: byteCount, kind: .message)
    batch.packets[index].session = batch.sessions.append(
      BatchSession(peer: peer, path: path), key: nil)
    batch.packets[index].trafficClass = Tunnel.handshakeTrafficClass
  }
}

/// A handshake message in the ring between the inbound lane and the control path: a slot that
/// holds the message, its length and the path that it came on.
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
