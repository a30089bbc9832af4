import CSodium

/// ChaCha20-Poly1305 (RFC 8439) under WireGuard's nonce: four zero bytes and a little-endian
/// 64-bit counter (whitepaper section 5.4.6). A key is 32 bytes, a tag 16.
///
/// Sealing in place needs `byteCount` + 16 bytes at `text`. All calls allow a `byteCount` of 0.
enum AEAD {
  /// Encrypts `byteCount` bytes in place and writes the tag after them.
  @inline(__always)
  static func seal(
    _ text: UnsafeMutableRawPointer, byteCount: Int, counter: UInt64, key: UnsafeRawPointer
  ) {
    seal(
      into: text, text: text, byteCount: byteCount, additionalData: nil, additionalByteCount: 0,
      counter: counter, key: key)
  }

  /// Verifies the tag after `byteCount` bytes of ciphertext, then decrypts them in place (R13).
  ///
  /// - Returns: false on a wrong tag; the `byteCount` bytes are then zeroed.
  @inline(__always)
  static func open(
    _ message: UnsafeMutableRawPointer, byteCount: Int, counter: UInt64, key: UnsafeRawPointer
  ) -> Bool {
    open(
      into: message, message: message, byteCount: byteCount, additionalData: nil,
      additionalByteCount: 0, counter: counter, key: key)
  }

  /// Seals with additional data, for handshakes: writes `byteCount` bytes of ciphertext and the tag
  /// to `output`, which is `text` itself or does not overlap it.
  ///
  /// - Parameter sender: the nonce's first four bytes, little-endian (RFC 8439 section 2.8,
  ///   "fixed-common part"). Zero in WireGuard; only the RFC's test vectors use other values.
  static func seal(
    into output: UnsafeMutableRawPointer, text: UnsafeRawPointer, byteCount: Int,
    additionalData: UnsafeRawPointer?, additionalByteCount: Int, counter: UInt64,
    sender: UInt32 = 0, key: UnsafeRawPointer
  ) {
    withUnsafeBytes(of: nonce(sender, counter)) { nonce in
      csodium_aead_seal(
        output, text, byteCount, additionalData, additionalByteCount, nonce.baseAddress!, key)
    }
  }

  /// Opens with additional data: writes `byteCount` bytes of text to `output`, which is `message`
  /// itself or does not overlap it. The tag follows the message's `byteCount` bytes.
  ///
  /// - Returns: false on a wrong tag; the `byteCount` bytes of output are then zeroed.
  static func open(
    into output: UnsafeMutableRawPointer, message: UnsafeRawPointer, byteCount: Int,
    additionalData: UnsafeRawPointer?, additionalByteCount: Int, counter: UInt64,
    sender: UInt32 = 0, key: UnsafeRawPointer
  ) -> Bool {
    withUnsafeBytes(of: nonce(sender, counter)) { nonce in
      csodium_aead_open(
        output, message, byteCount, additionalData, additionalByteCount, nonce.baseAddress!, key)
        == 0
    }
  }

  /// The 12 bytes of a nonce in memory order.
  @inline(__always)
  static func nonce(_ sender: UInt32, _ counter: UInt64) -> (UInt32, UInt32, UInt32) {
    (
      sender.littleEndian, UInt32(truncatingIfNeeded: counter).littleEndian,
      UInt32(truncatingIfNeeded: counter >> 32).littleEndian
    )
  }
}

/// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), whose 24-byte nonce is long enough to be
/// random. Only for cookie replies (whitepaper section 5.4.7). A key is 32 bytes, a tag 16.
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

  /// Verifies the tag after the message's `byteCount` bytes, then writes the text to `output`,
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
