/// The sessions of one peer, at most three (whitepaper section 6.3). `current` sends and receives.
/// `previous` only receives. For `next`, this side has sent the response, and has not yet received
/// the initiator's first packet.
struct Keypairs: BitwiseCopyable {
  private(set) var current: Keypair
  private(set) var previous: Keypair
  private(set) var next: Keypair

  static let count = 3
  static let secretByteCount = count * Keypair.secretByteCount
  static var windowWordCount: Int { count * ReplayWindow.wordCount }

  /// Which of the three sessions a transport packet belongs to.
  enum Role: UInt8, BitwiseCopyable {
    case current
    case previous
    case next
  }

  init(secrets: UnsafeMutableRawPointer, windows: UnsafeMutablePointer<UInt64>) {
    let stride = ReplayWindow.wordCount
    current = Keypair(secrets: secrets, window: windows)
    previous = Keypair(secrets: secrets + Keypair.secretByteCount, window: windows + stride)
    next = Keypair(secrets: secrets + 2 * Keypair.secretByteCount, window: windows + 2 * stride)
  }

  // Inlined, because a call would copy all three.
  @inline(__always)
  func role(of localIndex: UInt32) -> Role? {
    guard localIndex != 0 else { return nil }
    if current.localIndex == localIndex { return .current }
    if previous.localIndex == localIndex { return .previous }
    if next.localIndex == localIndex { return .next }
    return nil
  }

  /// Whether transport data that we have sent may have this receiver index.
  func isRemoteIndex(_ index: UInt32) -> Bool {
    current.exists && current.remoteIndex == index
      || previous.exists && previous.remoteIndex == index
  }

  subscript(role: Role) -> Keypair {
    switch role {
    case .current: current
    case .previous: previous
    case .next: next
    }
  }

  /// Starts the session of a finished handshake. An initiator may send at once. A responder waits
  /// for the initiator's first packet, which proves that both sides have the keys.
  ///
  /// - Returns: the local indices of the sessions that it replaces, 0 for none; nil if the
  ///   handshake is not finished.
  mutating func startSession(
    from handshake: inout Handshake, at now: Instant
  ) -> (UInt32, UInt32)? {
    let localIndex = handshake.localIndex
    let remoteIndex = handshake.remoteIndex
    // An initiator's new session becomes `current`, and the old `current` becomes `previous`. If
    // `next` has not been confirmed yet, it becomes `previous` instead, because the peer may
    // already send with it (as in the kernel).
    if handshake.state == .consumedResponse {
      var dropped: (UInt32, UInt32)
      if next.exists {
        dropped = (previous.localIndex, current.localIndex)
        swap(&previous, &next)
        next.erase()
        current.erase()
      } else {
        dropped = (previous.localIndex, 0)
        swap(&previous, &current)
        current.erase()
      }
      guard
        let isInitiator = handshake.split(
          sending: current.sendingKey, receiving: current.receivingKey)
      else { return nil }
      current.start(
        localIndex: localIndex, remoteIndex: remoteIndex, isInitiator: isInitiator, at: now)
      return dropped
    }
    // A responder's new session replaces `next`, and the old `previous` is dropped.
    let dropped = (next.localIndex, previous.localIndex)
    previous.erase()
    next.erase()
    guard
      let isInitiator = handshake.split(sending: next.sendingKey, receiving: next.receivingKey)
    else { return nil }
    next.start(localIndex: localIndex, remoteIndex: remoteIndex, isInitiator: isInitiator, at: now)
    return dropped
  }

  /// Makes `next` the current session, because the initiator's first packet has arrived on it.
  ///
  /// - Returns: the local index of the session that was dropped, 0 for none.
  mutating func confirmNext() -> UInt32 {
    let dropped = previous.localIndex
    previous.erase()
    swap(&previous, &current)
    swap(&current, &next)
    return dropped
  }

  mutating func reserveCounters(_ count: Int) -> UInt64 { current.reserveCounters(count) }

  mutating func accept(_ counter: UInt64, on role: Role) -> Bool {
    switch role {
    case .current: current.replayWindow.accept(counter)
    case .previous: previous.replayWindow.accept(counter)
    case .next: next.replayWindow.accept(counter)
    }
  }

  /// Stops sending, because the private key has changed. Datagrams in flight are still received.
  mutating func stopSending() {
    current.maySend = false
    next.maySend = false
  }

  mutating func eraseAll() {
    current.erase()
    previous.erase()
    next.erase()
  }

  #if !hasFeature(Embedded)
    mutating func setSendCounterForTesting(_ counter: UInt64) {
      current.setSendCounterForTesting(counter)
    }
  #endif
}

/// One session: the two transport keys from a handshake, and the state that limits their use.
struct Keypair: BitwiseCopyable {
  /// Layout of a keypair's part of the locked memory, in bytes.
  private enum Offset {
    static let sending = 0
    static let receiving = 32
  }
  static let secretByteCount = 64

  private let secrets: UnsafeMutableRawPointer
  /// Our index, which received transport data contains; 0 if there is no session.
  private(set) var localIndex: UInt32 = 0
  private(set) var remoteIndex: UInt32 = 0
  private(set) var birth = Instant(nanoseconds: 0)
  private(set) var isInitiator = false
  /// Cleared when the private key changes. The session then only receives.
  var maySend = false
  /// The counter of the next packet, 64 bits wide on every CPU (R3).
  private(set) var sendCounter: UInt64 = 0
  var replayWindow: ReplayWindow

  /// - Parameters:
  ///   - secrets: `secretByteCount` zeroed bytes of locked memory.
  ///   - window: `ReplayWindow.wordCount` zeroed words.
  init(secrets: UnsafeMutableRawPointer, window: UnsafeMutablePointer<UInt64>) {
    self.secrets = secrets
    replayWindow = ReplayWindow(bits: window)
  }

  var sendingKey: UnsafeMutableRawPointer { secrets + Offset.sending }
  var receivingKey: UnsafeMutableRawPointer { secrets + Offset.receiving }
  var exists: Bool { localIndex != 0 }

  /// Starts the session. Both keys have been written.
  mutating func start(
    localIndex: UInt32, remoteIndex: UInt32, isInitiator: Bool, at now: Instant
  ) {
    self.localIndex = localIndex
    self.remoteIndex = remoteIndex
    self.isInitiator = isInitiator
    birth = now
    maySend = true
    sendCounter = 0
    replayWindow.reset()
  }

  /// Whether `count` (1-65535) more packets may be sent in this session (whitepaper 6.2).
  func canSend(_ count: Int = 1, at now: Instant) -> Bool {
    exists && maySend && now.since(birth) < WireGuard.rejectAfterTime
      && sendCounter <= WireGuard.rejectAfterMessages - UInt64(truncatingIfNeeded: count)
  }

  func canReceive(at now: Instant) -> Bool {
    exists && now.since(birth) < WireGuard.rejectAfterTime
  }

  /// Reserves the next `count` counters and returns the first; the caller has checked `canSend`.
  mutating func reserveCounters(_ count: Int = 1) -> UInt64 {
    let counter = sendCounter
    sendCounter &+= UInt64(truncatingIfNeeded: count)
    return counter
  }

  /// Whether sending should renew the session (whitepaper 6.2): on either side after
  /// rekey-after-messages, and on the initiator's side after rekey-after-time.
  func isStaleForSending(at now: Instant) -> Bool {
    sendCounter > WireGuard.rekeyAfterMessages
      || (isInitiator && now.since(birth) >= WireGuard.rekeyAfterTime)
  }

  /// Whether receiving should renew the session (only on the initiator's side).
  func isStaleForReceiving(at now: Instant) -> Bool {
    isInitiator && now.since(birth) >= Policy.rekeyOnReceiveAfterTime
  }

  mutating func erase() {
    Secret.wipe(secrets, byteCount: Keypair.secretByteCount)
    localIndex = 0
    remoteIndex = 0
    isInitiator = false
    maySend = false
    sendCounter = 0
  }

  #if !hasFeature(Embedded)
    /// Lets a test start shortly before the counter reaches its limit.
    mutating func setSendCounterForTesting(_ counter: UInt64) {
      sendCounter = counter
    }
  #endif
}
