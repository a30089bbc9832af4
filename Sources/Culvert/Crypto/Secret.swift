import CSodium

/// The operations on key material. Keys stay behind pointers, are compared in constant time (R35),
/// and are wiped in a way that the optimiser cannot remove (R9).
public enum Secret {
  /// Zeroes `byteCount` bytes.
  @inline(__always)
  public static func wipe(_ bytes: UnsafeMutableRawPointer, byteCount: Int) {
    csodium_wipe(bytes, byteCount)
  }

  /// Whether both hold the same `byteCount` bytes, in constant time.
  @inline(__always)
  static func equal(
    _ left: UnsafeRawPointer, _ right: UnsafeRawPointer, byteCount: Int
  ) -> Bool {
    csodium_compare(left, right, byteCount) == 0
  }

  /// Whether all `byteCount` bytes are zero, in constant time.
  @inline(__always)
  static func isZero(_ bytes: UnsafeRawPointer, byteCount: Int) -> Bool {
    csodium_is_zero(bytes, byteCount) == 1
  }

  /// Overwrites the 2 KiB of stack below the caller's frame. Calls that have returned may have
  /// spilled registers there, and no other wipe reaches them.
  @inline(__always)
  static func burnStack() {
    csodium_burn_stack()
  }
}

/// 32 bytes that are not secret: a public key, or a hash. Secrets are never of this type; they stay
/// behind pointers into the locked part of the arena (`Secret`).
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

  /// Reads 32 bytes. The caller has checked the length.
  public init(at bytes: UnsafeRawPointer) {
    self = bytes.loadUnaligned(as: Key.self)
  }

  /// Writes 32 bytes.
  public func write(to bytes: UnsafeMutableRawPointer) {
    bytes.storeBytes(of: self, as: Key.self)
  }

  public var isZero: Bool { word0 | word1 | word2 | word3 == 0 }
}

/// The initialisation of libsodium.
public enum Sodium {
  /// Chooses the implementations for this CPU and opens the entropy source. Call it once, before
  /// anything else in this module and before the process drops its privileges.
  ///
  /// - Returns: false if libsodium cannot run on this system; no tunnel may start then.
  public static func start() -> Bool {
    csodium_init() >= 0
  }

  /// Opens the entropy source again after `body`, which may close descriptors it does not know.
  package static func reopening(_ body: () -> Void) {
    csodium_close_source()
    body()
    csodium_open_source()
  }
}
