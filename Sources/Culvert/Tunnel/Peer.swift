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

  /// How often the endpoint has been set by configuration.
  var endpointSettings: UInt32 = 0
  /// The timestamp of the last initiation to this peer (R46).
  var lastTimestamp = TAI64N.zero

  /// Datagrams of at least this size are sent one by one, because they exceed the MTU of this path
  /// and the kernel refused to send them as segments of one buffer.
  var segmentLimit: UInt16 = .max
  /// The pause before larger segments are tried again, in seconds; 0 before the first refusal.
  private var segmentPause: UInt8 = 0
  /// When they are tried again, in whole seconds of the clock.
  private var segmentRetry: UInt32 = 0

  /// Our datagrams to the peer were routed back into the tunnel. A handshake that completes, or
  /// another endpoint, ends this.
  var isLooping = false

  /// Whether the route must still be looked up to judge `path.source` (R40).
  var isSourceUnchecked = false
  /// The interface by which the route to the endpoint does not leave, so a datagram that arrives
  /// there does not choose our address; 0 for none.
  private var refusedInterface: UInt32 = 0
  /// The local address and interface that the routing table chooses anyway, so that `path` names
  /// none; the interface is 0 for none.
  private var impliedSource = IPAddress(ipv4: 0)
  private var impliedInterface: UInt32 = 0

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
    guard let before = self.path, before.endpoint == path.endpoint else {
      let isElsewhere = self.path?.endpoint.address != path.endpoint.address
      if isElsewhere {
        refusedInterface = 0
        impliedInterface = 0
      }
      forgetSegmentLimit()
      isLooping = false
      setSource(of: path)
      return isElsewhere
    }
    if before != path { setSource(of: path) }
    if before.endpoint.isMapped { self.path?.endpoint.isMapped = true }
    return false
  }

  /// Takes over the path, but not the local address if the route is known to leave elsewhere, or to
  /// choose this address anyway.
  private mutating func setSource(of path: Path) {
    let isKnown = path.interface != 0
    let isRefused = isKnown && path.interface == refusedInterface
    let isImplied =
      isKnown && path.interface == impliedInterface && path.source == impliedSource
    isSourceUnchecked = isKnown && !isRefused && !isImplied
    self.path = isRefused || isImplied ? Path(to: path.endpoint) : path
  }

  /// Applies what the routing table says about the local address.
  mutating func settleSource(_ verdict: SourceVerdict) {
    isSourceUnchecked = false
    guard let path, verdict != .needed else { return }
    if verdict == .refused { refusedInterface = path.interface }
    if verdict == .implied {
      impliedInterface = path.interface
      impliedSource = path.source
    }
    self.path = Path(to: path.endpoint)
  }

  /// Routes have changed, so what is known about them no longer counts.
  mutating func doubtSource() {
    refusedInterface = 0
    if impliedInterface != 0, let path, path.interface == 0 {
      self.path = Path(
        endpoint: path.endpoint, source: impliedSource, interface: impliedInterface)
    }
    impliedInterface = 0
    isSourceUnchecked = path.map { $0.interface != 0 } ?? false
  }

  /// Leaves the local address to the routing table. The peer does not answer, perhaps because this
  /// address is no longer valid.
  mutating func forgetSource() {
    isSourceUnchecked = false
    impliedInterface = 0
    if let path { self.path = Path(to: path.endpoint) }
  }

  // MARK: Segments

  /// The longest pause between two attempts, in seconds. An attempt costs one refused system call.
  private static let longestSegmentPause: UInt8 = 8

  /// Lifts the segment limit if the pause since the last refusal is over: the MTU of the path may
  /// have grown again (R65). If it has not, the next refusal doubles the pause.
  @inline(__always)
  mutating func retrySegments(at now: Instant) {
    guard segmentLimit != .max, Peer.seconds(now) >= segmentRetry else { return }
    segmentLimit = .max
  }

  /// Limits segments to less than `byteCount`, which the kernel has refused.
  ///
  /// - Returns: false if this limit, or a lower one, is already known.
  mutating func limitSegments(to byteCount: UInt16, at now: Instant) -> Bool {
    guard byteCount < segmentLimit else { return false }
    let second = Peer.seconds(now)
    if segmentLimit == .max {
      // Only a refusal soon after an attempt shows that the MTU is still the same.
      let isRepeated = second &- segmentRetry <= UInt32(segmentPause)
      let doubled = min(segmentPause &* 2, Peer.longestSegmentPause)
      segmentPause = isRepeated ? max(1, doubled) : 1
    }
    segmentLimit = byteCount
    // One more, because the current second has partly passed.
    segmentRetry = second &+ UInt32(segmentPause) &+ 1
    return true
  }

  /// Tries segments of any size again: on a new path or in a new session.
  mutating func forgetSegmentLimit() {
    segmentLimit = .max
    segmentPause = 0
  }

  private static func seconds(_ now: Instant) -> UInt32 {
    UInt32(truncatingIfNeeded: now.nanoseconds / nanosecondsPerSecond)
  }
}

/// What the routing table says about the local address of a path.
package enum SourceVerdict: UInt8, BitwiseCopyable {
  /// Datagrams to the endpoint leave by another interface, so they would be dropped further on.
  case refused
  /// Datagrams leave by the address's interface, but only with this address if it is named.
  case needed
  /// Datagrams have this address anyway, or there is no route. The address is not named, so that
  /// datagrams follow a route that moves at once.
  case implied
}

/// Finds the peers whose local address must be checked, with bounded work per call: the places of a
/// few peers, and a sweep over all if there are more.
struct SourceDoubts: BitwiseCopyable {
  private var places = InlineArray<16, UInt32>(repeating: 0)
  private var count = 0
  /// The next place of the sweep; nil if there is none.
  private var sweep: UInt32?
  /// Whether the sweep checks every peer again, not only those that wait for a check.
  private(set) var isThorough = false

  var isEmpty: Bool { count == 0 && sweep == nil }

  /// One peer's address has changed.
  mutating func add(_ place: UInt32) {
    if count == 16 {
      sweep = 0
      return
    }
    places[count] = place
    count += 1
  }

  /// Routes have changed: all peers must be checked again.
  mutating func addAll() {
    sweep = 0
    isThorough = true
  }

  /// A place below `limit` to look at, which need not be in use; nil if there is none left.
  mutating func next(limit: Int) -> UInt32? {
    if count > 0 {
      count -= 1
      return places[count]
    }
    guard let place = sweep, Int(place) < limit else {
      sweep = nil
      isThorough = false
      return nil
    }
    sweep = place + 1
    return place
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
