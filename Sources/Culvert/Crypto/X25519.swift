import CSodium

/// Diffie-Hellman on Curve25519 (RFC 7748). Secrets, points and results are 32 bytes each.
public enum X25519 {
  /// The shared secret of `secret` and the other side's public `point`.
  ///
  /// - Returns: false for a point of low order or an all-zero result, and then the output is
  ///   zeroed: such a peer contributes nothing to the secret, and its handshake must end (R31).
  public static func multiply(
    into output: UnsafeMutableRawPointer, secret: UnsafeRawPointer, point: UnsafeRawPointer
  ) -> Bool {
    guard csodium_x25519(output, secret, point) == 0 else {
      Secret.wipe(output, byteCount: WireGuard.keyByteCount)
      return false
    }
    return true
  }

  /// The public key that belongs to `secret`.
  public static func publicKey(into output: UnsafeMutableRawPointer, secret: UnsafeRawPointer) {
    csodium_x25519_base(output, secret)
  }

  /// Makes a private key of 32 random bytes (RFC 7748 section 5): the form in which wg(8) prints
  /// it. Multiplying clamps a copy anyway, so a key that was never clamped works the same.
  public static func clamp(_ secret: UnsafeMutableRawPointer) {
    let bytes = secret.assumingMemoryBound(to: UInt8.self)
    bytes[0] &= 0xf8
    bytes[31] = bytes[31] & 0x7f | 0x40
  }
}
