/// One WireGuard interface, without its I/O: datagrams and packets go in and come out in batches,
/// time and entropy are parameters, and all memory comes from the arena. The tunnel is a monitor:
/// the shell calls one of its functions at a time; what runs beside it (`seal`, `open`) works on
/// batches alone.
///
/// The steps stand in the files of their direction: `Tunnel+Outbound` (plan, emit),
/// `Tunnel+Inbound` (accept, deliver), `Tunnel+Handshakes`, `Tunnel+Timers` (advance),
/// `Tunnel+Configuration`, `Tunnel+Status`.
public struct Tunnel: ~Copyable {
  public let limits: Limits
  var entropy: Entropy
  var identity: StaticIdentity
  let constants: NoiseConstants
  let noise: SymmetricState

  let peers: UnsafeMutablePointer<Peer>
  private let peerSecrets: UnsafeMutableRawPointer
  private let replayWindows: UnsafeMutablePointer<UInt64>
  private let batchKeys: UnsafeMutableRawPointer
  private var takenBatchKeys = 0

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

  /// End of the time in which handshakes are under load (R5).
  var loadEnd = Instant(nanoseconds: 0)
  /// For ICMP errors written into the TUN, so that a program that floods an unreachable address is
  /// not answered at full rate (RFC 4443 section 2.4(f)).
  var icmpBudget = TokenBucket(perSecond: Policy.icmpPerSecond, burst: Policy.icmpBurst)
  var batchSerial: UInt64 = 0
  /// The interface's MTU in bytes, as the shell last reported it; 0 before that.
  public internal(set) var mtu = Policy.defaultMTU
  public internal(set) var isUp = false
  /// How often the address of a peer's endpoint has changed, by configuration or roaming, and how
  /// many peers have been removed: for who has to follow that.
  public internal(set) var endpointChanges: UInt64 = 0
  public internal(set) var removals: UInt64 = 0
  /// What transport data is sealed and opened with; the shell may choose one by measuring.
  public var cipher = TransportCipher.whole

  /// Carves everything but the batches: an arena's only tunnel.
  ///
  /// Nothing is initialised here, so that a measuring arena may be passed; `start` does that.
  public init(carvingFrom arena: inout Arena, limits: Limits) {
    // The secrets first, so that the locked pages are few.
    let secrets = TunnelSecrets(carvingFrom: &arena, limits: limits)
    arena.endSecrets()
    self.init(carvingFrom: &arena, limits: limits, secrets: secrets)
  }

  /// Carves everything but the batches and the secrets: one of several tunnels of an arena, of the
  /// same limits as the secrets.
  public init(
    carvingFrom arena: inout Arena, limits: Limits, secrets: consuming TunnelSecrets
  ) {
    self.limits = limits
    entropy = .sodium
    identity = secrets.identity
    noise = secrets.noise
    peerSecrets = secrets.peers
    batchKeys = secrets.batchKeys
    cookieChecker = secrets.cookieChecker

    peers = arena.carve(Peer.self, count: limits.peers, owner: "peers: state").baseAddress!
    replayWindows =
      arena.carve(
        UInt64.self, count: limits.peers * Keypairs.windowWordCount, owner: "peers: replay windows"
      ).baseAddress!
    peerTable = PeerTable(carvingFrom: &arena, limits: limits)
    indices = IndexTable(carvingFrom: &arena, limits: limits)
    schedule = Schedule(carvingFrom: &arena, peers: limits.peers)
    allowedIPs = AllowedIPs(carvingFrom: &arena, limits: limits)
    rateLimiter = RateLimiter(carvingFrom: &arena, limits: limits)
    stagingPool = BufferPool(
      carvingFrom: &arena, slots: limits.stagingSlots,
      slotByteCount: Limits.stagingSlotByteCount, owner: "staged packets")
    // A pool of its own: staged packets can never hold the last slot that a handshake needs.
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

  /// Initialises the carved memory. Once, before anything else.
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

  /// Chaining key, ephemeral key, preshared key, static product; keypairs; cookie.
  static let peerSecretByteCount =
    Handshake.secretByteCount + Keypairs.secretByteCount + ReceivedCookie.secretByteCount

  /// Carves an outbound batch for one worker.
  public mutating func makeOutboundBatch(carvingFrom arena: inout Arena) -> OutboundBatch {
    OutboundBatch(carvingFrom: &arena, keys: takeBatchKeys(), limits: limits)
  }

  /// Carves an inbound batch for one worker.
  public mutating func makeInboundBatch(carvingFrom arena: inout Arena) -> InboundBatch {
    InboundBatch(carvingFrom: &arena, keys: takeBatchKeys(), limits: limits)
  }

  private mutating func takeBatchKeys() -> UnsafeMutableRawPointer {
    precondition(takenBatchKeys < limits.batches, "more batches than there are keys for")
    defer { takenBatchKeys += 1 }
    return batchKeys + takenBatchKeys * limits.batchPackets * WireGuard.keyByteCount
  }

  // MARK: Peers

  /// The peer, or nil where it has been removed since the id was taken.
  // A call would be given a copy of the whole tunnel, for each datagram.
  @inline(__always)
  func peer(_ id: PeerID) -> UnsafeMutablePointer<Peer>? {
    guard peerTable.contains(id) else { return nil }
    return peers + Int(id.index)
  }

  /// Puts a fresh peer at its place in the table.
  func initializePeer(_ id: PeerID, publicKey: Key) -> UnsafeMutablePointer<Peer> {
    let index = Int(id.index)
    let secrets = peerSecrets + index * Tunnel.peerSecretByteCount
    let keypairSecrets = secrets + Handshake.secretByteCount
    let peer = peers + index
    peer.initialize(
      to: Peer(
        id: id, publicKey: publicKey, handshake: Handshake(secrets: secrets),
        keypairs: Keypairs(
          secrets: keypairSecrets, windows: replayWindows + index * Keypairs.windowWordCount),
        cookie: ReceivedCookie(secrets: keypairSecrets + Keypairs.secretByteCount)))
    return peer
  }

  /// Where a peer is from now on.
  mutating func move(_ peer: UnsafeMutablePointer<Peer>, to path: Path) {
    if peer.pointee.move(to: path) { endpointChanges &+= 1 }
  }

  /// Whether the peer that `InboundBatch.sender` named is still there.
  public func hasSender(_ sender: UInt32) -> Bool {
    peerTable.peer(atPlace: sender & 0xffff)?.sender == sender
  }

  /// Tells the schedule about deadlines that may have moved earlier.
  mutating func reschedule(_ peer: UnsafeMutablePointer<Peer>) {
    schedule.lower(peer.pointee.id.index, to: peer.pointee.timers.next)
  }

  /// Random milliseconds on top of a timer, so that two ends do not stay in step (R17).
  mutating func jitter() -> UInt64 { entropy.below(Policy.handshakeJitter) }

  // MARK: Indices

  /// A random index that no other session of this interface has (R6).
  mutating func makeIndex(for peer: PeerID, kind: IndexKind) -> UInt32? {
    // The table is never more than half full, so a second draw is already rare.
    for _ in 0..<64 {
      let candidate = entropy.uint32()
      if indices.insert(candidate, peer: peer, kind: kind.rawValue) { return candidate }
    }
    return nil
  }

  /// Frees an index; 0 stands for none.
  mutating func freeIndex(_ index: UInt32) {
    if index != 0 { indices.remove(index) }
  }

  /// Ends the handshake in progress.
  mutating func resetHandshake(_ peer: UnsafeMutablePointer<Peer>) {
    freeIndex(peer.pointee.handshake.localIndex)
    peer.pointee.handshake.reset()
  }

  /// Ends all sessions and wipes their keys.
  mutating func eraseKeypairs(_ peer: UnsafeMutablePointer<Peer>) {
    freeIndex(peer.pointee.keypairs.current.localIndex)
    freeIndex(peer.pointee.keypairs.previous.localIndex)
    freeIndex(peer.pointee.keypairs.next.localIndex)
    peer.pointee.keypairs.eraseAll()
  }
}

/// The parts of the arena that hold a tunnel's keys. Where several tunnels live in one arena, those
/// of all are carved first, so that they lie together in the pages that are locked:
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
      arena.carveBytes(limits.peers * Tunnel.peerSecretByteCount, owner: "secrets: peers")
      .baseAddress!
    batchKeys =
      arena.carveBytes(
        limits.batches * limits.batchPackets * WireGuard.keyByteCount, owner: "secrets: batches"
      ).baseAddress!
    cookieChecker = CookieChecker(carvingFrom: &arena)
  }
}

/// Why a setting was refused. The shell turns each into the errno that wg(8) shows.
public enum ConfigurationError: Error, Sendable {
  /// `Limits.peers` are configured.
  case tooManyPeers
  /// `Limits.allowedIPs` are configured.
  case tooManyAllowedIPs
  /// The peer has been removed.
  case noSuchPeer
}
