/// The settings of UAPI. Each takes effect at once, except that changes of allowed IPs are staged
/// first. A peer's sessions survive every setting except a new private key and `setUp(false)`. Its
/// byte counts and the time of its last handshake survive those too.
extension Tunnel {
  // MARK: Device

  public var publicKey: Key? { identity.isSet ? identity.publicKey : nil }

  /// The device's private key (32 bytes), for UAPI's get operation; nil if none is set.
  public var privateKey: UnsafeRawPointer? {
    identity.isSet ? UnsafeRawPointer(identity.privateKey) : nil
  }

  /// Sets the private key from 32 bytes; all zeros remove it. All sessions stop sending, and a peer
  /// that has the device's own public key is removed. Peers with staged packets or a persistent
  /// keepalive start a handshake at once, since a client may set the key last (R59).
  public mutating func setPrivateKey(_ key: UnsafeRawPointer, at now: Instant) {
    if isOwnPrivateKey(key) { return }
    identity.set(key)
    cookieChecker.deriveKeys(publicKey: identity.publicKey)
    if identity.isSet, let own = findPeer(identity.publicKey) { removePeer(own) }
    let peers = peers
    var next = peerTable.firstPeer
    while let id = next {
      peers[id].handshake.precompute(
        identity, noise: noise, remoteStatic: peers[id].publicKey)
      resetHandshake(&peers[id])
      peers[id].keypairs.stopSending()
      peers[id].timers.forgetInitiation()
      if identity.isSet { peerIsConfigured(id, at: now) }
      next = peerTable.peer(after: id)
    }
    noise.wipe()
  }

  /// Whether `key` is already the private key. The stored key is clamped, so `key` is clamped for
  /// the comparison. Otherwise setting the same unclamped key again would end every session.
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

  /// Sets the MTU in bytes, which limits padding. The shell passes at most `Limits.maximumMTU`.
  public mutating func setMTU(_ mtu: Int) {
    self.mtu = max(0, mtu)
  }

  /// Brings the tunnel up or down. While it is up, timers run and keepalives are sent. When it goes
  /// down, sessions end and their keys are wiped. While it is down, nothing is sent.
  public mutating func setUp(_ isUp: Bool, at now: Instant) {
    guard isUp != self.isUp else { return }
    self.isUp = isUp
    let peers = peers
    var next = peerTable.firstPeer
    while let id = next {
      if isUp {
        if peers[id].timers.persistentKeepaliveInterval > 0 {
          startKeepalives(to: &peers[id], at: now)
        }
        reschedule(&peers[id])
      } else {
        dropStaged(of: &peers[id])
        peers[id].timers.stop()
        schedule.remove(id.index)
        initiations.remove(id.index)
        resetHandshake(&peers[id])
        eraseKeypairs(&peers[id])
      }
      next = peerTable.peer(after: id)
    }
    if !isUp {
      dropHandshakes()
    }
  }

  // MARK: Peers

  public var peerCount: Int { peerTable.count }

  public func findPeer(_ publicKey: Key) -> PeerID? {
    publicKey.write(to: noise.remoteStatic)
    return peerTable.find(at: noise.remoteStatic)
  }

  /// Adds a peer, or returns the existing peer with this key.
  public mutating func addPeer(_ publicKey: Key) throws(ConfigurationError) -> PeerID {
    if let id = findPeer(publicKey) { return id }
    publicKey.write(to: noise.remoteStatic)
    guard let id = peerTable.insert(at: noise.remoteStatic) else { throw .tooManyPeers }
    let peers = peers
    peers.initialize(id, publicKey: publicKey)
    peers[id].handshake.precompute(identity, noise: noise, remoteStatic: publicKey)
    noise.wipe()
    peers[id].cookie.deriveKeys(publicKey: publicKey)
    return id
  }

  public mutating func removePeer(_ id: PeerID) {
    guard peerTable.contains(id) else { return }
    let peers = peers
    allowedIPs.removeAll(peer: id.index)
    dropStaged(of: &peers[id])
    schedule.remove(id.index)
    initiations.remove(id.index)
    resetHandshake(&peers[id])
    eraseKeypairs(&peers[id])
    peers[id].handshake.erase()
    peers[id].cookie.erase()
    // The peer may be added again, and its last timestamp is forgotten with it.
    timestamps.raiseFloor(to: peers[id].lastTimestamp)
    peerTable.remove(id)
    removals &+= 1
  }

  public mutating func removeAllPeers() {
    while let id = peerTable.firstPeer { removePeer(id) }
  }

  /// Sets the preshared key from 32 bytes; all zeros mean none. The session continues, and the next
  /// handshake uses the new key (R26).
  public mutating func setPresharedKey(_ key: UnsafeRawPointer, of id: PeerID) {
    guard peerTable.contains(id) else { return }
    peers[id].handshake.presharedKey.copyMemory(from: key, byteCount: WireGuard.keyByteCount)
  }

  public mutating func setEndpoint(_ endpoint: Endpoint, of id: PeerID) {
    guard peerTable.contains(id) else { return }
    let peers = peers
    peers[id].endpointSettings = peers[id].endpointSettings &+ 1
    var endpoint = endpoint
    // `[::1%lo]` is `[::1]`, which is also how the kernel reports the sender (R60).
    if !endpoint.address.needsScope { endpoint.scope = 0 }
    move(&peers[id], to: Path(to: endpoint))
    peers[id].path?.endpoint.isMapped = endpoint.isMapped
  }

  /// Moves the peer to an address that its host name has. Unlike `setEndpoint` this is no setting
  /// of a user, so the peer keeps its name.
  package mutating func moveEndpoint(_ endpoint: Endpoint, of id: PeerID) {
    guard peerTable.contains(id) else { return }
    let peers = peers
    move(&peers[id], to: Path(to: endpoint))
  }

  /// How often the peer's endpoint has been set by configuration; nil if there is no such peer.
  package func endpointSettings(of id: PeerID) -> UInt32? {
    peerTable.contains(id) ? peers[id].endpointSettings : nil
  }

  /// Initiations sent to the peer since it has last answered one, up to 255.
  package func initiationsSinceAnswer(of id: PeerID) -> Int {
    peerTable.contains(id) ? Int(peers[id].timers.initiationsSinceAnswer) : 0
  }

  /// Sets the interval in seconds; 0 means off. Enabling it sends a keepalive at once, which starts
  /// a session if there is none.
  public mutating func setPersistentKeepalive(
    _ seconds: UInt16, of id: PeerID, at now: Instant
  ) {
    guard peerTable.contains(id) else { return }
    let peers = peers
    let wasOff = peers[id].timers.persistentKeepaliveInterval == 0
    peers[id].timers.persistentKeepaliveInterval = seconds
    if wasOff, seconds > 0, isUp { startKeepalives(to: &peers[id], at: now) }
  }

  /// Requests a keepalive now and starts the timer for the next one. If the endpoint or the private
  /// key is still missing, the timer tries again.
  private mutating func startKeepalives(to peer: inout Peer, at now: Instant) {
    peer.timers.anyAuthenticatedPacketTraversal(at: now)
    peer.timers.wantKeepalive(at: now)
    reschedule(&peer)
  }

  /// Sends what had to wait until the peer was configured: staged packets, or the first keepalive.
  public mutating func peerIsConfigured(_ id: PeerID, at now: Instant) {
    guard isUp, peerTable.contains(id) else { return }
    let peers = peers
    if !peers[id].staged.isEmpty {
      peers[id].timers.wantFlush(at: now)
      reschedule(&peers[id])
    } else if peers[id].timers.persistentKeepaliveInterval > 0, peers[id].path != nil,
      !peers[id].keypairs.current.canSend(at: now)
    {
      startKeepalives(to: &peers[id], at: now)
    }
  }

  // MARK: Allowed IPs

  /// Stages a change of allowed IPs. It affects routing only after `commitAllowedIPs`, so an error
  /// later in the same request leaves the peer unchanged.
  public mutating func stageAllowedIP(
    _ prefix: IPPrefix, add: Bool
  ) throws(ConfigurationError) {
    guard allowedIPs.stage(prefix, add: add) else { throw .tooManyAllowedIPs }
  }

  /// Stages the removal of all the peer's current allowed IPs, and discards what was staged before.
  public mutating func stageReplaceAllowedIPs() {
    allowedIPs.stageReplaceAll()
  }

  public mutating func commitAllowedIPs(to id: PeerID) {
    guard peerTable.contains(id) else { return abandonAllowedIPs() }
    allowedIPs.commitStaged(to: id.index)
  }

  public mutating func abandonAllowedIPs() {
    allowedIPs.abandonStaged()
  }
}

/// The state that UAPI's get operation reports, and other state that the shell needs.
extension Tunnel {
  /// One peer as `wg show` prints it.
  public struct PeerStatus {
    public let publicKey: Key
    /// 32 bytes in locked memory, valid until the next call that changes the tunnel. All zeros mean
    /// that there is none.
    public let presharedKey: UnsafeRawPointer
    public let endpoint: Endpoint?
    public let lastHandshake: Instant?
    /// Bytes of complete WireGuard messages (R36).
    public let receivedByteCount: UInt64
    public let sentByteCount: UInt64
    /// In seconds; 0 means off.
    public let persistentKeepalive: UInt16
  }

  /// A position in the list of a peer's allowed IPs.
  public struct AllowedIPCursor {
    fileprivate var cursor: AllowedIPs.Cursor
    fileprivate let peer: PeerID
  }

  /// A position in the list of peers. A listing that is kept while peers are added and removed has
  /// each peer once that exists the whole time (R48).
  package struct PeerCursor: BitwiseCopyable {
    fileprivate let cursor: PeerTable.Cursor
    package var peer: PeerID { cursor.peer }
  }

  /// The position of the first peer; nil if there is none.
  package var firstCursor: PeerCursor? { peerTable.firstCursor.map { PeerCursor(cursor: $0) } }

  /// The position of the next peer, also if the one at `cursor` has been removed; nil at the end.
  package func next(after cursor: PeerCursor) -> PeerCursor? {
    peerTable.next(after: cursor.cursor).map { PeerCursor(cursor: $0) }
  }

  public var firstPeer: PeerID? { peerTable.firstPeer }

  /// The peer configured after `id`; nil at the end, or if `id` has since been removed.
  public func peer(after id: PeerID) -> PeerID? { peerTable.peer(after: id) }

  public func status(of id: PeerID) -> PeerStatus? {
    guard peerTable.contains(id) else { return nil }
    return PeerStatus(
      publicKey: peers[id].publicKey,
      presharedKey: UnsafeRawPointer(peers[id].handshake.presharedKey),
      endpoint: peers[id].path?.endpoint, lastHandshake: peers[id].lastHandshake,
      receivedByteCount: peers[id].receivedByteCount, sentByteCount: peers[id].sentByteCount,
      persistentKeepalive: peers[id].timers.persistentKeepaliveInterval)
  }

  public func allowedIPs(of id: PeerID) -> AllowedIPCursor? {
    guard peerTable.contains(id) else { return nil }
    return AllowedIPCursor(cursor: allowedIPs.cursor(of: id.index), peer: id)
  }

  /// The next prefix; nil at the end, and also if the peer has been removed or has lost a prefix
  /// since the listing started.
  public func next(_ cursor: inout AllowedIPCursor) -> IPPrefix? {
    peerTable.contains(cursor.peer) ? allowedIPs.next(&cursor.cursor) : nil
  }

  /// Whether the listing cannot go on, because its peer, which still exists, has lost a prefix.
  package func isVoid(_ cursor: AllowedIPCursor) -> Bool {
    peerTable.contains(cursor.peer) && allowedIPs.isVoid(cursor.cursor)
  }

  /// Whether the allowed IPs of any peer cover `address`.
  package func hasRoute(to address: IPAddress) -> Bool { allowedIPs.route(address) != nil }

  /// Removes and returns the oldest unread event, for a log.
  public mutating func nextEvent() -> Event? { events.next() }

  public var hasEvents: Bool { events.count > 0 }

  /// Whether handshake messages wait for `runTimers`.
  public var hasHandshakes: Bool { queuedHandshakes > 0 || initiations.count > 0 }

  /// The timestamp that the shell must store now, or nil, which is nearly always the case (R28). If
  /// the clock is right, it is not later than the clock's time.
  public mutating func timestampToPersist() -> TAI64N? { timestamps.stampToPersist() }

  /// The timestamp that the shell stores when the program exits; nil if there is nothing to store.
  public var lastTimestamp: TAI64N? { timestamps.lastToPersist }

  /// Makes all timestamps greater than those of an earlier run, which has stored `stored`.
  public mutating func restoreTimestamp(_ stored: TAI64N) { timestamps.restore(stored) }

  /// From now on, an initiation waits up to half a second until `didPersistTimestamp` confirms that
  /// its timestamp is covered. Without this, the shell stores `timestampToPersist` before it sends.
  public mutating func waitForTimestampStorage() { timestamps.waitsForStorage = true }

  /// A timestamp of `timestampToPersist` is stored, or cannot be stored.
  public mutating func didPersistTimestamp(_ stored: TAI64N) { timestamps.didPersist(stored) }

  /// The timestamps that were to be stored and are not confirmed are lost: `timestampToPersist`
  /// returns another one, if one is needed. Only after `waitForTimestampStorage`.
  package mutating func forgetStorageRequests() { timestamps.forgetRequests() }
}
