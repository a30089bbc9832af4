/// The up to three sessions of one peer (whitepaper section 6.3): `current` is sent with,
/// `previous` is still received with, and `next` is one that this side answered for and that
/// waits for the initiator's first packet.
struct Keypairs: BitwiseCopyable {
  private(set) var current: Keypair
  private(set) var previous: Keypair
  private(set) var next: Keypair

  static let count = 3
  static let secretByteCount = count * Keypair.secretByteCount
  static var windowWordCount: Int { count * ReplayWindow.wordCount }

  /// Which of the three a transport packet names.
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

  // Inlined, as it would be given a copy of all three.
  @inline(__always)
  func role(of localIndex: UInt32) -> Role? {
    guard localIndex != 0 else { return nil }
    if current.localIndex == localIndex { return .current }
    if previous.localIndex == localIndex { return .previous }
    if next.localIndex == localIndex { return .next }
    return nil
  }

  subscript(role: Role) -> Keypair {
    switch role {
    case .current: current
    case .previous: previous
    case .next: next
    }
  }

  /// Starts the session of a finished handshake. An initiator may send at once; a responder waits
  /// for the initiator's first packet, which proves that the keys are shared.
  ///
  /// - Returns: the local indices of the sessions that this pushed out, 0 for none.
  mutating func begin(
    _ handshake: inout Handshake, at now: Instant
  ) -> (UInt32, UInt32)? {
    let localIndex = handshake.localIndex
    let remoteIndex = handshake.remoteIndex
    // The new keys go into `next`'s memory, or, where `next` is a session waiting to be confirmed
    // and this side is the initiator, push that one to `previous` first (as the kernel does: the
    // peer may already be sending with it).
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
      current.begin(
        localIndex: localIndex, remoteIndex: remoteIndex, isInitiator: isInitiator, at: now)
      return dropped
    }
    // A responder's new session replaces a waiting one, and the old `previous` goes.
    let dropped = (next.localIndex, previous.localIndex)
    previous.erase()
    next.erase()
    guard
      let isInitiator = handshake.split(sending: next.sendingKey, receiving: next.receivingKey)
    else { return nil }
    next.begin(localIndex: localIndex, remoteIndex: remoteIndex, isInitiator: isInitiator, at: now)
    return dropped
  }

  /// The initiator's first packet arrived on `next`: it becomes current.
  /// - Returns: the local index of the session that this pushed out, 0 for none.
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

  /// The private key has changed: what is out may still arrive, nothing more is sent.
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
