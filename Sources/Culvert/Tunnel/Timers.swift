/// One peer's timers (whitepaper section 6), each named for what happens when it expires, and the
/// events that set and clear them. This is only arithmetic on deadlines: `Tunnel+Timers` acts on
/// what is due.
struct Timers: BitwiseCopyable {
  /// Our initiation got no response: send another.
  private(set) var retransmitHandshake = Deadline.never
  /// Data was received and nothing sent since: send a keepalive (passive keepalive).
  private(set) var sendKeepalive = Deadline.never
  /// Data was sent and nothing received since: the session may be dead, start a new one.
  private(set) var newHandshake = Deadline.never
  /// No new session for so long that the keys are wiped.
  private(set) var zeroKeys = Deadline.never
  private(set) var persistentKeepalive = Deadline.never
  /// A wish below is to be fulfilled as soon as timers run.
  private(set) var work = Deadline.never

  // What `work` is set for.
  private(set) var wantsInitiation = false
  private(set) var wantsKeepalive = false
  private(set) var wantsFlush = false

  private var needsAnotherKeepalive = false
  private(set) var attempts: UInt8 = 0
  private(set) var lastInitiation: Instant?
  /// A session is renewed on receiving only once (`Policy.rekeyOnReceiveAfterTime`).
  private(set) var hasRenewedOnReceive = false
  /// Seconds; 0 for off.
  var persistentKeepaliveInterval: UInt16 = 0 {
    didSet { if persistentKeepaliveInterval == 0 { persistentKeepalive = .never } }
  }

  init() {}

  /// The earliest deadline.
  var next: Deadline {
    min(
      min(retransmitHandshake, min(sendKeepalive, newHandshake)),
      min(zeroKeys, min(persistentKeepalive, work)))
  }

  // MARK: Wishes

  /// Requests an initiation, unless one was sent less than rekey-timeout ago or is about to be
  /// retried. The retry has jitter, and traffic must not initiate before it, or two ends that
  /// initiate at the same time would stay in step (R17).
  mutating func wantInitiation(at now: Instant) {
    attempts = 0
    guard !wantsInitiation, mayInitiate(at: now) else { return }
    guard lastInitiation == nil || !retransmitHandshake.isSet else { return }
    wantsInitiation = true
    work = Deadline(now)
  }

  mutating func wantKeepalive(at now: Instant) {
    wantsKeepalive = true
    work = Deadline(now)
  }

  mutating func wantFlush(at now: Instant) {
    wantsFlush = true
    work = Deadline(now)
  }

  /// Never more than one initiation per rekey-timeout (whitepaper 6.1).
  func mayInitiate(at now: Instant) -> Bool {
    guard let last = lastInitiation else { return true }
    return now.since(last) >= WireGuard.rekeyTimeout
  }

  mutating func clearInitiationWish() {
    wantsInitiation = false
    settleWork()
  }

  mutating func clearKeepaliveWish() {
    wantsKeepalive = false
    settleWork()
  }

  mutating func clearFlushWish() {
    wantsFlush = false
    settleWork()
  }

  private mutating func settleWork() {
    if !wantsInitiation, !wantsKeepalive, !wantsFlush { work = .never }
  }

  // MARK: Events

  /// Data, not a keepalive, was sent.
  mutating func dataSent(at now: Instant, jitter: UInt64) {
    guard !newHandshake.isSet else { return }
    newHandshake = .after(
      WireGuard.keepaliveTimeout + WireGuard.rekeyTimeout + jitter, from: now)
  }

  /// Data, not a keepalive, was received (R16: the timer runs from the first).
  mutating func dataReceived(at now: Instant) {
    if sendKeepalive.isSet {
      needsAnotherKeepalive = true
    } else {
      sendKeepalive = .after(WireGuard.keepaliveTimeout, from: now)
    }
  }

  mutating func anyAuthenticatedPacketSent() {
    sendKeepalive = .never
  }

  mutating func anyAuthenticatedPacketReceived() {
    newHandshake = .never
  }

  /// In either direction, handshake messages included.
  mutating func anyAuthenticatedPacketTraversal(at now: Instant) {
    guard persistentKeepaliveInterval > 0 else { return }
    persistentKeepalive = .after(
      UInt64(persistentKeepaliveInterval) * nanosecondsPerSecond, from: now)
  }

  mutating func initiationSent(at now: Instant, jitter: UInt64) {
    lastInitiation = now
    clearInitiationWish()
    retransmitHandshake = .after(WireGuard.rekeyTimeout + jitter, from: now)
  }

  /// The identity changed: a new initiation may be sent at once. A pending retry stays pending, or
  /// the packets staged for it would wait forever.
  mutating func forgetInitiation() {
    lastInitiation = nil
  }

  /// An initiation could not be made; the next try is due as if it had been sent.
  mutating func initiationFailed(at now: Instant) {
    clearInitiationWish()
    lastInitiation = now
  }

  /// Answering the peer's initiation has replaced our own: leave the next try to the peer.
  mutating func initiationOverruled(at now: Instant, delay: UInt64) {
    guard retransmitHandshake.isSet else { return }
    lastInitiation = now
    retransmitHandshake = .after(WireGuard.rekeyTimeout + delay, from: now)
  }

  mutating func handshakeCompleted() {
    retransmitHandshake = .never
    attempts = 0
    hasRenewedOnReceive = false
  }

  mutating func sessionDerived(at now: Instant) {
    zeroKeys = .after(Policy.zeroKeysAfterTime, from: now)
  }

  mutating func renewedOnReceive() {
    hasRenewedOnReceive = true
  }

  // MARK: Expiries

  enum RetransmitOutcome {
    case retry
    case giveUp
  }

  mutating func retransmitExpired(at now: Instant) -> RetransmitOutcome {
    retransmitHandshake = .never
    // The first initiation counts as a try.
    guard attempts &+ 1 < Policy.handshakeAttempts else {
      sendKeepalive = .never
      if !zeroKeys.isSet { zeroKeys = .after(Policy.zeroKeysAfterTime, from: now) }
      return .giveUp
    }
    attempts &+= 1
    wantsInitiation = true
    work = Deadline(now)
    return .retry
  }

  mutating func keepaliveExpired(at now: Instant) {
    sendKeepalive = .never
    wantKeepalive(at: now)
    if needsAnotherKeepalive {
      needsAnotherKeepalive = false
      sendKeepalive = .after(WireGuard.keepaliveTimeout, from: now)
    }
  }

  mutating func newHandshakeExpired(at now: Instant) {
    newHandshake = .never
    wantInitiation(at: now)
  }

  mutating func persistentKeepaliveExpired(at now: Instant) {
    persistentKeepalive = .never
    guard persistentKeepaliveInterval > 0 else { return }
    // Set again here too, in case nothing can be sent now.
    anyAuthenticatedPacketTraversal(at: now)
    wantKeepalive(at: now)
  }

  mutating func zeroKeysExpired() {
    zeroKeys = .never
  }

  /// Clears all timers: the interface goes down.
  mutating func stop() {
    let interval = persistentKeepaliveInterval
    self = Timers()
    persistentKeepaliveInterval = interval
  }
}
