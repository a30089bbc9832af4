/// Everything about one peer but its keys, which are in the locked part of the arena.
struct Peer: BitwiseCopyable {
  let id: PeerID
  let publicKey: Key
  var handshake: Handshake
  var keypairs: Keypairs
  var timers = Timers()
  var staged = StagedPackets()
  var cookie: ReceivedCookie
  /// Where to send; nil until configured or heard from.
  var path: Path?

  /// Datagrams of at least this size are sent one by one: the kernel refused them as segments of
  /// one buffer, because they exceed the MTU of this path.
  var segmentLimit: UInt16 = .max

  /// Whole messages on the wire, in bytes, as the kernel counts them (R36).
  var receivedByteCount: UInt64 = 0
  var sentByteCount: UInt64 = 0
  /// When the last authentic message arrived. `deliver` may see an answer before `emit` has run
  /// for the datagram that it answers.
  var lastReceived: Instant?
  /// When the last handshake finished; nil for never.
  var lastHandshake: Instant?

  /// The session that this peer last had in a batch, and the serial number of that batch: it saves
  /// searching the batch's sessions for each packet.
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

  /// Changes the path to the peer. What was learned about the path to another endpoint is
  /// forgotten.
  ///
  /// - Returns: whether the address is a different one.
  mutating func move(to path: Path) -> Bool {
    let before = self.path
    self.path = path
    guard before?.endpoint != path.endpoint else { return false }
    segmentLimit = .max
    return before?.endpoint.address != path.endpoint.address
  }
}

/// The peers' states, by their place in the `PeerTable`, and the memory that belongs to each.
///
/// Whoever uses a subscript has a place that is taken: from the table, or from an id that
/// `PeerTable.contains`. A function of the tunnel that passes a peer to another one copies this
/// pointer first (`let peers = peers`): the compiler does not know that the peer is outside `self`.
struct Peers: BitwiseCopyable {
  private let states: UnsafeMutablePointer<Peer>
  private let replayWindows: UnsafeMutablePointer<UInt64>
  private let secrets: UnsafeMutableRawPointer

  /// Chaining key, ephemeral key, preshared key, static product; keypairs; cookie.
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

  // Addresses instead of values: a peer is used in place, not copied.
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

/// What a receiver index names.
enum IndexKind: UInt8 {
  /// The handshake in progress of its peer.
  case handshake = 1
  /// One of its peer's three keypairs.
  case keypair = 2
}
