import CSodium

/// A source of random numbers. The core has none of its own: the shell passes `Entropy.sodium`, and
/// a simulation passes a seeded source.
public struct Entropy {
  public typealias Fill = @convention(c) (UnsafeMutableRawPointer, Int) -> Void

  private let source: Fill?
  /// Only used if `source` is nil.
  private var stream: SplitMix64

  /// A source that is fit for keys.
  ///
  /// - Parameter fill: writes the requested number of random bytes. It must not fail.
  public static func system(fill: Fill) -> Entropy {
    Entropy(source: fill, seed: 0)
  }

  /// A stream that depends only on the seed (`SplitMix64`), so that a simulation can be repeated.
  /// It is predictable, so never use it for a tunnel that carries data.
  public static func seeded(_ seed: UInt64) -> Entropy {
    Entropy(source: nil, seed: seed)
  }

  /// libsodium's randombytes_buf: the kernel's generator. `Sodium.start` must have returned true.
  public static var sodium: Entropy {
    system { bytes, byteCount in csodium_random(bytes, byteCount) }
  }

  private init(source: Fill?, seed: UInt64) {
    self.source = source
    stream = SplitMix64(seed: seed)
  }

  /// Writes `byteCount` random bytes.
  public mutating func fill(_ bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard let source else {
      var offset = 0
      while offset < byteCount {
        withUnsafeBytes(of: stream.next().littleEndian) { word in
          (bytes + offset).copyMemory(
            from: word.baseAddress!, byteCount: min(word.count, byteCount &- offset))
        }
        offset &+= MemoryLayout<UInt64>.size
      }
      return
    }
    source(bytes, byteCount)
  }

  public mutating func uint32() -> UInt32 {
    UInt32(truncatingIfNeeded: uint64())
  }

  public mutating func uint64() -> UInt64 {
    guard let source else { return stream.next() }
    var word: UInt64 = 0
    withUnsafeMutableBytes(of: &word) { source($0.baseAddress!, $0.count) }
    return word
  }

  /// A number in 0..<bound, each equally likely; 0 if the bound is 0.
  public mutating func below(_ bound: UInt64) -> UInt64 {
    guard bound > 1 else { return 0 }
    let mask = UInt64.max >> UInt64((bound &- 1).leadingZeroBitCount)
    // In the worst case half of the draws fit, so 128 misses in a row mean a broken source.
    for _ in 0..<128 {
      let candidate = uint64() & mask
      if candidate < bound { return candidate }
    }
    return 0
  }
}

/// SipHash-2-4 (Aumasson, Bernstein 2012), to derive values that others may see: they reveal
/// nothing about the key or about each other. Tables use the faster `TableHash`.
struct KeyedHash: BitwiseCopyable, Sendable {
  private let key0: UInt64
  private let key1: UInt64

  /// A hash under the 16 bytes of two little-endian words.
  init(key0: UInt64, key1: UInt64) {
    self.key0 = key0.littleEndian
    self.key1 = key1.littleEndian
  }

  /// A hash under a random key.
  init(key entropy: inout Entropy) {
    let key0 = entropy.uint64()
    self.init(key0: key0, key1: entropy.uint64())
  }

  /// The hash of `byteCount` bytes.
  func hash(_ bytes: UnsafeRawPointer, byteCount: Int) -> UInt64 {
    var digest: UInt64 = 0
    withUnsafeMutableBytes(of: &digest) { digest in
      withUnsafeBytes(of: self) { key in
        csodium_siphash(digest.baseAddress!, bytes, byteCount, key.baseAddress!)
      }
    }
    return UInt64(littleEndian: digest)
  }

  /// The hash of the 16 bytes of two little-endian words.
  func hash(_ first: UInt64, _ second: UInt64) -> UInt64 {
    withUnsafeBytes(of: (first.littleEndian, second.littleEndian)) {
      hash($0.baseAddress!, byteCount: $0.count)
    }
  }
}
