import CSodium

/// Where random numbers come from. The core has no source of its own: the shell hands in
/// `Entropy.sodium`, a simulation a seed.
public struct Entropy {
  public typealias Fill = @convention(c) (UnsafeMutableRawPointer, Int) -> Void

  private let source: Fill?
  /// Unused with a source.
  private var stream: SplitMix64

  /// Bytes from a source fit for keys.
  ///
  /// - Parameter fill: writes as many random bytes as asked for, and cannot fail.
  public static func system(fill: Fill) -> Entropy {
    Entropy(source: fill, seed: 0)
  }

  /// A stream that the seed alone decides (SplitMix64; Steele, Lea, Flood 2014), so that a
  /// simulation can be run again. Anyone can predict it: never for a tunnel that carries data.
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

  /// A number in 0..<bound, each equally likely; 0 where the bound is 0.
  public mutating func below(_ bound: UInt64) -> UInt64 {
    guard bound > 1 else { return 0 }
    let mask = UInt64.max >> UInt64((bound &- 1).leadingZeroBitCount)
    // Half of the draws fit at worst; 128 misses in a row mean a broken source, not bad luck.
    for _ in 0..<128 {
      let candidate = uint64() & mask
      if candidate < bound { return candidate }
    }
    return 0
  }
}

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
