/// The working vector of BLAKE2s and its mixing (RFC 7693 sections 3.1 and 3.2).
struct BLAKE2sRounds: BitwiseCopyable {
  var v0, v1, v2, v3, v4, v5, v6, v7: UInt32
  var v8, v9, v10, v11, v12, v13, v14, v15: UInt32

  /// One round: the columns, then the diagonals. The words come in the round's order.
  @inline(__always)
  mutating func round(
    _ m0: UInt32, _ m1: UInt32, _ m2: UInt32, _ m3: UInt32,
    _ m4: UInt32, _ m5: UInt32, _ m6: UInt32, _ m7: UInt32,
    _ m8: UInt32, _ m9: UInt32, _ m10: UInt32, _ m11: UInt32,
    _ m12: UInt32, _ m13: UInt32, _ m14: UInt32, _ m15: UInt32
  ) {
    BLAKE2sRounds.mix(&v0, &v4, &v8, &v12, m0, m1)
    BLAKE2sRounds.mix(&v1, &v5, &v9, &v13, m2, m3)
    BLAKE2sRounds.mix(&v2, &v6, &v10, &v14, m4, m5)
    BLAKE2sRounds.mix(&v3, &v7, &v11, &v15, m6, m7)
    BLAKE2sRounds.mix(&v0, &v5, &v10, &v15, m8, m9)
    BLAKE2sRounds.mix(&v1, &v6, &v11, &v12, m10, m11)
    BLAKE2sRounds.mix(&v2, &v7, &v8, &v13, m12, m13)
    BLAKE2sRounds.mix(&v3, &v4, &v9, &v14, m14, m15)
  }

  /// The mixing function G.
  @inline(__always)
  private static func mix(
    _ a: inout UInt32, _ b: inout UInt32, _ c: inout UInt32, _ d: inout UInt32,
    _ x: UInt32, _ y: UInt32
  ) {
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
