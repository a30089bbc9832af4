/// The chain value of BLAKE2s and its compression function F (RFC 7693 section 3.2).
///
/// Words stand in memory order, which is the RFC's little-endian order on every board.
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

  /// The word schedule, SIGMA of RFC 7693 section 2.7: 16 words for each of ten rounds, `@` for
  /// word 0 to `O` for word 15. Text, because an array would be made at run time.
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

  /// Takes one block in, of which `byteCount` bytes are input and the rest zeros.
  ///
  /// Not inlined: the rounds are large, and `Secret.burnStack` reaches what they spill only below
  /// the caller's frame. A loop, because only handshakes hash: unrolled it is 4 KB more.
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

  /// Writes the first `byteCount` bytes of the chain value, at most 32: the digest.
  mutating func write(to digest: UnsafeMutableRawPointer, byteCount: Int) {
    withUnsafeBytes(of: &self) {
      digest.copyMemory(from: $0.baseAddress!, byteCount: byteCount)
    }
  }
}
