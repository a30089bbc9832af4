/// One peer's timers (whitepaper section 6), each named after what happens when it expires, and the
/// events that set and clear them. This type only computes deadlines; `Tunnel+Timers` acts when a
/// timer is due.
struct Timers: BitwiseCopyable {
  /// Our initiation was not answered: send another one.
  private(set) var retransmitHandshake = Deadline.never
  /// Data was received and nothing has been sent since: send a (passive) keepalive.
  private(set) var sendKeepalive = Deadline.never
  /// Data was sent and nothing has been received since: the session may be dead, start a new one.
  private(set) var newHandshake = Deadline.never
  /// There has been no new session for `Policy.zeroKeysAfterTime`: wipe the keys.
  private(set) var zeroKeys = Deadline.never
  private(set) var persistentKeepalive = Deadline.never
  /// A packet is staged, and it was too early for an initiation: request one.
  private(set) var postponedInitiation = Deadline.never
  /// Due as soon as one of the requests below is pending.
  private(set) var work = Deadline.never

  // The pending requests.
  private(set) var wantsInitiation = false
  private(set) var wantsKeepalive = false
  private(set) var wantsFlush = false

  private var needsAnotherKeepalive = false
  private(set) var attempts: UInt8 = 0
  /// Initiations sent since the last handshake or cookie reply, up to 255. Unlike `attempts`, it
  /// keeps counting when new traffic asks for a handshake.
  private(set) var initiationsSinceAnswer: UInt8 = 0
  private(set) var lastInitiation: Instant?
  /// Receiving renews a session only once (`Policy.rekeyOnReceiveAfterTime`).
  private(set) var hasRenewedOnReceive = false
  /// In seconds; 0 means off.
  var persistentKeepaliveInterval: UInt16 = 0 {
    didSet { if persistentKeepaliveInterval == 0 { persistentKeepalive = .never } }
  }

  init() {}

  /// The earliest deadline.
  var next: Deadline {
    min(
      min(retransmitHandshake, min(sendKeepalive, newHandshake)),
      min(zeroKeys, min(persistentKeepalive, min(postponedInitiation, work))))
  }

  // MARK: Requests

  /// Requests an initiation, unless one was sent less than rekey-timeout ago or a retry is
  /// scheduled. The retry has jitter. Traffic must not cause an initiation before the retry,
  /// otherwise two ends that initiate at the same time would stay synchronized (R17).
  mutating func wantInitiation(at now: Instant) {
    attempts = 0
    guard !wantsInitiation, mayInitiate(at: now) else { return }
    guard lastInitiation == nil || !retransmitHandshake.isSet else { return }
    wantsInitiation = true
    work = Deadline(now)
  }

  /// Schedules a request for an initiation, unless one is requested or a retry is scheduled.
  ///
  /// - Parameter delay: nanoseconds after the time from which initiations are allowed again.
  mutating func postponeInitiation(by delay: UInt64) {
    guard !isInitiating, let last = lastInitiation else { return }
    postponedInitiation = .after(WireGuard.rekeyTimeout + delay, from: last)
  }

  /// Whether an initiation is requested, or a retry is scheduled.
  var isInitiating: Bool { wantsInitiation || retransmitHandshake.isSet }

  mutating func wantKeepalive(at now: Instant) {
    wantsKeepalive = true
    work = Deadline(now)
  }

  mutating func wantFlush(at now: Instant) {
    wantsFlush = true
    work = Deadline(now)
  }

  /// Limits initiations to one per rekey-timeout (whitepaper 6.1).
  func mayInitiate(at now: Instant) -> Bool {
    guard let last = lastInitiation else { return true }
    return now.since(last) >= WireGuard.rekeyTimeout
  }

  mutating func clearInitiationWish() {
    wantsInitiation = false
    settleWork()
  }

  /// The initiation is in the tunnel's queue of initiations, and no longer due in the schedule.
  mutating func initiationQueued() {
    if !wantsKeepalive, !wantsFlush { work = .never }
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

  /// Data was sent, not a keepalive.
  mutating func dataSent(at now: Instant, jitter: UInt64) {
    guard !newHandshake.isSet else { return }
    newHandshake = .after(
      WireGuard.keepaliveTimeout + WireGuard.rekeyTimeout + jitter, from: now)
  }

  /// Data was received, not a keepalive. The timer runs from the first data packet; later ones do
  /// not restart it (R16).
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

  /// A packet or handshake message was sent or received.
  mutating func anyAuthenticatedPacketTraversal(at now: Instant) {
    guard persistentKeepaliveInterval > 0 else { return }
    persistentKeepalive = .after(
      UInt64(persistentKeepaliveInterval) * nanosecondsPerSecond, from: now)
  }

  mutating func initiationSent(at now: Instant, jitter: UInt64) {
    lastInitiation = now
    if initiationsSinceAnswer < .max { initiationsSinceAnswer &+= 1 }
    clearInitiationWish()
    postponedInitiation = .never
    retransmitHandshake = .after(WireGuard.rekeyTimeout + jitter, from: now)
  }

  /// The device's key has changed, so a new initiation may be sent at once. A scheduled retry stays
  /// scheduled, otherwise the packets staged for it would wait forever.
  mutating func forgetInitiation() {
    lastInitiation = nil
  }

  /// The initiation stays requested, but is not made before `until`. Keepalives and staged packets
  /// wait for it too, because they only remain if there is no session.
  mutating func initiationHeld(until: Deadline) {
    wantsInitiation = true
    work = until
  }

  /// An initiation could not be made. The next one may follow after rekey-timeout, as if this one
  /// had been sent, but no retry is scheduled.
  mutating func initiationFailed(at now: Instant) {
    clearInitiationWish()
    lastInitiation = now
  }

  /// Our own initiation was abandoned in order to answer the peer's: postpone our retry, so that
  /// the peer can retry first.
  mutating func initiationOverruled(at now: Instant, delay: UInt64) {
    guard retransmitHandshake.isSet else { return }
    lastInitiation = now
    retransmitHandshake = .after(WireGuard.rekeyTimeout + delay, from: now)
  }

  /// The peer has answered an initiation with a cookie: it is there.
  mutating func cookieReceived() {
    initiationsSinceAnswer = 0
  }

  /// A response was sent. It counts as a handshake sent, as in the kernel's WireGuard: we send no
  /// initiation until the peer has had time to use the session (R51).
  mutating func responseSent(at now: Instant) {
    lastInitiation = now
  }

  mutating func handshakeCompleted() {
    initiationsSinceAnswer = 0
    retransmitHandshake = .never
    postponedInitiation = .never
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
    // The first initiation is counted as an attempt too.
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

  mutating func postponedInitiationExpired() {
    postponedInitiation = .never
  }

  mutating func persistentKeepaliveExpired(at now: Instant) {
    persistentKeepalive = .never
    guard persistentKeepaliveInterval > 0 else { return }
    // Sending restarts the timer. It is also restarted here, in case nothing can be sent now.
    anyAuthenticatedPacketTraversal(at: now)
    wantKeepalive(at: now)
  }

  mutating func zeroKeysExpired() {
    zeroKeys = .never
  }

  /// Clears all timers, when the interface goes down.
  mutating func stop() {
    let interval = persistentKeepaliveInterval
    self = Timers()
    persistentKeepaliveInterval = interval
  }
}
