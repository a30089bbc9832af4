import CSodium

/// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), whose 24-byte nonce is long enough to be
/// drawn at random: for cookie replies only (whitepaper section 5.4.7). A key is 32 bytes, a
/// tag 16.
enum XAEAD {
  /// Writes `byteCount` bytes of ciphertext and the tag to `output`, which is `text` itself or
  /// does not overlap it.
  static func seal(
    into output: UnsafeMutableRawPointer, text: UnsafeRawPointer, byteCount: Int,
    additionalData: UnsafeRawPointer?, additionalByteCount: Int, nonce: UnsafeRawPointer,
    key: UnsafeRawPointer
  ) {
    csodium_xaead_seal(output, text, byteCount, additionalData, additionalByteCount, nonce, key)
  }

  /// Verifies the tag behind the message's `byteCount` bytes, then writes the text to `output`,
  /// which is `message` itself or does not overlap it.
  ///
  /// - Returns: false on a wrong tag; the `byteCount` bytes of output are then zeroed.
  static func open(
    into output: UnsafeMutableRawPointer, message: UnsafeRawPointer, byteCount: Int,
    additionalData: UnsafeRawPointer?, additionalByteCount: Int, nonce: UnsafeRawPointer,
    key: UnsafeRawPointer
  ) -> Bool {
    csodium_xaead_open(
      output, message, byteCount, additionalData, additionalByteCount, nonce, key) == 0
  }
}
