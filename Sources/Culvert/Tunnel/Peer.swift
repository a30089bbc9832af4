/// The state of one peer, except for its keys, which are in the locked part of the arena.
struct Peer: BitwiseCopyable {
  let id: PeerID
  let publicKey: Key
  var handshake: Handshake
  var keypairs: Keypairs
  var timers = Timers()
  var staged = StagedPackets()
  var cookie: ReceivedCookie
  /// Where to send; nil until the endpoint is configured or the peer is heard from.
  var path: Path?

  /// The timestamp of the last initiation to this peer (R46).
  var lastTimestamp = TAI64N.zero

  /// Datagrams of at least this size are sent one by one, because they exceed the MTU of this path
  /// and the kernel refused to send them as segments of one buffer.
  var segmentLimit: UInt16 = .max

  /// Bytes of complete WireGuard messages, as the kernel counts them (R36).
  var receivedByteCount: UInt64 = 0
  var sentByteCount: UInt64 = 0
  /// When the last authentic message arrived. `emit` reads it, because `deliver` may process an
  /// answer before `emit` has run for the datagram that it answers.
  var lastReceived: Instant?
  /// When the last handshake finished; nil if there was none.
  var lastHandshake: Instant?

  /// This peer's session in the batch with the given serial number. They are cached here, so that
  /// the sessions of the batch need not be searched for each packet.
  var outboundSession: UInt16 = 0
  var inboundSession: UInt16 = 0
  var outboundSerial: UInt64 = 0
  var inboundSerial: UInt64 = 0

  init(
    id: PeerID, publicKey: Key, handshake: Handshake, keypairs: Keypairs, cookie: ReceivedCookie
  ) {
    self.id = id
    self.publicKey = publicKey
    self.handshake = handshake
    self.keypairs = keypairs
    self.cookie = cookie
  }

  /// Changes the path to the peer. If the endpoint changes, the segment limit of the old path is
  /// dropped.
  ///
  /// - Returns: whether the endpoint's address has changed.
  mutating func move(to path: Path) -> Bool {
    let before = self.path
    self.path = path
    guard before?.endpoint != path.endpoint else { return false }
    segmentLimit = .max
    return before?.endpoint.address != path.endpoint.address
  }
}

/// The states of all peers, indexed by place in the `PeerTable`, and the memory of each.
///
/// The subscripts do not check the place. It must be in use: either it comes from the table, or
/// `PeerTable.contains` has confirmed the id. A function of the tunnel that passes a peer to
/// another one first copies this pointer (`let peers = peers`), because the compiler does not know
/// that the peer is outside `self`.
struct Peers: BitwiseCopyable {
  private let states: UnsafeMutablePointer<Peer>
  private let replayWindows: UnsafeMutablePointer<UInt64>
  private let secrets: UnsafeMutableRawPointer

  /// The handshake (chaining key, ephemeral key, preshared key, static product), the keypairs and
  /// the cookie.
  static let secretByteCount =
    Handshake.secretByteCount + Keypairs.secretByteCount + ReceivedCookie.secretByteCount

  /// - Parameter secrets: `secretByteCount` bytes of locked memory for each of `limits.peers`.
  init(carvingFrom arena: inout Arena, limits: Limits, secrets: UnsafeMutableRawPointer) {
    states = arena.carve(Peer.self, count: limits.peers, owner: "peers: state").baseAddress!
    replayWindows =
      arena.carve(
        UInt64.self, count: limits.peers * Keypairs.windowWordCount, owner: "peers: replay windows"
      ).baseAddress!
    self.secrets = secrets
  }

  // Addressors, so that a peer is used in place and not copied.
  subscript(id: PeerID) -> Peer {
    @inline(__always) unsafeAddress { UnsafePointer(states + Int(id.index)) }
    @inline(__always) nonmutating unsafeMutableAddress { states + Int(id.index) }
  }

  subscript(place: UInt32) -> Peer {
    @inline(__always) unsafeAddress { UnsafePointer(states + Int(place)) }
    @inline(__always) nonmutating unsafeMutableAddress { states + Int(place) }
  }

  /// Initializes the place of a new peer.
  func initialize(_ id: PeerID, publicKey: Key) {
    let index = Int(id.index)
    let handshake = secrets + index * Peers.secretByteCount
    let keypairs = handshake + Handshake.secretByteCount
    (states + index).initialize(
      to: Peer(
        id: id, publicKey: publicKey, handshake: Handshake(secrets: handshake),
        keypairs: Keypairs(
          secrets: keypairs, windows: replayWindows + index * Keypairs.windowWordCount),
        cookie: ReceivedCookie(secrets: keypairs + Keypairs.secretByteCount)))
  }
}

/// What a receiver index refers to.
enum IndexKind: UInt8 {
  /// The peer's handshake in progress.
  case handshake = 1
  /// One of the peer's three keypairs.
  case keypair = 2
}
