/// One WireGuard interface without I/O: datagrams and packets are passed in and out in batches,
/// time and entropy are parameters, and all memory comes from the arena. The tunnel is a monitor:
/// the shell calls one of its functions at a time. The steps that run beside it (`seal`, `open`)
/// use only their batch.
///
/// Each step is in the file of its direction: `Tunnel+Outbound` (plan, emit), `Tunnel+Inbound`
/// (accept, deliver), `Tunnel+Handshakes`, `Tunnel+Timers` (runTimers), `Tunnel+Configuration`.
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
  var cookieChecker: CookieChecker
  var rateLimiter: RateLimiter
  var timestamps: TimestampSource
  let stagingPool: BufferPool
  let handshakePool: BufferPool
  var handshakeRing: SlotRing
  public let counters: Tally<Verdict>
  var events: EventRing

  /// Until then handshakes are under load (R5).
  var loadEnd = Instant(nanoseconds: 0)
  /// For ICMP errors written into the TUN, so that a program that floods an unreachable address is
  /// not answered at full rate (RFC 4443 section 2.4(f)).
  var icmpBudget = TokenBucket(perSecond: Policy.icmpPerSecond, burst: Policy.icmpBurst)
  var batchSerial: UInt64 = 0
  /// The interface's MTU in bytes, as last reported by the shell; 0 before that.
  public internal(set) var mtu = Policy.defaultMTU
  public internal(set) var isUp = false
  /// How often the address of a peer's endpoint has changed, by configuration or roaming. The shell
  /// compares it to notice a change.
  package internal(set) var endpointChanges: UInt64 = 0
  /// How many peers have been removed; likewise.
  public internal(set) var removals: UInt64 = 0
  /// Seals and opens transport data; the shell may replace it by the one that it measured as
  /// fastest.
  public var cipher = TransportCipher.whole

  /// Carves everything but the batches, for an arena with a single tunnel.
  ///
  /// Nothing is initialized here, so that a measuring arena may be passed; `start` does that.
  public init(carvingFrom arena: inout Arena, limits: Limits) {
    // The secrets first, so that few pages have to be locked.
    let secrets = TunnelSecrets(carvingFrom: &arena, limits: limits)
    arena.endSecrets()
    self.init(carvingFrom: &arena, limits: limits, secrets: secrets)
  }

  /// Carves everything but the batches and the secrets, for an arena with several tunnels. The
  /// secrets were carved with the same limits.
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
    allowedIPs = AllowedIPs(carvingFrom: &arena, limits: limits)
    rateLimiter = RateLimiter(carvingFrom: &arena, limits: limits)
    stagingPool = BufferPool(
      carvingFrom: &arena, slots: limits.stagingSlots,
      slotByteCount: Limits.stagingSlotByteCount, owner: "staged packets")
    // A separate pool, so that staged packets never use up the slots that handshakes need.
    handshakePool = BufferPool(
      carvingFrom: &arena, slots: limits.handshakeRing,
      slotByteCount: Limits.handshakeSlotByteCount, owner: "handshake ring")
    handshakeRing = SlotRing(
      carvingFrom: &arena, pool: handshakePool, capacity: limits.handshakeRing,
      owner: "handshake ring")
    counters = Tally(carvingFrom: &arena, owner: "counters")
    events = EventRing(carvingFrom: &arena)
    timestamps = TimestampSource()
    constants = NoiseConstants()
  }

  /// Initializes the carved memory. Called once, before anything else.
  ///
  /// - Parameter entropy: the source of keys, indices and jitter; seeded only in tests.
  public mutating func start(entropy: consuming Entropy = .sodium) {
    self.entropy = entropy
    peerTable.prepare(seed: self.entropy.uint64())
    indices.prepare()
    allowedIPs.prepare()
    rateLimiter.prepare(seed: self.entropy.uint64())
    stagingPool.prepare()
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
    if peer.move(to: path) { endpointChanges &+= 1 }
  }

  /// Whether the peer that `InboundBatch.sender` named still exists.
  public func hasSender(_ sender: UInt32) -> Bool {
    peerTable.peer(atPlace: sender & 0xffff)?.sender == sender
  }

  /// Enters deadlines that may have moved earlier into the schedule.
  mutating func reschedule(_ peer: inout Peer) {
    schedule.lower(peer.id.index, to: peer.timers.next)
  }

  /// Random milliseconds added to a timer, so that two ends do not stay in step (R17).
  mutating func jitter() -> UInt64 { entropy.below(Policy.handshakeJitter) }

  // MARK: Indices

  /// Inserts a random index that no other session of this interface has (R6).
  mutating func makeIndex(for peer: PeerID, kind: IndexKind) -> UInt32? {
    // The table is never more than half full, so even a second draw is rare.
    for _ in 0..<64 {
      let candidate = entropy.uint32()
      if indices.insert(candidate, peer: peer, kind: kind.rawValue) { return candidate }
    }
    return nil
  }

  /// Frees an index; 0 is none.
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

/// The parts of the arena that hold a tunnel's keys. With several tunnels in one arena, all of them
/// are carved first, so that they are together in the pages that are locked:
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

/// Why a setting was refused. The shell maps each to the errno that wg(8) shows.
public enum ConfigurationError: Error, Sendable {
  /// `Limits.peers` are configured.
  case tooManyPeers
  /// `Limits.allowedIPs` are configured.
  case tooManyAllowedIPs
  /// The peer has been removed.
  case noSuchPeer
}
