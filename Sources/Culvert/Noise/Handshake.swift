/// The handshake with one peer: Noise_IKpsk2 in either role (whitepaper section 5.4).
///
///     <- s
///     -> e, es, s, ss, {timestamp}      first message, "initiation"
///     <- e, ee, se, psk, {}             second message, "response"
///
/// Each step works on a scratch `SymmetricState`, and commits only after everything has been
/// verified. A message that fails verification leaves the peer unchanged. The caller wipes the
/// scratch state.
struct Handshake: BitwiseCopyable {
  enum State: UInt8, BitwiseCopyable {
    case none
    case createdInitiation
    case consumedInitiation
    case createdResponse
    case consumedResponse
  }

  enum Outcome: UInt8, BitwiseCopyable {
    case accepted
    /// The tag or the state is wrong: the message is a forgery or a late response.
    case invalid
    /// A public key is a low-order point, so the shared secret is zero (R31).
    case lowOrderPoint
    /// The timestamp is not greater than the greatest received (R32).
    case replayed
    /// The peer has sent more than 50 initiations per second (R32).
    case tooMany
  }

  /// Layout of a handshake's part of the locked memory, in bytes.
  private enum Offset {
    static let chainingKey = 0
    static let ephemeralPrivate = 32
    static let presharedKey = 64
    static let staticStatic = 96
  }
  static let secretByteCount = 128

  private let secrets: UnsafeMutableRawPointer
  private(set) var state = State.none
  /// Our index for the handshake in progress; 0 if it has none.
  private(set) var localIndex: UInt32 = 0
  private(set) var remoteIndex: UInt32 = 0
  private var hash = Key.zero
  private var remoteEphemeral = Key.zero
  /// The greatest timestamp received from this peer (R32); `reset` keeps it.
  private var latestTimestamp = TAI64N.zero
  private var lastConsumedInitiation: Instant?

  /// - Parameter secrets: `secretByteCount` zeroed bytes of locked memory.
  init(secrets: UnsafeMutableRawPointer) {
    self.secrets = secrets
  }

  private var chainingKey: UnsafeMutableRawPointer { secrets + Offset.chainingKey }
  private var ephemeralPrivate: UnsafeMutableRawPointer { secrets + Offset.ephemeralPrivate }
  var presharedKey: UnsafeMutableRawPointer { secrets + Offset.presharedKey }
  private var staticStatic: UnsafeMutableRawPointer { secrets + Offset.staticStatic }

  /// Computes the shared secret of the two static keys, or zeroes it if there is none. If it is
  /// zero, a handshake fails before anything is sent (R31).
  func precompute(_ identity: borrowing StaticIdentity, noise: SymmetricState, remoteStatic: Key) {
    Secret.wipe(staticStatic, byteCount: WireGuard.keyByteCount)
    guard identity.isSet else { return }
    remoteStatic.write(to: noise.remoteStatic)
    // On failure the output stays zero, which `mixPrecomputed` checks.
    _ = X25519.multiply(
      into: staticStatic, secret: identity.privateKey, point: noise.remoteStatic)
  }

  // MARK: First message

  /// Completes an initiation whose header has been written, except for its MACs.
  ///
  /// - Returns: false, with nothing changed, if a shared secret is zero (R31).
  mutating func createInitiation(
    _ message: InitiationMessage, localIndex: UInt32, remoteStatic: Key, timestamp: TAI64N,
    identity: borrowing StaticIdentity, constants: NoiseConstants, noise: SymmetricState,
    entropy: inout Entropy
  ) -> Bool {
    remoteStatic.write(to: noise.remoteStatic)
    // <- s
    noise.start(from: constants, responder: remoteStatic)
    // e
    noise.makeEphemeral(into: message.ephemeral, entropy: &entropy)
    noise.mixEphemeral(message.ephemeral)
    // es
    guard
      noise.mixDH(secret: noise.ephemeralPrivate, point: noise.remoteStatic, keyed: true)
    else { return false }
    // s
    identity.publicKey.write(to: noise.plaintext)
    noise.encryptAndHash(
      noise.plaintext, byteCount: WireGuard.keyByteCount, into: message.encryptedStatic)
    // ss
    guard noise.mixPrecomputed(staticStatic) else { return false }
    // {timestamp}
    timestamp.write(to: noise.plaintext)
    noise.encryptAndHash(
      noise.plaintext, byteCount: WireGuard.timestampByteCount, into: message.encryptedTimestamp)

    ephemeralPrivate.copyMemory(from: noise.ephemeralPrivate, byteCount: WireGuard.keyByteCount)
    self.localIndex = localIndex
    commit(noise, as: .createdInitiation)
    return true
  }

  /// Reads an initiation up to the sender's static key, so that the caller can find the peer.
  ///
  /// - Returns: the sender's static key; nil if the message is invalid.
  static func openInitiation(
    _ message: InitiationMessage, identity: borrowing StaticIdentity, constants: NoiseConstants,
    noise: SymmetricState
  ) -> Key? {
    guard identity.isSet else { return nil }
    // <- s
    noise.start(from: constants, responder: identity.publicKey)
    // e
    noise.mixEphemeral(message.ephemeral)
    // es
    guard noise.mixDH(secret: identity.privateKey, point: message.ephemeral, keyed: true) else {
      return nil
    }
    // s
    guard
      noise.decryptAndHash(
        message.encryptedStatic, byteCount: WireGuard.keyByteCount, into: noise.remoteStatic)
    else { return nil }
    return Key(at: noise.remoteStatic)
  }

  /// Continues after `openInitiation`, now that the peer is known.
  mutating func consumeInitiation(
    _ message: InitiationMessage, noise: SymmetricState, at now: Instant
  ) -> Outcome {
    // ss
    guard noise.mixPrecomputed(staticStatic) else { return .lowOrderPoint }
    // {timestamp}
    guard
      noise.decryptAndHash(
        message.encryptedTimestamp, byteCount: WireGuard.timestampByteCount, into: noise.plaintext)
    else { return .invalid }
    let timestamp = TAI64N(at: noise.plaintext)
    guard timestamp > latestTimestamp else { return .replayed }
    if let last = lastConsumedInitiation, now.since(last) < Policy.initiationInterval {
      return .tooMany
    }

    remoteEphemeral = Key(at: message.ephemeral)
    remoteIndex = message.sender
    // The caller frees the index of the handshake that this one replaces.
    localIndex = 0
    latestTimestamp = timestamp
    lastConsumedInitiation = now
    commit(noise, as: .consumedInitiation)
    return .accepted
  }

  // MARK: Second message

  /// Completes a response to the consumed initiation, except for its MACs. The header has been
  /// written.
  mutating func createResponse(
    _ message: ResponseMessage, localIndex: UInt32, remoteStatic: Key, noise: SymmetricState,
    entropy: inout Entropy
  ) -> Bool {
    guard state == .consumedInitiation else { return false }
    noise.resume(chainingKey: chainingKey, hash: hash)
    // e
    noise.makeEphemeral(into: message.ephemeral, entropy: &entropy)
    noise.mixEphemeral(message.ephemeral)
    // ee
    remoteEphemeral.write(to: noise.remoteStatic)
    guard noise.mixDH(secret: noise.ephemeralPrivate, point: noise.remoteStatic) else {
      return false
    }
    // se
    remoteStatic.write(to: noise.remoteStatic)
    guard noise.mixDH(secret: noise.ephemeralPrivate, point: noise.remoteStatic) else {
      return false
    }
    // psk
    noise.mixPresharedKey(presharedKey)
    // {}
    noise.encryptAndHash(noise.plaintext, byteCount: 0, into: message.encryptedNothing)

    self.localIndex = localIndex
    commit(noise, as: .createdResponse)
    return true
  }

  /// Reads the response to the last initiation. A late response is accepted too, unless a newer
  /// initiation has replaced the one that it answers (R18).
  mutating func consumeResponse(
    _ message: ResponseMessage, identity: borrowing StaticIdentity, noise: SymmetricState
  ) -> Outcome {
    guard state == .createdInitiation, message.receiver == localIndex else { return .invalid }
    noise.resume(chainingKey: chainingKey, hash: hash)
    // e
    noise.mixEphemeral(message.ephemeral)
    // ee
    guard noise.mixDH(secret: ephemeralPrivate, point: message.ephemeral) else {
      return .lowOrderPoint
    }
    // se
    guard noise.mixDH(secret: identity.privateKey, point: message.ephemeral) else {
      return .lowOrderPoint
    }
    // psk
    noise.mixPresharedKey(presharedKey)
    // {}
    guard noise.decryptAndHash(message.encryptedNothing, byteCount: 0, into: noise.plaintext)
    else { return .invalid }

    remoteIndex = message.sender
    commit(noise, as: .consumedResponse)
    return .accepted
  }

  // MARK: Completion

  /// Splits a finished handshake into the two transport keys (whitepaper 5.4.5) and resets it.
  ///
  /// - Returns: whether this side was the initiator; nil, with nothing written, if the handshake is
  ///   not finished.
  mutating func split(
    sending: UnsafeMutableRawPointer, receiving: UnsafeMutableRawPointer
  ) -> Bool? {
    let isInitiator: Bool
    switch state {
    case .consumedResponse: isInitiator = true
    case .createdResponse: isInitiator = false
    case .none, .createdInitiation, .consumedInitiation: return nil
    }
    SymmetricState.split(
      chainingKey: chainingKey, first: isInitiator ? sending : receiving,
      second: isInitiator ? receiving : sending)
    reset()
    return isInitiator
  }

  /// Ends the handshake in progress and wipes its secrets. Keeps the greatest timestamp, the
  /// preshared key and the precomputed shared secret.
  mutating func reset() {
    state = .none
    localIndex = 0
    remoteIndex = 0
    hash = .zero
    remoteEphemeral = .zero
    Secret.wipe(chainingKey, byteCount: WireGuard.keyByteCount)
    Secret.wipe(ephemeralPrivate, byteCount: WireGuard.keyByteCount)
  }

  /// Wipes everything, when the peer is removed.
  mutating func erase() {
    Secret.wipe(secrets, byteCount: Handshake.secretByteCount)
    self = Handshake(secrets: secrets)
  }

  /// Saves the result of a step.
  private mutating func commit(_ noise: SymmetricState, as newState: State) {
    chainingKey.copyMemory(from: noise.chainingKey, byteCount: WireGuard.keyByteCount)
    hash = Key(at: noise.hash)
    state = newState
  }
}
