/// WireGuard's key derivation Kdf1, Kdf2, Kdf3 (whitepaper section 5.4): HKDF (RFC 5869) with
/// HMAC-BLAKE2s, the chaining key as salt, no info, and up to three outputs of 32 bytes.
enum HKDF {
  /// Derives `first` and, if given, `second` and `third` (only with `second`).
  ///
  /// - Parameters:
  ///   - chainingKey: 32 bytes.
  ///   - input: `byteCount` bytes, 0 or more.
  ///   - first: 32 bytes. The outputs may overlap the chaining key or the input, but not each
  ///     other.
  static func derive(
    chainingKey: UnsafeRawPointer, input: UnsafeRawPointer, byteCount: Int,
    into first: UnsafeMutableRawPointer, second: UnsafeMutableRawPointer? = nil,
    third: UnsafeMutableRawPointer? = nil
  ) {
    extractAndExpand(chainingKey, input, byteCount, first, second, third)
    // The hashes may have spilled registers into the stack frames of that call.
    Secret.burnStack()
  }

  /// Not inlined: `Secret.burnStack` overwrites only what lies below the frame of `derive`.
  @inline(never)
  private static func extractAndExpand(
    _ chainingKey: UnsafeRawPointer, _ input: UnsafeRawPointer, _ byteCount: Int,
    _ first: UnsafeMutableRawPointer, _ second: UnsafeMutableRawPointer?,
    _ third: UnsafeMutableRawPointer?
  ) {
    var secret = (UInt64(0), UInt64(0), UInt64(0), UInt64(0))
    withUnsafeMutableBytes(of: &secret) { secret in
      let key = secret.baseAddress!
      HMAC.authenticate(
        into: key, key: chainingKey, keyByteCount: WireGuard.keyByteCount,
        UnsafeRawBufferPointer(start: input, count: byteCount))
      expand(into: first, key: key, after: nil, number: 1)
      if let second {
        expand(into: second, key: key, after: first, number: 2)
        if let third {
          expand(into: third, key: key, after: second, number: 3)
        }
      }
      Secret.wipe(key, byteCount: secret.count)
    }
  }

  /// T(number) = HMAC(key, T(number - 1) || number), RFC 5869 section 2.3.
  private static func expand(
    into output: UnsafeMutableRawPointer, key: UnsafeRawPointer, after previous: UnsafeRawPointer?,
    number: UInt8
  ) {
    withUnsafeBytes(of: number) { number in
      HMAC.authenticate(
        into: output, key: key, keyByteCount: WireGuard.keyByteCount,
        UnsafeRawBufferPointer(
          start: previous, count: previous == nil ? 0 : WireGuard.keyByteCount),
        number)
    }
  }
}

/// HMAC-BLAKE2s (RFC 2104 over RFC 7693's plain hash), for key derivation (whitepaper section 5.4).
/// The MACs of messages use keyed BLAKE2s instead.
enum HMAC {
  /// HMAC(key, a || b), 32 bytes, under a key of 0 to 64 bytes. `mac` may overlap key and input.
  static func authenticate(
    into mac: UnsafeMutableRawPointer, key: UnsafeRawPointer, keyByteCount: Int,
    _ a: UnsafeRawBufferPointer,
    _ b: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
  ) {
    // A longer key would have to be hashed first; WireGuard uses none.
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
