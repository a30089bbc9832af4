/// The chaining key, hash and message key of a handshake in progress (Noise section 5.2), in one
/// scratch area of the locked memory. Until it commits, a handshake changes nothing else. `wipe`
/// must be called in any case, also if the handshake fails.
struct SymmetricState {
  /// Layout of the scratch area, in bytes.
  private enum Offset {
    static let chainingKey = 0
    static let key = 32
    static let hash = 64
    static let dh = 96
    static let ephemeralPrivate = 128
    static let plaintext = 160
    static let tau = 192
    static let remoteStatic = 224
  }
  static let byteCount = 256

  private let scratch: UnsafeMutableRawPointer

  init(scratch: UnsafeMutableRawPointer) {
    self.scratch = scratch
  }

  var chainingKey: UnsafeMutableRawPointer { scratch + Offset.chainingKey }
  private var key: UnsafeMutableRawPointer { scratch + Offset.key }
  var hash: UnsafeMutableRawPointer { scratch + Offset.hash }
  private var dh: UnsafeMutableRawPointer { scratch + Offset.dh }
  private var tau: UnsafeMutableRawPointer { scratch + Offset.tau }
  /// The ephemeral private key, until it is committed.
  var ephemeralPrivate: UnsafeMutableRawPointer { scratch + Offset.ephemeralPrivate }
  /// Room for 32 bytes of plaintext.
  var plaintext: UnsafeMutableRawPointer { scratch + Offset.plaintext }

  /// The peer's static public key, either passed by the caller or decrypted from an initiation.
  var remoteStatic: UnsafeMutableRawPointer { scratch + Offset.remoteStatic }

  /// Starts with `initial` and mixes in the responder's static key (the pre-message `<- s`).
  func start(from initial: NoiseConstants, responder: Key) {
    initial.chainingKey.write(to: chainingKey)
    initial.hash.write(to: hash)
    responder.write(to: dh)
    mixHash(dh, byteCount: WireGuard.keyByteCount)
  }

  /// Continues from the state after an earlier message of the same handshake.
  func resume(chainingKey: UnsafeRawPointer, hash: Key) {
    self.chainingKey.copyMemory(from: chainingKey, byteCount: WireGuard.keyByteCount)
    hash.write(to: self.hash)
  }

  /// Makes an ephemeral key pair. The private key stays in the scratch area.
  func makeEphemeral(into publicKey: UnsafeMutableRawPointer, entropy: inout Entropy) {
    entropy.fill(ephemeralPrivate, byteCount: WireGuard.keyByteCount)
    X25519.clamp(ephemeralPrivate)
    X25519.publicKey(into: publicKey, secret: ephemeralPrivate)
  }

  func mixHash(_ data: UnsafeRawPointer, byteCount: Int) {
    BLAKE2s.hash(
      into: hash,
      UnsafeRawBufferPointer(start: hash, count: WireGuard.keyByteCount),
      UnsafeRawBufferPointer(start: data, count: byteCount))
  }

  /// Token `e`. In a PSK handshake the ephemeral key is mixed into both the hash and the chaining
  /// key.
  func mixEphemeral(_ ephemeral: UnsafeRawPointer) {
    mixHash(ephemeral, byteCount: WireGuard.keyByteCount)
    HKDF.derive(
      chainingKey: chainingKey, input: ephemeral, byteCount: WireGuard.keyByteCount,
      into: chainingKey, second: nil, third: nil)
  }

  /// Tokens `ee`, `es`, `se`.
  ///
  /// - Parameter keyed: whether to derive the message key too. It is not needed if `psk` follows,
  ///   which replaces it.
  /// - Returns: false if `point` is a low-order point (R31).
  func mixDH(secret: UnsafeRawPointer, point: UnsafeRawPointer, keyed: Bool = false) -> Bool {
    guard X25519.multiply(into: dh, secret: secret, point: point) else { return false }
    mixSecret(dh, keyed: keyed)
    return true
  }

  /// Token `ss`, with the precomputed shared secret (`Handshake.precompute`). Returns false if that
  /// is zero.
  func mixPrecomputed(_ staticStatic: UnsafeRawPointer) -> Bool {
    guard !Secret.isZero(staticStatic, byteCount: WireGuard.keyByteCount) else { return false }
    mixSecret(staticStatic, keyed: true)
    return true
  }

  private func mixSecret(_ secret: UnsafeRawPointer, keyed: Bool) {
    HKDF.derive(
      chainingKey: chainingKey, input: secret, byteCount: WireGuard.keyByteCount,
      into: chainingKey, second: keyed ? key : nil, third: nil)
  }

  /// Token `psk`.
  func mixPresharedKey(_ presharedKey: UnsafeRawPointer) {
    HKDF.derive(
      chainingKey: chainingKey, input: presharedKey, byteCount: WireGuard.keyByteCount,
      into: chainingKey, second: tau, third: key)
    mixHash(tau, byteCount: WireGuard.keyByteCount)
  }

  /// Writes the ciphertext and tag, `byteCount + 16` bytes, to `output`.
  func encryptAndHash(
    _ plaintext: UnsafeRawPointer, byteCount: Int, into output: UnsafeMutableRawPointer
  ) {
    AEAD.seal(
      into: output, text: plaintext, byteCount: byteCount, additionalData: hash,
      additionalByteCount: WireGuard.keyByteCount, counter: 0, key: key)
    mixHash(output, byteCount: byteCount + WireGuard.tagByteCount)
  }

  /// Reads the ciphertext and tag, `byteCount + 16` bytes, from `message`. Returns false if the tag
  /// is wrong.
  func decryptAndHash(
    _ message: UnsafeRawPointer, byteCount: Int, into output: UnsafeMutableRawPointer
  ) -> Bool {
    guard
      AEAD.open(
        into: output, message: message, byteCount: byteCount, additionalData: hash,
        additionalByteCount: WireGuard.keyByteCount, counter: 0, key: key)
    else { return false }
    mixHash(message, byteCount: byteCount + WireGuard.tagByteCount)
    return true
  }

  /// Split (whitepaper 5.4.5): the initiator sends with `first`, the responder with `second`.
  static func split(
    chainingKey: UnsafeRawPointer, first: UnsafeMutableRawPointer, second: UnsafeMutableRawPointer
  ) {
    HKDF.derive(
      chainingKey: chainingKey, input: chainingKey, byteCount: 0, into: first, second: second,
      third: nil)
  }

  func wipe() {
    Secret.wipe(scratch, byteCount: SymmetricState.byteCount)
  }
}

/// Hash(construction) and Hash(Hash(construction) || identifier) (whitepaper section 5.4), computed
/// once at startup.
struct NoiseConstants: BitwiseCopyable {
  let chainingKey: Key
  let hash: Key

  private static var construction: StaticString { "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s" }
  private static var identifier: StaticString { "WireGuard v1 zx2c4 Jason@zx2c4.com" }

  init() {
    var first = Key.zero
    var second = Key.zero
    withUnsafeMutableBytes(of: &first) { output in
      BLAKE2s.hash(into: output.baseAddress!, NoiseConstants.construction.bytes, .empty)
    }
    withUnsafeMutableBytes(of: &second) { output in
      withUnsafeBytes(of: first) { first in
        BLAKE2s.hash(into: output.baseAddress!, first, NoiseConstants.identifier.bytes)
      }
    }
    chainingKey = first
    hash = second
  }
}

extension StaticString {
  /// The string's UTF-8 bytes, which are valid as long as the program runs.
  var bytes: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: utf8Start, count: utf8CodeUnitCount)
  }
}

extension UnsafeRawBufferPointer {
  static var empty: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: nil, count: 0) }
}

/// The device's own key pair. The private key is in the locked part of the arena.
struct StaticIdentity {
  let privateKey: UnsafeMutableRawPointer
  private(set) var publicKey = Key.zero
  private(set) var isSet = false

  init(carvingFrom arena: inout Arena) {
    privateKey = arena.carveBytes(WireGuard.keyByteCount, owner: "secrets: device key").baseAddress!
  }

  /// Sets the private key from 32 bytes, which are clamped. All zeros remove the key (UAPI).
  mutating func set(_ key: UnsafeRawPointer) {
    privateKey.copyMemory(from: key, byteCount: WireGuard.keyByteCount)
    isSet = !Secret.isZero(privateKey, byteCount: WireGuard.keyByteCount)
    publicKey = .zero
    guard isSet else { return }
    X25519.clamp(privateKey)
    withUnsafeMutableBytes(of: &publicKey) { output in
      X25519.publicKey(into: output.baseAddress!, secret: privateKey)
    }
  }
}
