/// HMAC-BLAKE2s (RFC 2104 over RFC 7693's plain hash): WireGuard's HMAC, of which its key
/// derivation is made (whitepaper section 5.4). Not the MAC of messages, which is keyed BLAKE2s.
enum HMAC {
  /// HMAC(key, a || b), 32 bytes, under a key of 0 to 64 bytes. `mac` may overlap key and input.
  @inline(never)
  static func authenticate(
    into mac: UnsafeMutableRawPointer, key: UnsafeRawPointer, keyByteCount: Int,
    _ a: UnsafeRawBufferPointer,
    _ b: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
  ) {
    // A longer key would have to be hashed first; WireGuard has none.
    precondition(keyByteCount >= 0 && keyByteCount <= BLAKE2sBlock.byteCount)
    var padded = BLAKE2sBlock()
    withUnsafeMutableBytes(of: &padded) { padded in
      padded.baseAddress!.copyMemory(from: key, byteCount: keyByteCount)
      flip(padded, 0x36)
      var hash = BLAKE2s()
      hash.update(UnsafeRawBufferPointer(padded))
      hash.update(a)
      hash.update(b)
      hash.finish(into: mac)
      flip(padded, 0x36 ^ 0x5c)
      hash = BLAKE2s()
      hash.update(UnsafeRawBufferPointer(padded))
      hash.update(mac, byteCount: BLAKE2s.digestByteCount)
      hash.finish(into: mac)
      Secret.wipe(padded.baseAddress!, byteCount: padded.count)
    }
  }

  @inline(__always)
  private static func flip(_ bytes: UnsafeMutableRawBufferPointer, _ pattern: UInt8) {
    for index in 0..<bytes.count { bytes[index] ^= pattern }
  }
}
