import CSodium

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

/// The choice of a cipher for this CPU, made once at start.
extension TransportCipher {
  /// Bytes that `measured` needs: a packet and its output, with room around each.
  public static var scratchByteCount: Int {
    2 &* (headroom &+ longByteCount &+ WireGuard.tagByteCount &+ slack)
  }

  /// The fastest here: each candidate's least time for packets of 1420 and of 200 bytes, added up,
  /// four short ones to a long one. Where two are equal, the one that asks less of the CPU.
  ///
  /// Half a millisecond on a PC, 50 on the slowest boards. The output of no candidate depends on
  /// its choice, so a bad measurement costs speed and nothing else.
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
      // In turn, so that a moment in which the CPU was busy hits no candidate alone.
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
    for index in 1..<candidateCount where time(long, short, index) < time(long, short, best) {
      best = index
    }
    return candidate(best)
  }

  private static let candidateCount = 4
  private static let roundCount = 8
  /// Packets in a timing: enough for a clock that ticks in microseconds, and as many short ones as
  /// take about as long, or what disturbs the long ones would drown a difference in the others.
  private static let longCount = 4
  private static let shortCount = 16
  private static let longByteCount = 1420
  private static let shortByteCount = 200

  /// From the least asking.
  private static func candidate(_ index: Int) -> TransportCipher {
    switch index {
    case 0: .whole
    case 1: .composed(stride: 64)
    case 2: .composed(stride: 256)
    default: .composed(stride: 512)
    }
  }

  /// Saturates: a clock may be broken.
  private static func time(
    _ long: SIMD4<UInt64>, _ short: SIMD4<UInt64>, _ index: Int
  ) -> UInt64 {
    let (sum, overflows) = long[index].addingReportingOverflow(short[index])
    return overflows ? .max : sum
  }

  /// Nanoseconds for `count` packets of `byteCount` bytes at `text`, whose first 32 bytes serve as
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
  /// As `TransportCipher.seal`. The call knows nothing of padding, so the padding's bytes are
  /// zeroed at the input and put back.
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
