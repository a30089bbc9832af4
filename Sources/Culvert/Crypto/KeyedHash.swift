import CSodium

/// SipHash-2-4 (Aumasson, Bernstein 2012) for tables that strangers can fill: without the key
/// nobody can choose inputs that collide.
public struct KeyedHash: BitwiseCopyable, Sendable {
  private let key0: UInt64
  private let key1: UInt64

  /// A hash under the 16 bytes of two little-endian words.
  public init(key0: UInt64, key1: UInt64) {
    self.key0 = key0.littleEndian
    self.key1 = key1.littleEndian
  }

  /// A hash under a key nobody knows.
  public init(key entropy: inout Entropy) {
    let key0 = entropy.uint64()
    self.init(key0: key0, key1: entropy.uint64())
  }

  /// Hash of `byteCount` bytes.
  public func hash(_ bytes: UnsafeRawPointer, byteCount: Int) -> UInt64 {
    var digest: UInt64 = 0
    withUnsafeMutableBytes(of: &digest) { digest in
      withUnsafeBytes(of: self) { key in
        csodium_siphash(digest.baseAddress!, bytes, byteCount, key.baseAddress!)
      }
    }
    return UInt64(littleEndian: digest)
  }

  /// Hash of the 16 bytes of two little-endian words.
  public func hash(_ first: UInt64, _ second: UInt64) -> UInt64 {
    withUnsafeBytes(of: (first.littleEndian, second.littleEndian)) {
      hash($0.baseAddress!, byteCount: $0.count)
    }
  }
}
