/// Everything about one peer. It lives in the arena; its secrets lie apart, in the locked part.
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

  /// Datagrams of this size and above are not sent as segments of one buffer: the kernel refused
  /// it on this path, whose MTU they exceed.
  var segmentLimit: UInt16 = .max

  /// Whole messages on the wire, in bytes, as the kernel counts them (R36).
  var receivedByteCount: UInt64 = 0
  var sentByteCount: UInt64 = 0
  /// When the last authentic message came. An answer may be delivered before `emit` has heard of
  /// what it answers.
  var lastReceived: Instant?
  /// When the last handshake finished; nil for never.
  var lastHandshake: Instant?

  /// The batch filling that this peer last had a session in, and which one: a memo that spares a
  /// search.
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

  /// Where it is from now on. What was learnt about the way to another endpoint is forgotten; true
  /// where the address is another.
  mutating func move(to path: Path) -> Bool {
    let before = self.path
    self.path = path
    guard before?.endpoint != path.endpoint else { return false }
    segmentLimit = .max
    return before?.endpoint.address != path.endpoint.address
  }
}

/// What a receiver index stands for.
enum IndexKind: UInt8 {
  /// The handshake in progress of its peer.
  case handshake = 1
  /// One of its peer's three keypairs.
  case keypair = 2
}
