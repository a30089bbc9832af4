/// Transport data through libsodium's AEAD call.
enum WholeAEAD {
  /// As `TransportCipher.seal`. The call knows nothing of padding, so the padding's bytes are
  /// zeroed at the input and put back.
  @inline(never)
  static func seal(
    _ text: UnsafeMutableRawPointer, byteCount: Int, paddedByteCount: Int,
    to output: UnsafeMutableRawPointer, counter: UInt64, sender: UInt32, key: UnsafeRawPointer
  ) {
    let padding = text + byteCount
    let paddingByteCount = paddedByteCount &- byteCount
    let before = padding.loadUnaligned(as: SIMD16<UInt8>.self)
    padding.initializeMemory(as: UInt8.self, repeating: 0, count: paddingByteCount)
    AEAD.seal(
      into: output, text: text, byteCount: paddedByteCount, additionalData: nil,
      additionalByteCount: 0, counter: counter, sender: sender, key: key)
    withUnsafeBytes(of: before) { before in
      padding.copyMemory(from: before.baseAddress!, byteCount: paddingByteCount)
    }
  }
}
