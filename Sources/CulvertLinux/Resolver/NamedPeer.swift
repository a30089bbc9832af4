import Culvert

/// A peer whose endpoint was configured by host name, and when the name is looked up (again). It
/// does no I/O.
///
/// A name without an address is looked up until it has one. After that it is looked up only while
/// the peer is wanted and silent: after three unanswered initiations, or after one if the network
/// has changed. A tunnel that works, or that nobody uses, causes no lookups.
struct NamedPeer: BitwiseCopyable {
  enum Outcome: Equatable {
    case none
    case found
    case failed(ResolverFailure)
  }

  let publicKey: Key
  let id: PeerID
  let hop: Int
  let port: UInt16
  let nameByteCount: Int
  /// `Tunnel.endpointSettings` when the name was configured. Another number means that a user has
  /// set an endpoint since, and the name no longer counts.
  let settings: UInt32

  /// A lookup is in progress.
  private(set) var isLooking = false
  private(set) var isForgotten = false
  /// A lookup is wanted, at `notBefore`.
  private(set) var isWanted = true
  private(set) var notBefore: Instant
  /// The result of the last lookup, until it has been applied.
  private(set) var outcome = Outcome.none
  /// The failure that has been logged last, so that it is logged once.
  var loggedFailure: ResolverFailure?

  private(set) var candidates = CandidateList()
  /// The endpoint at which the peer last answered a handshake.
  private(set) var answered: Endpoint?

  private var isResolved = false
  /// The network has changed since the last successful lookup.
  private var isSuspect = false
  private var failureCount: UInt64 = 0
  /// Nanoseconds between the last lookup and the next one; 0 after the peer has answered.
  private var interval: UInt64 = 0

  /// Initiations without an answer after which the name is looked up.
  static let silence = 3
  /// Time for addresses, routes and name servers to be there after a change.
  static let settlingTime = 3 * nanosecondsPerSecond / 2
  private static let shortestInterval = 30 * nanosecondsPerSecond
  private static let longestInterval = 300 * nanosecondsPerSecond
  private static let longestPause = 60 * nanosecondsPerSecond

  init(
    publicKey: Key, id: PeerID, hop: Int, port: UInt16, nameByteCount: Int, settings: UInt32,
    at now: Instant
  ) {
    self.publicKey = publicKey
    self.id = id
    self.hop = hop
    self.port = port
    self.nameByteCount = nameByteCount
    self.settings = settings
    notBefore = now
  }

  /// When a lookup must start.
  var deadline: Deadline {
    isWanted && !isLooking && !isForgotten ? Deadline(notBefore) : .never
  }

  /// The user has set an endpoint, or removed the peer.
  mutating func forget() {
    isForgotten = true
    outcome = .none
  }

  // MARK: Lookups

  mutating func didStart() {
    isLooking = true
    isWanted = false
  }

  mutating func didFind(
    _ list: CandidateList, secondsToLive: UInt32, at now: Instant, _ entropy: inout Entropy
  ) {
    candidates = list
    isLooking = false
    isResolved = true
    isSuspect = false
    failureCount = 0
    outcome = .found
    let life = UInt64(secondsToLive) * nanosecondsPerSecond
    let base = min(max(life, NamedPeer.shortestInterval), NamedPeer.longestInterval)
    interval = max(base, min(2 * interval, NamedPeer.longestInterval))
    notBefore = now.advanced(by: NamedPeer.jittered(interval, &entropy))
  }

  mutating func didFail(
    _ failure: ResolverFailure, at now: Instant, _ entropy: inout Entropy
  ) {
    isLooking = false
    outcome = .failed(failure)
    let pause = min(nanosecondsPerSecond << min(failureCount, 6), NamedPeer.longestPause)
    failureCount += 1
    notBefore = now.advanced(by: NamedPeer.jittered(pause, &entropy))
    // Without an address, nothing but a timer would ask again.
    if !isResolved { isWanted = true }
  }

  /// Returns the outcome once.
  mutating func takeOutcome() -> Outcome {
    defer { outcome = .none }
    return outcome
  }

  /// A duration that differs by up to a tenth.
  private static func jittered(_ duration: UInt64, _ entropy: inout Entropy) -> UInt64 {
    duration - duration / 10 + entropy.below(duration / 5)
  }

  // MARK: Events

  /// An initiation was sent; `count` have been sent since the last answer.
  ///
  /// - Returns: whether the next initiation is to go to the next candidate.
  mutating func didSendInitiation(_ count: Int, at now: Instant) -> Bool {
    guard !isForgotten, !isLooking, isResolved else { return false }
    // The one that was just sent may still be answered.
    let isSilent = count > NamedPeer.silence
    if isSilent || (isSuspect && count > 1), now >= notBefore {
      isWanted = true
      return false
    }
    return candidates.count > 1 && (isSilent || (answered == nil && count > 1))
  }

  /// The peer has answered a handshake at this endpoint.
  mutating func didAnswer(_ endpoint: Endpoint?) {
    answered = endpoint
    interval = 0
    failureCount = 0
    notBefore = Instant(nanoseconds: 0)
  }

  /// A link, an address or a route has changed, or the system was suspended.
  mutating func networkChanged(at now: Instant) {
    isSuspect = true
    failureCount = 0
    // Further changes do not postpone the lookup any further.
    let settled = now.advanced(by: NamedPeer.settlingTime)
    if notBefore <= now || notBefore > settled { notBefore = settled }
  }

  // MARK: Candidates

  /// The endpoint to use after a lookup: the present one while the name still has it, or the one
  /// that has answered before, or the first.
  func choice(present: Endpoint?) -> Endpoint? {
    guard candidates.count > 0 else { return present }
    if let present, candidates.index(of: present) != nil { return present }
    if let answered, candidates.index(of: answered) != nil { return answered }
    return candidates[0]
  }

  /// The candidate after the present one.
  func next(after present: Endpoint?) -> Endpoint? {
    guard candidates.count > 0 else { return nil }
    guard let present, let index = candidates.index(of: present) else { return candidates[0] }
    return candidates[(index + 1) % candidates.count]
  }
}

/// Up to eight endpoints that a name has, in the order in which they are tried.
struct CandidateList: BitwiseCopyable {
  private var endpoints = InlineArray<8, Endpoint>(
    repeating: Endpoint(address: IPAddress(ipv4: 0), port: 0))
  private(set) var count = 0

  subscript(index: Int) -> Endpoint { endpoints[index] }

  mutating func append(_ endpoint: Endpoint) {
    guard count < 8 else { return }
    endpoints[count] = endpoint
    count += 1
  }

  func index(of endpoint: Endpoint) -> Int? {
    for index in 0..<count where endpoints[index] == endpoint { return index }
    return nil
  }
}
