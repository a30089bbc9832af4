import CSodium

/// ChaCha20-Poly1305 (RFC 8439 section 2.8) without additional data, out of libsodium's stream
/// cipher and authenticator.
///
/// libsodium's AEAD call makes the one-time key with a stream call of its own and ends the text
/// with a step for each block left, each of which costs half of what eight blocks do together in
/// AVX2. Here one stream call starts a block before the text, and goes on behind it up to where a
/// whole step ends; then one Poly1305 call reads ciphertext, padding and lengths in a row. Written
/// where the tag will stand, these cost no copy.
enum ComposedAEAD {
  /// A block of ChaCha20.
  static let blockByteCount = 64
  /// What the length of a stream is rounded up to where single blocks would take longer.
  static let grainByteCount = 256
  /// The blocks that are sooner made one by one than as a grain. In AVX2 a block takes half as
  /// long as four or eight together (105, 215 and 245 ns); in NEON, with its longer latencies,
  /// nearly as long as four (estimated: Toolchain/README.md).
  #if arch(arm) || arch(arm64)
    static let looseBlockCount = 1
  #else
    static let looseBlockCount = 2
  #endif

  static func seal(
    _ text: UnsafeMutableRawPointer, byteCount: Int, paddedByteCount: Int,
    to output: UnsafeMutableRawPointer, nonce: UnsafeRawPointer, key: UnsafeRawPointer,
    stride: Int
  ) {
    let block = output - blockByteCount
    let before = block.loadUnaligned(as: Headroom.self)
    csodium_chacha20(
      block, text - blockByteCount, streamByteCount(for: paddedByteCount, stride: stride), nonce,
      key)
    revealKey(block, text - blockByteCount)
    // The padding is zeros, whatever stands there. Bytes behind it are overwritten anyhow.
    cancel(output + byteCount, text + byteCount)
    csodium_poly1305(
      output + paddedByteCount, output,
      appendLengths(to: output, byteCount: paddedByteCount), block)
    // This also wipes the one-time key.
    block.storeBytes(of: before, as: Headroom.self)
  }

  static func open(
    _ message: UnsafeMutableRawPointer, byteCount: Int, to output: UnsafeMutableRawPointer,
    nonce: UnsafeRawPointer, key: UnsafeRawPointer, stride: Int
  ) -> Bool {
    let block = output - blockByteCount
    csodium_chacha20(
      block, message - blockByteCount, streamByteCount(for: byteCount, stride: stride), nonce,
      key)
    revealKey(block, message - blockByteCount)
    // The tag, and what follows where the ciphertext is no multiple of 16.
    let behind = (message + byteCount).loadUnaligned(as: Behind.self)
    let isGenuine = withUnsafeBytes(of: behind) { tag in
      csodium_poly1305_verify(
        tag.baseAddress!, message, appendLengths(to: message, byteCount: byteCount), block) == 0
    }
    (message + byteCount).storeBytes(of: behind, as: Behind.self)
    Secret.wipe(block, byteCount: blockByteCount)
    if !isGenuine { Secret.wipe(output, byteCount: byteCount) }
    return isGenuine
  }

  /// The bytes of stream to ask for, the block before the text counted.
  ///
  /// More blocks than `looseBlockCount` at the end are filled up to the next grain.
  static func streamByteCount(for byteCount: Int, stride: Int) -> Int {
    let byteCount = blockByteCount &+ byteCount
    let rest = byteCount & (stride &- 1)
    let grain = rest > looseBlockCount &* blockByteCount ? grainByteCount : blockByteCount
    return (byteCount &+ grain &- 1) & ~(grain &- 1)
  }

  /// 64 bytes that are put back where they stood; 32 are all that the tag and the next datagram
  /// may lose to lengths.
  private typealias Headroom = (SIMD16<UInt8>, SIMD16<UInt8>, SIMD16<UInt8>, SIMD16<UInt8>)
  private typealias Behind = (SIMD16<UInt8>, SIMD16<UInt8>)

  /// Leaves the one-time key, block 0 of the stream (RFC 8439 section 2.6), alone in the block:
  /// the stream was laid over whatever stands in front of the text.
  @inline(__always)
  private static func revealKey(
    _ block: UnsafeMutableRawPointer, _ source: UnsafeMutableRawPointer
  ) {
    cancel(block, source)
    cancel(block + 16, source + 16)
  }

  /// XORs 16 bytes of `source` to `bytes`.
  @inline(__always)
  private static func cancel(_ bytes: UnsafeMutableRawPointer, _ source: UnsafeMutableRawPointer) {
    let cancelled =
      bytes.loadUnaligned(as: SIMD16<UInt8>.self) ^ source.loadUnaligned(as: SIMD16<UInt8>.self)
    bytes.storeBytes(of: cancelled, as: SIMD16<UInt8>.self)
  }

  /// Writes behind `byteCount` bytes of ciphertext what Poly1305 reads there (RFC 8439 section
  /// 2.8): zeros to a multiple of 16, then the lengths of additional data and ciphertext.
  ///
  /// - Returns: the bytes to authenticate, all told; up to 31 more than the ciphertext.
  @inline(__always)
  private static func appendLengths(to bytes: UnsafeMutableRawPointer, byteCount: Int) -> Int {
    let end = (byteCount &+ 15) & ~15
    (bytes + byteCount).storeBytes(of: SIMD16(repeating: 0), as: SIMD16<UInt8>.self)
    bytes.storeBytes(of: 0, toByteOffset: end, as: UInt64.self)
    bytes.storeBytes(
      of: UInt64(truncatingIfNeeded: byteCount).littleEndian, toByteOffset: end &+ 8,
      as: UInt64.self)
    return end &+ 16
  }
}
