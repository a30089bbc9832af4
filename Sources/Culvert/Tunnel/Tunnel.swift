/// One WireGuard interface, without I/O. Packets and datagrams are passed in and out in batches,
/// time and entropy are parameters, and all memory comes from the arena. The tunnel is a monitor:
/// only one of its functions may run at a time. The parallel steps (`seal`, `open`) use only their
/// batch.
///
/// The steps are in these files: `Tunnel+Outbound` (plan, emit), `Tunnel+Inbound` (accept,
/// deliver), `Tunnel+Handshakes`, `Tunnel+Timers` (runTimers), `Tunnel+Configuration`.
public struct Tunnel: ~Copyable {
  public let limits: Limits
  var entropy: Entropy
  var identity: StaticIdentity
  let constants: NoiseConstants
  let noise: SymmetricState

  let peers: Peers
  private let batchKeys: UnsafeMutableRawPointer
  private var allocatedBatchKeys = 0

  var peerTable: PeerTable
  var indices: IndexTable
  var allowedIPs: AllowedIPs
  var schedule: Schedule
  /// The peers to which an initiation is due, in the order in which it became due. Each turn sends
  /// a few of them (R47).
  var initiations: Schedule
  /// Peers whose local address the shell must check (R40).
  var sourceDoubts = SourceDoubts()
  var cookieChecker: CookieChecker
  var rateLimiter: RateLimiter
  var knownEndpoints: KnownEndpoints
  var timestamps: TimestampSource
  let stagingPool: BufferPool
  var stagingShares: StagingShares
  let handshakePool: BufferPool
  var handshakeRing: SlotRing
  var preferredRing: SlotRing
  public let counters: Tally<Verdict>
  var events: EventRing

  /// Handshakes are under load until this time (R5).
  var loadEnd = Instant(nanoseconds: 0)
  /// Messages without a cookie wait until this time while the tunnel is under load (R50).
  var nextCookies = Instant(nanoseconds: 0)
  /// Limits the rate of ICMP errors written to the TUN, in case a program floods an unreachable
  /// address (RFC 4443 section 2.4(f)).
  var icmpBudget = TokenBucket(perSecond: Policy.icmpPerSecond, burst: Policy.icmpBurst)
  var batchSerial: UInt64 = 0
  /// The interface's MTU in bytes, as last set by the shell; 0 if unknown.
  public internal(set) var mtu = Policy.defaultMTU
  public internal(set) var isUp = false
  /// The number of times that the address of a peer's endpoint has changed, by configuration or
  /// roaming. The shell compares it with an earlier value to detect a change.
  package internal(set) var endpointChanges: UInt64 = 0
  /// The number of peers that have been removed, also to detect a change.
  public internal(set) var removals: UInt64 = 0
  /// Encrypts and decrypts transport data. The shell may replace it by the cipher that it measured
  /// to be the fastest.
  public var cipher = TransportCipher.whole

  /// Carves everything except the batches, for an arena with a single tunnel.
  ///
  /// Carved memory is not initialized here but in `start`, so the arena may be a measuring one.
  public init(carvingFrom arena: inout Arena, limits: Limits) {
    // Secrets are carved first and thus together, so that few pages have to be locked.
    let secrets = TunnelSecrets(carvingFrom: &arena, limits: limits)
    arena.endSecrets()
    self.init(carvingFrom: &arena, limits: limits, secrets: secrets)
  }

  /// Carves everything except the batches and the secrets, for an arena with several tunnels. The
  /// secrets must have been carved with the same limits.
  public init(
    carvingFrom arena: inout Arena, limits: Limits, secrets: consuming TunnelSecrets
  ) {
    self.limits = limits
    entropy = .sodium
    identity = secrets.identity
    noise = secrets.noise
    batchKeys = secrets.batchKeys
    cookieChecker = secrets.cookieChecker

    peers = Peers(carvingFrom: &arena, limits: limits, secrets: secrets.peers)
    peerTable = PeerTable(carvingFrom: &arena, limits: limits)
    indices = IndexTable(carvingFrom: &arena, limits: limits)
    schedule = Schedule(carvingFrom: &arena, peers: limits.peers)
    initiations = Schedule(carvingFrom: &arena, peers: limits.peers)
    allowedIPs = AllowedIPs(carvingFrom: &arena, limits: limits)
    rateLimiter = RateLimiter(carvingFrom: &arena, limits: limits)
    knownEndpoints = KnownEndpoints(carvingFrom: &arena, limits: limits)
    stagingPool = BufferPool(
      carvingFrom: &arena, slots: limits.stagingSlots,
      slotByteCount: Limits.stagingSlotByteCount, owner: "staged packets")
    stagingShares = StagingShares(carvingFrom: &arena, limits: limits)
    // A separate pool, so that staged packets cannot exhaust the slots for handshake messages.
    handshakePool = BufferPool(
      carvingFrom: &arena, slots: limits.handshakeRing,
      slotByteCount: Limits.handshakeSlotByteCount, owner: "handshake ring")
    handshakeRing = SlotRing(
      carvingFrom: &arena, pool: handshakePool, capacity: limits.handshakeRing,
      owner: "handshake ring")
    preferredRing = SlotRing(
      carvingFrom: &arena, pool: handshakePool, capacity: limits.handshakeRing,
      owner: "handshake ring")
    counters = Tally(carvingFrom: &arena, owner: "counters")
    events = EventRing(carvingFrom: &arena)
    timestamps = TimestampSource()
    constants = NoiseConstants()
  }

  /// Initializes the carved memory. Must be called once, before anything else.
  ///
  /// - Parameter entropy: the source of keys, indices and jitter. Only tests pass a seeded one.
  public mutating func start(entropy: consuming Entropy = .sodium) {
    self.entropy = entropy
    peerTable.prepare(seed: self.entropy.uint64())
    indices.prepare()
    allowedIPs.prepare()
    let seed = self.entropy.uint64()
    rateLimiter.prepare(seed: seed)
    knownEndpoints.prepare(seed: ~seed)
    stagingPool.prepare()
    stagingShares.prepare()
    handshakePool.prepare()
  }

  /// Carves an outbound batch for one worker.
  public mutating func makeOutboundBatch(carvingFrom arena: inout Arena) -> OutboundBatch {
    OutboundBatch(carvingFrom: &arena, keys: allocateBatchKeys(), limits: limits)
  }

  /// Carves an inbound batch for one worker.
  public mutating func makeInboundBatch(carvingFrom arena: inout Arena) -> InboundBatch {
    InboundBatch(carvingFrom: &arena, keys: allocateBatchKeys(), limits: limits)
  }

  private mutating func allocateBatchKeys() -> UnsafeMutableRawPointer {
    precondition(allocatedBatchKeys < limits.batches, "more batches than there are keys for")
    defer { allocatedBatchKeys += 1 }
    return batchKeys + allocatedBatchKeys * limits.batchPackets * WireGuard.keyByteCount
  }

  // MARK: Peers

  /// Changes the path to a peer.
  mutating func move(_ peer: inout Peer, to path: Path) {
    let wasUnchecked = peer.isSourceUnchecked
    if peer.path?.endpoint != path.endpoint { knownEndpoints.insert(path.endpoint) }
    if peer.move(to: path) { endpointChanges &+= 1 }
    if peer.isSourceUnchecked, !wasUnchecked { sourceDoubts.add(peer.id.index) }
  }

  /// Whether the peer that `InboundBatch.sender` returned still exists.
  public func hasSender(_ sender: UInt32) -> Bool {
    peerTable.peer(atPlace: sender & 0xffff)?.sender == sender
  }

  /// Updates the schedule after a change that may have brought the peer's next deadline forward.
  mutating func reschedule(_ peer: inout Peer) {
    schedule.lower(peer.id.index, to: peer.timers.next)
  }

  /// A random time in nanoseconds, added to timers so that two ends do not stay synchronized (R17).
  mutating func jitter() -> UInt64 { entropy.below(Policy.handshakeJitter) }

  // MARK: Indices

  /// Inserts a random index that is unique within this tunnel (R6).
  mutating func makeIndex(for peer: PeerID, kind: IndexKind) -> UInt32? {
    // Indices are random and the table is at most half full, so even a second draw is rare.
    for _ in 0..<64 {
      let candidate = entropy.uint32()
      if indices.insert(candidate, peer: peer, kind: kind.rawValue) { return candidate }
    }
    return nil
  }

  /// Frees an index; does nothing for 0.
  mutating func freeIndex(_ index: UInt32) {
    if index != 0 { indices.remove(index) }
  }

  /// Ends the handshake in progress.
  mutating func resetHandshake(_ peer: inout Peer) {
    freeIndex(peer.handshake.localIndex)
    peer.handshake.reset()
  }

  /// Ends all sessions and wipes their keys.
  mutating func eraseKeypairs(_ peer: inout Peer) {
    freeIndex(peer.keypairs.current.localIndex)
    freeIndex(peer.keypairs.previous.localIndex)
    freeIndex(peer.keypairs.next.localIndex)
    peer.keypairs.eraseAll()
  }
}

/// The parts of the arena that hold a tunnel's keys. If several tunnels share an arena, carve the
/// secrets of all tunnels first, so that they share the locked pages:
///
///     let first = TunnelSecrets(carvingFrom: &arena, limits: limits)
///     let second = TunnelSecrets(carvingFrom: &arena, limits: limits)
///     arena.endSecrets()
///     var tunnel = Tunnel(carvingFrom: &arena, limits: limits, secrets: first)
public struct TunnelSecrets: ~Copyable {
  let identity: StaticIdentity
  let noise: SymmetricState
  let peers: UnsafeMutableRawPointer
  let batchKeys: UnsafeMutableRawPointer
  let cookieChecker: CookieChecker

  public init(carvingFrom arena: inout Arena, limits: Limits) {
    identity = StaticIdentity(carvingFrom: &arena)
    noise = SymmetricState(
      scratch: arena.carveBytes(SymmetricState.byteCount, owner: "secrets: handshake scratch")
        .baseAddress!)
    peers =
      arena.carveBytes(limits.peers * Peers.secretByteCount, owner: "secrets: peers")
      .baseAddress!
    batchKeys =
      arena.carveBytes(
        limits.batches * limits.batchPackets * WireGuard.keyByteCount, owner: "secrets: batches"
      ).baseAddress!
    cookieChecker = CookieChecker(carvingFrom: &arena)
  }
}

/// The reason why a setting was refused. The shell maps each to an errno, which wg(8) shows.
public enum ConfigurationError: Error, Sendable {
  /// The limit `Limits.peers` has been reached.
  case tooManyPeers
  /// The limit `Limits.allowedIPs` has been reached.
  case tooManyAllowedIPs
  /// The peer has been removed.
  case noSuchPeer
}
