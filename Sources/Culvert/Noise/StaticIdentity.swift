/// The device's own key pair. The private half lives in the locked part of the arena.
struct StaticIdentity {
  let privateKey: UnsafeMutableRawPointer
  private(set) var publicKey = Key.zero
  private(set) var isSet = false

  init(carvingFrom arena: inout Arena) {
    privateKey = arena.carveBytes(WireGuard.keyByteCount, owner: "secrets: device key").baseAddress!
  }

  /// Takes 32 bytes; all zero unset the identity (UAPI). Otherwise the key is clamped.
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
