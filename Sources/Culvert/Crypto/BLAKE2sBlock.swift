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

  /// Reads 64 bytes, aligned or not; the caller has proved that they are there.
  @inline(__always)
  init(at bytes: UnsafeRawPointer) {
    self = bytes.loadUnaligned(as: BLAKE2sBlock.self)
  }
}
