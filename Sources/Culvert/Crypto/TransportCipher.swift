/// The cipher of transport data (whitepaper section 5.4.6): ChaCha20-Poly1305 as in `AEAD`,
/// without additional data and with the output apart from the input.
///
/// libsodium's own AEAD call is not its fastest way to the same bytes; see `ComposedAEAD`. Which
/// way is fastest depends on the CPU, so one is measured at start and a value of this type carries
/// the choice. Texts stand in buffers with room around them:
///
///     text     [headroom: read | text, padded     | tag's room, slack: read           ]
///     output   [headroom: kept | ciphertext       | tag | slack: overwritten          ]
public struct TransportCipher: BitwiseCopyable, Sendable {
  /// Bytes readable before the input and writable before the output.
  public static let headroom = ComposedAEAD.blockByteCount
  /// Bytes behind padded text and tag that are read at the input and overwritten at the output:
  /// the stream is made in steps of at most this.
  public static let slack = ComposedAEAD.grainByteCount

  /// Bytes the CPU makes of the stream at a time: 64, 256 or 512; 0 for libsodium's AEAD call.
  let stride: Int

  /// libsodium's AEAD call.
  public static var whole: TransportCipher { TransportCipher(stride: 0) }

  /// The composed cipher for a CPU that makes `stride` bytes of stream at a time: 64, 256 or 512.
  /// The output is the same for each, and for every CPU.
  public static func composed(stride: Int) -> TransportCipher {
    precondition(stride == 64 || stride == 256 || stride == 512)
    return TransportCipher(stride: stride)
  }

  /// Encrypts `byteCount` bytes at `text`, zero-padded to `paddedByteCount` (at most 15 more), to
  /// `output`, and writes the tag behind.
  ///
  /// The two do not overlap, nor does the room around them. The input is afterwards as it was, and
  /// so are the `headroom` bytes before the output, which may hold the datagram before.
  ///
  /// - Parameter sender: the nonce's first four bytes, as in `AEAD`: zero but in test vectors.
  @inline(__always)
  public func seal(
    _ text: UnsafeMutableRawPointer, byteCount: Int, paddedByteCount: Int,
    to output: UnsafeMutableRawPointer, counter: UInt64, sender: UInt32 = 0,
    key: UnsafeRawPointer
  ) {
    guard stride > 0 else {
      return WholeAEAD.seal(
        text, byteCount: byteCount, paddedByteCount: paddedByteCount, to: output,
        counter: counter, sender: sender, key: key)
    }
    withUnsafeBytes(of: AEAD.nonce(sender, counter)) { nonce in
      ComposedAEAD.seal(
        text, byteCount: byteCount, paddedByteCount: paddedByteCount, to: output,
        nonce: nonce.baseAddress!, key: key, stride: stride)
    }
  }

  /// Decrypts `byteCount` bytes at `message`, behind which the tag stands, to `output`.
  ///
  /// The two do not overlap, nor does the room around them. The input is afterwards as it was; the
  /// output's `headroom` and slack are of no meaning.
  ///
  /// - Returns: false on a wrong tag; the `byteCount` bytes of output are then zeroed (R13).
  @inline(__always)
  public func open(
    _ message: UnsafeMutableRawPointer, byteCount: Int, to output: UnsafeMutableRawPointer,
    counter: UInt64, sender: UInt32 = 0, key: UnsafeRawPointer
  ) -> Bool {
    guard stride > 0 else {
      return AEAD.open(
        into: output, message: message, byteCount: byteCount, additionalData: nil,
        additionalByteCount: 0, counter: counter, sender: sender, key: key)
    }
    return withUnsafeBytes(of: AEAD.nonce(sender, counter)) { nonce in
      ComposedAEAD.open(
        message, byteCount: byteCount, to: output, nonce: nonce.baseAddress!, key: key,
        stride: stride)
    }
  }
}
