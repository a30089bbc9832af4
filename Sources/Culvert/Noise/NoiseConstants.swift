/// Hash(construction) and Hash(Hash(construction) || identifier), whitepaper section 5.4, computed
/// once at start.
struct NoiseConstants: BitwiseCopyable {
  let chainingKey: Key
  let hash: Key

  private static var construction: StaticString { "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s" }
  private static var identifier: StaticString { "WireGuard v1 zx2c4 Jason@zx2c4.com" }

  init() {
    var first = Key.zero
    var second = Key.zero
    withUnsafeMutableBytes(of: &first) { output in
      BLAKE2s.hash(into: output.baseAddress!, NoiseConstants.construction.bytes, .empty)
    }
    withUnsafeMutableBytes(of: &second) { output in
      withUnsafeBytes(of: first) { first in
        BLAKE2s.hash(into: output.baseAddress!, first, NoiseConstants.identifier.bytes)
      }
    }
    chainingKey = first
    hash = second
  }
}

extension StaticString {
  /// The string's UTF-8 bytes, which live as long as the program.
  var bytes: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: utf8Start, count: utf8CodeUnitCount)
  }
}

extension UnsafeRawBufferPointer {
  static var empty: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: nil, count: 0) }
}
