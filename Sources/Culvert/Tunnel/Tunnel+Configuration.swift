/// What UAPI sets. Every function takes effect at once and keeps what it does not name: sessions,
/// counters and the last handshake of an existing peer survive any setting but a new private key.
extension Tunnel {
  // MARK: Device

  public var publicKey: Key? { identity.isSet ? identity.publicKey : nil }

  /// The device's private key, for UAPI's get; 32 bytes. Nil where unset.
  public var privateKey: UnsafeRawPointer? {
    identity.isSet ? UnsafeRawPointer(identity.privateKey) : nil
  }

  /// Takes 32 bytes; all zero unset the key. Every peer's session stops sending, and a peer that
  /// has the device's own public key is removed.
  public mutating func setPrivateKey(_ key: UnsafeRawPointer) {
    if isOwnPrivateKey(key) { return }
    identity.set(key)
    cookieChecker.deriveKeys(publicKey: identity.publicKey)
    if identity.isSet, let own = findPeer(identity.publicKey) { removePeer(own) }
    var next = peerTable.firstPeer
    while let id = next {
      let peer = peers + Int(id.index)
      peer.pointee.handshake.precompute(
        identity, noise: noise, remoteStatic: peer.pointee.publicKey)
      resetHandshake(peer)
      peer.pointee.keypairs.stopSending()
      peer.pointee.timers.forgetInitiation()
      next = peerTable.peer(after: id)
    }
    noise.wipe()
  }

  /// Whether this is the key that is set; compared clamped, as it is kept, or one that was never
  /// clamped would seem new each time and end every session.
  private func isOwnPrivateKey(_ key: UnsafeRawPointer) -> Bool {
    guard identity.isSet, !Secret.isZero(key, byteCount: WireGuard.keyByteCount) else {
      return false
    }
    noise.plaintext.copyMemory(from: key, byteCount: WireGuard.keyByteCount)
    X25519.clamp(noise.plaintext)
    let isOwn = Secret.equal(
      noise.plaintext, identity.privateKey, byteCount: WireGuard.keyByteCount)
    noise.wipe()
    return isOwn
  }

  /// The MTU in bytes, for padding. Values beyond `Limits.maximumMTU` are the shell's to refuse.
  public mutating func setMTU(_ mtu: Int) {
    self.mtu = max(0, mtu)
  }

  /// Up: timers run, keepalives go out. Down: sessions end, keys are wiped, nothing is sent.
  public mutating func setUp(_ isUp: Bool, at now: Instant) {
    guard isUp != self.isUp else { return }
    self.isUp = isUp
    var next = peerTable.firstPeer
    while let id = next {
      let peer = peers + Int(id.index)
      if isUp {
        if peer.pointee.timers.persistentKeepaliveInterval > 0 {
          startKeepalives(to: peer, at: now)
        }
        reschedule(peer)
      } else {
        peer.pointee.staged.dropAll(from: stagingPool)
        peer.pointee.timers.stop()
        schedule.remove(id.index)
        resetHandshake(peer)
        eraseKeypairs(peer)
      }
      next = peerTable.peer(after: id)
    }
    if !isUp {
      while let slot = handshakeRing.pop() { _ = consume slot }
    }
  }

  // MARK: Peers

  public var peerCount: Int { peerTable.count }

  public func findPeer(_ publicKey: Key) -> PeerID? {
    publicKey.write(to: noise.remoteStatic)
    return peerTable.find(at: noise.remoteStatic)
  }

  /// Adds a peer, or finds the one that has this key.
  public mutating func addPeer(_ publicKey: Key) throws(ConfigurationError) -> PeerID {
    if let id = findPeer(publicKey) { return id }
    publicKey.write(to: noise.remoteStatic)
    guard let id = peerTable.insert(at: noise.remoteStatic) else { throw .tooManyPeers }
    let peer = initializePeer(id, publicKey: publicKey)
    peer.pointee.handshake.precompute(identity, noise: noise, remoteStatic: publicKey)
    noise.wipe()
    peer.pointee.cookie.deriveKeys(publicKey: publicKey)
    return id
  }

  public mutating func removePeer(_ id: PeerID) {
    guard let peer = peer(id) else { return }
    allowedIPs.removeAll(peer: id.index)
    peer.pointee.staged.dropAll(from: stagingPool)
    schedule.remove(id.index)
    resetHandshake(peer)
    eraseKeypairs(peer)
    peer.pointee.handshake.erase()
    peer.pointee.cookie.erase()
    peerTable.remove(id)
    removals &+= 1
  }

  public mutating func removeAllPeers() {
    while let id = peerTable.firstPeer { removePeer(id) }
  }

  /// Takes 32 bytes; all zero mean none. The session goes on; the next handshake uses the new key
  /// (R26).
  public mutating func setPresharedKey(_ key: UnsafeRawPointer, of id: PeerID) {
    guard let peer = peer(id) else { return }
    peer.pointee.handshake.presharedKey.copyMemory(from: key, byteCount: WireGuard.keyByteCount)
  }

  public mutating func setEndpoint(_ endpoint: Endpoint, of id: PeerID) {
    guard let peer = peer(id) else { return }
    move(peer, to: Path(to: endpoint))
  }

  /// Seconds, 0 for off. Switching it on sends a keepalive at once, which also opens a session.
  public mutating func setPersistentKeepalive(
    _ seconds: UInt16, of id: PeerID, at now: Instant
  ) {
    guard let peer = peer(id) else { return }
    let wasOff = peer.pointee.timers.persistentKeepaliveInterval == 0
    peer.pointee.timers.persistentKeepaliveInterval = seconds
    if wasOff, seconds > 0, isUp { startKeepalives(to: peer, at: now) }
  }

  /// Sends one now, and goes on trying where that is not possible yet, for want of an endpoint or
  /// of the private key.
  private mutating func startKeepalives(to peer: UnsafeMutablePointer<Peer>, at now: Instant) {
    peer.pointee.timers.anyAuthenticatedPacketTraversal(at: now)
    peer.pointee.timers.wantKeepalive(at: now)
    reschedule(peer)
  }

  /// Sends what a peer that has just been configured was waiting with.
  public mutating func peerIsConfigured(_ id: PeerID, at now: Instant) {
    guard isUp, let peer = peer(id) else { return }
    if !peer.pointee.staged.isEmpty {
      peer.pointee.timers.wantFlush(at: now)
      reschedule(peer)
    } else if peer.pointee.timers.persistentKeepaliveInterval > 0, peer.pointee.path != nil,
      !peer.pointee.keypairs.current.exists
    {
      startKeepalives(to: peer, at: now)
    }
  }

  // MARK: Allowed IPs

  /// Stages a change of allowed IPs. Nothing routes by it before `commitAllowedIPs`, so that an
  /// error further on in the same request leaves the peer as it was.
  public mutating func stageAllowedIP(
    _ prefix: IPPrefix, add: Bool
  ) throws(ConfigurationError) {
    guard allowedIPs.stage(prefix, add: add) else { throw .tooManyAllowedIPs }
  }

  /// The peer's present allowed IPs will go first.
  public mutating func stageReplaceAllowedIPs() {
    allowedIPs.stageReplaceAll()
  }

  public mutating func commitAllowedIPs(to id: PeerID) {
    guard peer(id) != nil else { return abandonAllowedIPs() }
    allowedIPs.commitStaged(to: id.index)
  }

  public mutating func abandonAllowedIPs() {
    allowedIPs.abandonStaged()
  }
}

/// What UAPI gets.
extension Tunnel {
  /// One peer as `wg show` prints it.
  public struct PeerStatus {
    public let publicKey: Key
    /// 32 bytes in locked memory, valid until the next call that changes the tunnel; all zero for
    /// none.
    public let presharedKey: UnsafeRawPointer
    public let endpoint: Endpoint?
    public let lastHandshake: Instant?
    /// Whole messages, in bytes (R36).
    public let receivedByteCount: UInt64
    public let sentByteCount: UInt64
    /// Seconds; 0 for off.
    public let persistentKeepalive: UInt16
  }

  /// Where a listing of allowed IPs stands.
  public struct AllowedIPCursor {
    fileprivate var cursor: AllowedIPs.Cursor
  }

  public var firstPeer: PeerID? { peerTable.firstPeer }

  /// The peer configured after `id`; nil also where `id` has been removed meanwhile.
  public func peer(after id: PeerID) -> PeerID? { peerTable.peer(after: id) }

  public func status(of id: PeerID) -> PeerStatus? {
    guard let peer = peer(id) else { return nil }
    return PeerStatus(
      publicKey: peer.pointee.publicKey,
      presharedKey: UnsafeRawPointer(peer.pointee.handshake.presharedKey),
      endpoint: peer.pointee.path?.endpoint, lastHandshake: peer.pointee.lastHandshake,
      receivedByteCount: peer.pointee.receivedByteCount,
      sentByteCount: peer.pointee.sentByteCount,
      persistentKeepalive: peer.pointee.timers.persistentKeepaliveInterval)
  }

  public func allowedIPs(of id: PeerID) -> AllowedIPCursor? {
    guard peer(id) != nil else { return nil }
    return AllowedIPCursor(cursor: allowedIPs.cursor(of: id.index))
  }

  public func next(_ cursor: inout AllowedIPCursor) -> IPPrefix? {
    allowedIPs.next(&cursor.cursor)
  }

  /// The oldest event that has not been read; for a log.
  public mutating func nextEvent() -> Event? { events.next() }

  public var hasEvents: Bool { events.count > 0 }

  /// Handshake messages wait for `runTimers`.
  public var hasHandshakes: Bool { !handshakeRing.isEmpty }

  /// The horizon of timestamps that the shell should store now; seldom other than nil (R28).
  public mutating func timestampToPersist() -> TAI64N? { timestamps.floorToPersist() }

  /// The last timestamp sent, to be stored at a clean end; nil where none was.
  public var lastTimestamp: TAI64N? { timestamps.lastSent }

  /// Starts timestamps at what an earlier run stored.
  public mutating func restoreTimestamp(_ floor: TAI64N) {
    timestamps = TimestampSource(floor: floor)
  }
}
