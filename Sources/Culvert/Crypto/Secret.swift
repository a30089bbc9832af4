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
