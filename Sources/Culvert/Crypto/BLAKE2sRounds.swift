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

  /// The mixing function G, with the two words that come first in `schedule`.
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
