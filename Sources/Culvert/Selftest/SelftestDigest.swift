/// What a group of the self-test has given, hashed.
struct SelftestDigest: ~Copyable {
  private var hash = BLAKE2s()

  // Calls, as there are many of them and none is hot.
  @inline(never)
  @_optimize(size)
  mutating func add(_ bytes: UnsafeRawPointer, byteCount: Int) {
    hash.update(bytes, byteCount: byteCount)
  }

  /// Eight bytes, little-endian.
  @inline(never)
  @_optimize(size)
  mutating func add(_ number: UInt64) {
    withUnsafeBytes(of: number.littleEndian) { hash.update($0) }
  }

  @_optimize(size)
  mutating func add(_ isTrue: Bool) {
    add(isTrue ? 1 : 0)
  }

  /// The hash's first eight bytes, as a number whose hexadecimal digits are theirs in order. The
  /// digest is of no further use.
  @_optimize(size)
  mutating func finish() -> UInt64 {
    var bytes = Key.zero
    withUnsafeMutableBytes(of: &bytes) { hash.finish(into: $0.baseAddress!) }
    return UInt64(bigEndian: bytes.word0)
  }
}
