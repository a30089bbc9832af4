import CSodium

/// What may be done to key material: it stays behind a pointer, is compared in constant time
/// (R35), and is wiped in a way the optimiser does not remove (R9).
public enum Secret {
  /// Zeroes `byteCount` bytes.
  @inline(__always)
  public static func wipe(_ bytes: UnsafeMutableRawPointer, byteCount: Int) {
    csodium_wipe(bytes, byteCount)
  }

  /// Whether both hold the same `byteCount` bytes; the time taken does not tell where they differ.
  @inline(__always)
  public static func equal(
    _ left: UnsafeRawPointer, _ right: UnsafeRawPointer, byteCount: Int
  ) -> Bool {
    csodium_compare(left, right, byteCount) == 0
  }

  /// Whether all `byteCount` bytes are zero, in constant time.
  @inline(__always)
  public static func isZero(_ bytes: UnsafeRawPointer, byteCount: Int) -> Bool {
    csodium_is_zero(bytes, byteCount) == 1
  }

  /// Overwrites the 2 KiB of stack below the caller's frame: registers that calls which have
  /// returned spilled there, and no other wipe can reach.
  @inline(__always)
  public static func burnStack() {
    csodium_burn_stack()
  }
}

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
  public init(at bytes: UnsafeRawPointer) {
    self = bytes.loadUnaligned(as: Key.self)
  }

  /// Writes 32 bytes.
  public func write(to bytes: UnsafeMutableRawPointer) {
    bytes.storeBytes(of: self, as: Key.self)
  }

  public var isZero: Bool { word0 | word1 | word2 | word3 == 0 }
}

/// libsodium itself.
public enum Sodium {
  /// Chooses the implementations that fit this CPU and opens the entropy source. Called once,
  /// before anything else of this folder and before the process drops its privileges.
  ///
  /// - Returns: false where libsodium cannot run here; nothing of the tunnel may then start.
  public static func start() -> Bool {
    csodium_init() >= 0
  }
}
