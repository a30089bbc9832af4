/// One session: the two transport keys that a handshake gave, and what guards them.
struct Keypair: BitwiseCopyable {
  /// Layout of a keypair's part of the locked memory, in bytes.
  private enum Offset {
    static let sending = 0
    static let receiving = 32
  }
  static let secretByteCount = 64

  private let secrets: UnsafeMutableRawPointer
  /// Our index, by which arriving transport data names this session; 0 where there is none.
  private(set) var localIndex: UInt32 = 0
  private(set) var remoteIndex: UInt32 = 0
  private(set) var birth = Instant(nanoseconds: 0)
  private(set) var isInitiator = false
  /// Cleared when the private key changes: nothing more is sent with it.
  var maySend = false
  /// The next counter to send with; 64 bits wide on every CPU (R3).
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

  /// Both keys are in place; the session begins.
  mutating func begin(
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

  /// True while `count` (1-65535) more packets may be sealed with it (whitepaper 6.2).
  func canSend(_ count: Int = 1, at now: Instant) -> Bool {
    exists && maySend && now.since(birth) < WireGuard.rejectAfterTime
      && sendCounter <= WireGuard.rejectAfterMessages - UInt64(truncatingIfNeeded: count)
  }

  func canReceive(at now: Instant) -> Bool {
    exists && now.since(birth) < WireGuard.rejectAfterTime
  }

  /// Takes the next `count` counters and returns the first; the caller has asked `canSend`.
  mutating func reserveCounters(_ count: Int = 1) -> UInt64 {
    let counter = sendCounter
    sendCounter &+= UInt64(truncatingIfNeeded: count)
    return counter
  }

  /// A session that its initiator should renew because it has been sent on (whitepaper 6.2).
  func isStaleForSending(at now: Instant) -> Bool {
    sendCounter > WireGuard.rekeyAfterMessages
      || (isInitiator && now.since(birth) >= WireGuard.rekeyAfterTime)
  }

  /// A session that its initiator should renew because it is still being received on.
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
    /// Lets a test stand just before the end of the counter.
    mutating func setSendCounterForTesting(_ counter: UInt64) {
      sendCounter = counter
    }
  #endif
}
