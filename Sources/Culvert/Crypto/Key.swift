/// 32 bytes that may be seen and compared at leisure: a public key, or a hash on its way out.
/// Secrets are never of this type; they stay behind pointers into the locked part of the arena
/// (`Secret`).
public struct Key: Hashable, Sendable, BitwiseCopyable {
  public var word0: UInt64
  public var word1: UInt64
  public var word2: UInt64
  public var word3: UInt64

  public static var zero: Key { Key(word0: 0, word1: 0, word2: 0, word3: 0) }

  init(word0: UInt64, word1: UInt64, word2: UInt64, word3: UInt64) {
    self.word0 = word0
    self.word1 = word1
    self.word2 = word2
    self.word3 = word3
  }

  /// Reads 32 bytes; the caller has proved that they are there.
  // A call: only handshakes and configuration do this, and without unaligned loads it is long.
  @inline(never)
  public init(at bytes: UnsafeRawPointer) {
    self = bytes.loadUnaligned(as: Key.self)
  }

  /// Writes 32 bytes.
  @inline(never)
  public func write(to bytes: UnsafeMutableRawPointer) {
    bytes.storeBytes(of: self, as: Key.self)
  }

  public var isZero: Bool { word0 | word1 | word2 | word3 == 0 }
}
