/// BLAKE2s (RFC 7693), plain or keyed, with 1 to 32 bytes of output: WireGuard's HASH and MAC
/// (whitepaper section 5.4). libsodium only has BLAKE2b.
///
/// An unfinished hash may hold key material, so it cannot be copied, and `finish` wipes it.
struct BLAKE2s: ~Copyable {
  static let digestByteCount = 32
  static let keyByteCountMaximum = 32

  private var state: BLAKE2sState
  private var block = BLAKE2sBlock()
  /// Bytes of input in `block`. A full block is kept until more input arrives, because the last
  /// block is compressed differently.
  private var waitingByteCount = 0
  private var byteCount: Int

  /// A plain hash of `byteCount` bytes, 1 to 32.
  init(byteCount: Int = BLAKE2s.digestByteCount) {
    precondition(byteCount >= 1 && byteCount <= BLAKE2s.digestByteCount)
    self.byteCount = byteCount
    state = BLAKE2sState(byteCount: byteCount, keyByteCount: 0)
  }

  /// A keyed hash of `byteCount` bytes, 1 to 32, under a key of 1 to 32 bytes.
  init(byteCount: Int = BLAKE2s.digestByteCount, key: UnsafeRawPointer, keyByteCount: Int) {
    precondition(byteCount >= 1 && byteCount <= BLAKE2s.digestByteCount)
    precondition(keyByteCount >= 1 && keyByteCount <= BLAKE2s.keyByteCountMaximum)
    self.byteCount = byteCount
    state = BLAKE2sState(byteCount: byteCount, keyByteCount: keyByteCount)
    // RFC 7693 section 2.9: the key, zero-padded to a block, is the first block of input.
    append(key, byteCount: keyByteCount)
    waitingByteCount = BLAKE2sBlock.byteCount
  }

  /// Appends `byteCount` bytes, 0 or more, to the input.
  mutating func update(_ input: UnsafeRawPointer, byteCount: Int) {
    var input = input
    var left = byteCount
    let room = BLAKE2sBlock.byteCount &- waitingByteCount
    if left > room {
      append(input, byteCount: room)
      state.compress(block, byteCount: BLAKE2sBlock.byteCount, isLast: false)
      waitingByteCount = 0
      input += room
      left &-= room
      while left > BLAKE2sBlock.byteCount {
        state.compress(
          BLAKE2sBlock(at: input), byteCount: BLAKE2sBlock.byteCount, isLast: false)
        input += BLAKE2sBlock.byteCount
        left &-= BLAKE2sBlock.byteCount
      }
    }
    append(input, byteCount: left)
  }

  /// Appends bytes to the input; an empty buffer appends nothing.
  @inline(__always)
  mutating func update(_ input: UnsafeRawBufferPointer) {
    guard let start = input.baseAddress else { return }
    update(start, byteCount: input.count)
  }

  /// Writes the digest and wipes the hash, which cannot be used afterwards. `digest` may overlap
  /// the input.
  mutating func finish(into digest: UnsafeMutableRawPointer) {
    let waiting = waitingByteCount
    withUnsafeMutableBytes(of: &block) {
      Secret.wipe($0.baseAddress! + waiting, byteCount: BLAKE2sBlock.byteCount &- waiting)
    }
    state.compress(block, byteCount: waiting, isLast: true)
    state.write(to: digest, byteCount: byteCount)
    withUnsafeMutableBytes(of: &state) { Secret.wipe($0.baseAddress!, byteCount: $0.count) }
    withUnsafeMutableBytes(of: &block) { Secret.wipe($0.baseAddress!, byteCount: $0.count) }
    waitingByteCount = 0
  }

  /// Copies input into `block`. The caller has made sure that it fits.
  private mutating func append(_ input: UnsafeRawPointer, byteCount: Int) {
    let waiting = waitingByteCount
    withUnsafeMutableBytes(of: &block) {
      ($0.baseAddress! + waiting).copyMemory(from: input, byteCount: byteCount)
    }
    waitingByteCount = waiting &+ byteCount
  }
}

extension BLAKE2s {
  /// HASH(a || b), 32 bytes (whitepaper section 5.4). `digest` may overlap the input.
  static func hash(
    into digest: UnsafeMutableRawPointer, _ a: UnsafeRawBufferPointer,
    _ b: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
  ) {
    var hash = BLAKE2s()
    hash.update(a)
    hash.update(b)
    hash.finish(into: digest)
  }

  /// MAC(key, message), keyed BLAKE2s of 16 bytes (whitepaper section 5.4), under a key of 1 to
  /// 32 bytes. `mac` may overlap the message.
  static func mac(
    into mac: UnsafeMutableRawPointer, key: UnsafeRawPointer, keyByteCount: Int,
    message: UnsafeRawPointer, byteCount: Int
  ) {
    var hash = BLAKE2s(byteCount: WireGuard.macByteCount, key: key, keyByteCount: keyByteCount)
    hash.update(message, byteCount: byteCount)
    hash.finish(into: mac)
  }
}

/// The chain value of BLAKE2s and its compression function F (RFC 7693 section 3.2).
///
/// Words are in memory order. Every board is little-endian, like the RFC's words.
struct BLAKE2sState: BitwiseCopyable {
  private var h0, h1, h2, h3, h4, h5, h6, h7: UInt32
  /// Bytes compressed so far, the RFC's t.
  private var byteCount: UInt64 = 0

  /// Starts from the parameter block of sequential hashing (RFC 7693 section 2.5): `byteCount`
  /// bytes of digest, 1 to 32, and `keyByteCount` bytes of key, 0 to 32.
  init(byteCount: Int, keyByteCount: Int) {
    let parameters =
      0x0101_0000 ^ UInt32(truncatingIfNeeded: keyByteCount) << 8
      ^ UInt32(truncatingIfNeeded: byteCount)
    h0 = 0x6a09_e667 ^ parameters
    h1 = 0xbb67_ae85
    h2 = 0x3c6e_f372
    h3 = 0xa54f_f53a
    h4 = 0x510e_527f
    h5 = 0x9b05_688c
    h6 = 0x1f83_d9ab
    h7 = 0x5be0_cd19
  }

  /// The word schedule, SIGMA of RFC 7693 section 2.7: 16 words for each of ten rounds, from `@`
  /// for word 0 to `O` for word 15. It is a string because an array would be built at run time.
  private static var schedule: StaticString {
    """
    @ABCDEFGHIJKLMNO\
    NJDHIOMFAL@BKGEC\
    KHL@EBOMJNCFGAID\
    GICAMLKNBFEJD@OH\
    I@EGBDJONAKLFHCM\
    BLFJ@KHCDMGEONAI\
    LEAONMDJ@GFCIBHK\
    MKGNLACIE@ODHFBJ\
    FONIKC@HLBMGADJE\
    JBHDGFAEOKINCLM@
    """
  }

  /// Compresses one block, of which `byteCount` bytes are input and the rest zeros.
  ///
  /// Not inlined: the rounds are large, and `Secret.burnStack` only reaches what they spill below
  /// the caller's frame. The rounds are a loop because only handshakes hash, and unrolling would
  /// add 4 KB of code.
  @inline(never)
  mutating func compress(_ m: BLAKE2sBlock, byteCount: Int, isLast: Bool) {
    self.byteCount &+= UInt64(truncatingIfNeeded: byteCount)
    var v = BLAKE2sRounds(
      v0: h0, v1: h1, v2: h2, v3: h3, v4: h4, v5: h5, v6: h6, v7: h7,
      v8: 0x6a09_e667, v9: 0xbb67_ae85, v10: 0x3c6e_f372, v11: 0xa54f_f53a,
      v12: 0x510e_527f ^ UInt32(truncatingIfNeeded: self.byteCount),
      v13: 0x9b05_688c ^ UInt32(truncatingIfNeeded: self.byteCount >> 32),
      v14: isLast ? ~0x1f83_d9ab : 0x1f83_d9ab, v15: 0x5be0_cd19)
    withUnsafeBytes(of: m) { words in
      var schedule = BLAKE2sState.schedule.utf8Start
      for _ in 0..<10 {
        v.round(words.baseAddress!, schedule)
        schedule += 16
      }
    }
    h0 ^= v.v0 ^ v.v8
    h1 ^= v.v1 ^ v.v9
    h2 ^= v.v2 ^ v.v10
    h3 ^= v.v3 ^ v.v11
    h4 ^= v.v4 ^ v.v12
    h5 ^= v.v5 ^ v.v13
    h6 ^= v.v6 ^ v.v14
    h7 ^= v.v7 ^ v.v15
  }

  /// Writes the digest: the first `byteCount` bytes of the chain value, at most 32.
  mutating func write(to digest: UnsafeMutableRawPointer, byteCount: Int) {
    withUnsafeBytes(of: &self) {
      digest.copyMemory(from: $0.baseAddress!, byteCount: byteCount)
    }
  }
}

/// The working vector of BLAKE2s and its mixing (RFC 7693 sections 3.1 and 3.2).
struct BLAKE2sRounds: BitwiseCopyable {
  var v0, v1, v2, v3, v4, v5, v6, v7: UInt32
  var v8, v9, v10, v11, v12, v13, v14, v15: UInt32

  /// One round over the 16 `words` of a block, in the order of `schedule`: the columns, then the
  /// diagonals.
  @inline(__always)
  mutating func round(_ words: UnsafeRawPointer, _ schedule: UnsafePointer<UInt8>) {
    BLAKE2sRounds.mix(&v0, &v4, &v8, &v12, words, schedule)
    BLAKE2sRounds.mix(&v1, &v5, &v9, &v13, words, schedule + 2)
    BLAKE2sRounds.mix(&v2, &v6, &v10, &v14, words, schedule + 4)
    BLAKE2sRounds.mix(&v3, &v7, &v11, &v15, words, schedule + 6)
    BLAKE2sRounds.mix(&v0, &v5, &v10, &v15, words, schedule + 8)
    BLAKE2sRounds.mix(&v1, &v6, &v11, &v12, words, schedule + 10)
    BLAKE2sRounds.mix(&v2, &v7, &v8, &v13, words, schedule + 12)
    BLAKE2sRounds.mix(&v3, &v4, &v9, &v14, words, schedule + 14)
  }

  /// The mixing function G, with the first two words of `schedule`.
  @inline(__always)
  private static func mix(
    _ a: inout UInt32, _ b: inout UInt32, _ c: inout UInt32, _ d: inout UInt32,
    _ words: UnsafeRawPointer, _ schedule: UnsafePointer<UInt8>
  ) {
    let x = words.load(fromByteOffset: Int(schedule[0] & 15) &* 4, as: UInt32.self)
    let y = words.load(fromByteOffset: Int(schedule[1] & 15) &* 4, as: UInt32.self)
    a = a &+ b &+ x
    d = rotateRight(d ^ a, 16)
    c = c &+ d
    b = rotateRight(b ^ c, 12)
    a = a &+ b &+ y
    d = rotateRight(d ^ a, 8)
    c = c &+ d
    b = rotateRight(b ^ c, 7)
  }

  @inline(__always)
  private static func rotateRight(_ word: UInt32, _ count: UInt32) -> UInt32 {
    word &>> count | word &<< (32 &- count)
  }
}

/// 64 bytes of input to BLAKE2s, as 16 words in memory order.
struct BLAKE2sBlock: BitwiseCopyable {
  var w0, w1, w2, w3, w4, w5, w6, w7: UInt32
  var w8, w9, w10, w11, w12, w13, w14, w15: UInt32

  static let byteCount = 64

  /// 64 bytes of zeros.
  @inline(__always)
  init() {
    (w0, w1, w2, w3, w4, w5, w6, w7) = (0, 0, 0, 0, 0, 0, 0, 0)
    (w8, w9, w10, w11, w12, w13, w14, w15) = (0, 0, 0, 0, 0, 0, 0, 0)
  }

  /// Reads 64 bytes, aligned or not. The caller has checked the length.
  @inline(__always)
  init(at bytes: UnsafeRawPointer) {
    self = bytes.loadUnaligned(as: BLAKE2sBlock.self)
  }
}
