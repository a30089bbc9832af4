import CSodium

/// Diffie-Hellman on Curve25519 (RFC 7748). Secrets, points and results are 32 bytes each.
package enum X25519 {
  /// The shared secret of `secret` and the other side's public `point`.
  ///
  /// - Returns: false for a point of low order or an all-zero result; the output is then zeroed.
  ///   Such a peer contributes nothing to the secret, and its handshake must fail (R31).
  package static func multiply(
    into output: UnsafeMutableRawPointer, secret: UnsafeRawPointer, point: UnsafeRawPointer
  ) -> Bool {
    guard csodium_x25519(output, secret, point) == 0 else {
      Secret.wipe(output, byteCount: WireGuard.keyByteCount)
      return false
    }
    return true
  }

  /// The public key of `secret`.
  package static func publicKey(into output: UnsafeMutableRawPointer, secret: UnsafeRawPointer) {
    csodium_x25519_base(output, secret)
  }

  /// Turns 32 random bytes into a private key (RFC 7748 section 5), in the form that wg(8) prints.
  /// An unclamped key works too, because multiplication clamps a copy of it.
  package static func clamp(_ secret: UnsafeMutableRawPointer) {
    let bytes = secret.assumingMemoryBound(to: UInt8.self)
    bytes[0] &= 0xf8
    bytes[31] = bytes[31] & 0x7f | 0x40
  }
}
