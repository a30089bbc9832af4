import CSodium

/// The cipher of transport data (whitepaper section 5.4.6): ChaCha20-Poly1305 as in `AEAD`,
/// without additional data and with separate input and output.
///
/// libsodium can produce the same bytes faster than with its AEAD call; see `ComposedAEAD`. Which
/// method is fastest depends on the CPU, so it is measured at startup, and a value of this type
/// holds the choice. Each text is in a buffer with room around it:
///
///     text     [headroom: read | text, padded     | tag's room, slack: read           ]
///     output   [headroom: kept | ciphertext       | tag | slack: overwritten          ]
public struct TransportCipher: BitwiseCopyable, Sendable {
  /// Bytes readable before the input and writable before the output.
  public static let headroom = ComposedAEAD.blockByteCount
  /// Bytes after the padded text and tag that are read in the input and overwritten in the output,
  /// because the stream is generated in steps of at most this size.
  public static let slack = ComposedAEAD.grainByteCount

  /// Bytes of key stream that the CPU generates at a time: 64, 256 or 512. 0 means libsodium's AEAD
  /// call.
  let stride: Int

  /// libsodium's AEAD call.
  static var whole: TransportCipher { TransportCipher(stride: 0) }

  /// The composed cipher for a CPU that generates `stride` bytes of stream at a time: 64, 256 or
  /// 512. The output is the same for every stride and on every CPU.
  static func composed(stride: Int) -> TransportCipher {
    precondition(stride == 64 || stride == 256 || stride == 512)
    return TransportCipher(stride: stride)
  }

  /// Encrypts `byteCount` bytes at `text`, zero-padded to `paddedByteCount` (at most 15 more), to
  /// `output`, and writes the tag after them.
  ///
  /// Input and output must not overlap, including the room around them. The input is unchanged
  /// afterwards, and so are the `headroom` bytes before the output, where the previous datagram may
  /// be.
  ///
  /// - Parameter sender: the nonce's first four bytes, as in `AEAD`: zero except in test vectors.
  @inline(__always)
  func seal(
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

  /// Decrypts `byteCount` bytes at `message`, which the tag follows, to `output`.
  ///
  /// Input and output must not overlap, including the room around them. The input is unchanged
  /// afterwards; the output's `headroom` and slack are undefined.
  ///
  /// - Returns: false on a wrong tag; the `byteCount` bytes of output are then zeroed (R13).
  @inline(__always)
  func open(
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

/// Chooses the cipher for this CPU, once at startup.
extension TransportCipher {
  /// Bytes that `measured` needs: a packet and its output, with the room around them.
  public static var scratchByteCount: Int {
    2 &* (headroom &+ longByteCount &+ WireGuard.tagByteCount &+ slack)
  }

  /// The fastest candidate on this CPU, by the sum of its best times for packets of 1420 and of 200
  /// bytes, with four short packets for each long one. In a tie, the one with the smaller demands
  /// on the CPU wins.
  ///
  /// Takes half a millisecond on a PC and 50 ms on the slowest boards. All candidates produce the
  /// same output, so a bad measurement only costs speed.
  ///
  /// - Parameters:
  ///   - scratch: at least `scratchByteCount` bytes, which are overwritten.
  ///   - now: a steady clock, in nanoseconds.
  public static func measured(
    scratch: UnsafeMutableRawBufferPointer, now: () -> UInt64
  ) -> TransportCipher {
    precondition(scratch.count >= scratchByteCount)
    let text = scratch.baseAddress! + headroom
    scratch.initializeMemory(as: UInt8.self, repeating: 0)
    var long = SIMD4<UInt64>(repeating: .max)
    var short = long
    for _ in 0..<roundCount {
      // Interleaved, so that interference by other processes affects all candidates.
      for index in 0..<candidateCount {
        let cipher = candidate(index)
        long[index] = min(
          long[index],
          cipher.time(text, byteCount: longByteCount, count: longCount, now: now))
        short[index] = min(
          short[index],
          cipher.time(text, byteCount: shortByteCount, count: shortCount, now: now))
      }
    }
    var best = 0
    for index in 1..<candidateCount where sum(long, short, index) < sum(long, short, best) {
      best = index
    }
    return candidate(best)
  }

  private static let candidateCount = 4
  private static let roundCount = 8
  /// Packets in a measurement: enough for a clock with microsecond resolution. All short ones
  /// together take about as long as the long ones, so that noise in one group does not hide a
  /// difference in the other.
  private static let longCount = 4
  private static let shortCount = 16
  private static let longByteCount = 1420
  private static let shortByteCount = 200

  /// The candidates, in the order of their demands on the CPU.
  private static func candidate(_ index: Int) -> TransportCipher {
    switch index {
    case 0: .whole
    case 1: .composed(stride: 64)
    case 2: .composed(stride: 256)
    default: .composed(stride: 512)
    }
  }

  /// Saturates, in case the clock is broken.
  private static func sum(
    _ long: SIMD4<UInt64>, _ short: SIMD4<UInt64>, _ index: Int
  ) -> UInt64 {
    let (sum, overflows) = long[index].addingReportingOverflow(short[index])
    return overflows ? .max : sum
  }

  /// Nanoseconds for `count` packets of `byteCount` bytes at `text`, whose first 32 bytes are also
  /// the key.
  private func time(
    _ text: UnsafeMutableRawPointer, byteCount: Int, count: Int, now: () -> UInt64
  ) -> UInt64 {
    let output =
      text + TransportCipher.longByteCount + WireGuard.tagByteCount + TransportCipher.slack
      + TransportCipher.headroom
    let start = now()
    for _ in 0..<count {
      seal(
        text, byteCount: byteCount, paddedByteCount: byteCount, to: output, counter: 0, key: text)
    }
    return now() &- start
  }
}

/// Transport data through libsodium's AEAD call.
enum WholeAEAD {
  /// As `TransportCipher.seal`. The AEAD call cannot pad, so the padding bytes are zeroed in the
  /// input and restored afterwards.
  static func seal(
    _ text: UnsafeMutableRawPointer, byteCount: Int, paddedByteCount: Int,
    to output: UnsafeMutableRawPointer, counter: UInt64, sender: UInt32, key: UnsafeRawPointer
  ) {
    let padding = text + byteCount
    let paddingByteCount = paddedByteCount &- byteCount
    let before = padding.loadUnaligned(as: SIMD16<UInt8>.self)
    padding.initializeMemory(as: UInt8.self, repeating: 0, count: paddingByteCount)
    AEAD.seal(
      into: output, text: text, byteCount: paddedByteCount, additionalData: nil,
      additionalByteCount: 0, counter: counter, sender: sender, key: key)
    withUnsafeBytes(of: before) { before in
      padding.copyMemory(from: before.baseAddress!, byteCount: paddingByteCount)
    }
  }
}

/// ChaCha20-Poly1305 (RFC 8439 section 2.8) without additional data, composed of libsodium's stream
/// cipher and authenticator.
///
/// libsodium's AEAD call generates the one-time key with a separate stream call, and the end of the
/// text block by block; with AVX2 each of these blocks costs half as much as eight together. Here
/// one stream call starts one block before the text and runs to the end of a whole step after it.
/// Then one Poly1305 call reads ciphertext, padding and lengths, which are contiguous: the lengths
/// are written where the tag will be, so nothing is copied.
enum ComposedAEAD {
  /// A block of ChaCha20.
  static let blockByteCount = 64
  /// The length of the stream is rounded up to a multiple of this if generating the rest block by
  /// block would take longer.
  static let grainByteCount = 256
  /// Up to this many blocks at the end are faster one by one than as a whole grain. With AVX2 a
  /// block takes half as long as four or eight together (105, 215 and 245 ns). With NEON, whose
  /// latencies are longer, it takes nearly as long as four (estimated: Toolchain/README.md).
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
    // XORs the padding's plaintext out, so that zeros are encrypted. The bytes after the padding
    // are overwritten anyway.
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
    // The tag, and the bytes after it if the ciphertext is not a multiple of 16.
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

  /// Bytes of stream to generate, including the block before the text. If more than
  /// `looseBlockCount` blocks remain at the end, they are rounded up to the next grain.
  static func streamByteCount(for byteCount: Int, stride: Int) -> Int {
    let byteCount = blockByteCount &+ byteCount
    let rest = byteCount & (stride &- 1)
    let grain = rest > looseBlockCount &* blockByteCount ? grainByteCount : blockByteCount
    return (byteCount &+ grain &- 1) & ~(grain &- 1)
  }

  // Bytes that are saved and restored: 64 before the output, and 32 where the lengths overwrite the
  // tag and the start of the next datagram.
  private typealias Headroom = (SIMD16<UInt8>, SIMD16<UInt8>, SIMD16<UInt8>, SIMD16<UInt8>)
  private typealias Behind = (SIMD16<UInt8>, SIMD16<UInt8>)

  /// Turns the block into the one-time key, which is block 0 of the stream (RFC 8439 section 2.6).
  /// The stream was XORed with the bytes before the text; a second XOR removes them.
  @inline(__always)
  private static func revealKey(
    _ block: UnsafeMutableRawPointer, _ source: UnsafeMutableRawPointer
  ) {
    cancel(block, source)
    cancel(block + 16, source + 16)
  }

  /// XORs 16 bytes of `source` into `bytes`.
  @inline(__always)
  private static func cancel(_ bytes: UnsafeMutableRawPointer, _ source: UnsafeMutableRawPointer) {
    let cancelled =
      bytes.loadUnaligned(as: SIMD16<UInt8>.self) ^ source.loadUnaligned(as: SIMD16<UInt8>.self)
    bytes.storeBytes(of: cancelled, as: SIMD16<UInt8>.self)
  }

  /// Appends the rest of Poly1305's input to `byteCount` bytes of ciphertext (RFC 8439 section
  /// 2.8): zeros to a multiple of 16, then the lengths of additional data and ciphertext.
  ///
  /// - Returns: bytes to authenticate, up to 31 more than the ciphertext.
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
