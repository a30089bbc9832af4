/// `culvert selftest`: checks known answers on the device itself, for everything that a compiler, a
/// CPU or a library could get wrong.
///
/// A group hashes the results of the code under test for seeded inputs, and the first eight bytes
/// of the hash are compared with `SelftestGroup.expected`. The expected values come from
/// independent code: Tests/System/known_answers computes them from the specifications, except for
/// the reassembler's, which comes from the naive model in the unit tests.
package enum Selftest {
  /// Bytes that `digest` needs: the tables of the largest group.
  package static let memoryByteCount = 640 << 10

  /// Combines the digest over all groups so far (0 before the first) with that of the next group.
  /// The digest over all groups is the same on every board and in both builds.
  package static func chain(_ total: UInt64, _ digest: UInt64) -> UInt64 {
    var chain = SelftestDigest()
    chain.add(total)
    chain.add(digest)
    return chain.finish()
  }

  /// The digest of one group.
  ///
  /// - Parameter memory: `memoryByteCount` bytes, page-aligned, which are overwritten.
  package static func digest(
    of group: SelftestGroup, memory: UnsafeMutableRawBufferPointer
  ) -> UInt64 {
    memory.initializeMemory(as: UInt8.self, repeating: 0)
    var run = SelftestRun(memory: memory, seed: UInt64(group.rawValue))
    run.run(group)
    return run.digest.finish()
  }
}

/// The groups of the self-test, in the order in which they run.
package enum SelftestGroup: UInt8, Sendable {
  case blake2s
  case hmac
  case hkdf
  case siphash
  case x25519
  case aead
  case xaead
  case handshake
  case handshakePresharedKey
  case timers
  case replay
  case routing
  case time
  case checksum
  case fragments
  case reassembly
  case text
  case configuration

  /// Raw values are 0..<count. (`CaseIterable` would create an array, which is an allocation.)
  package static let count = configuration.rawValue + 1

  package var name: StaticString {
    switch self {
    case .blake2s: "blake2s"
    case .hmac: "hmac"
    case .hkdf: "hkdf"
    case .siphash: "siphash"
    case .x25519: "x25519"
    case .aead: "chacha20-poly1305"
    case .xaead: "xchacha20-poly1305"
    case .handshake: "handshake"
    case .handshakePresharedKey: "handshake-psk"
    case .timers: "timers"
    case .replay: "replay-window"
    case .routing: "allowed-ips"
    case .time: "time"
    case .checksum: "checksum"
    case .fragments: "fragmenter"
    case .reassembly: "reassembler"
    case .text: "text"
    case .configuration: "configuration"
    }
  }

  /// The digest that Tests/System/known_answers computes, or for the reassembler the unit tests.
  package var expected: UInt64 {
    switch self {
    case .blake2s: 0x89dc_e2ba_80cc_f8b2
    case .hmac: 0xc74b_c8c3_a340_bd09
    case .hkdf: 0x25ce_3515_e63c_85a7
    case .siphash: 0xc724_a9c6_6af4_29de
    case .x25519: 0x3d4d_3c24_f5c1_2e43
    case .aead: 0x83aa_9171_eb3b_f6e0
    case .xaead: 0x3430_4a79_f381_7339
    case .handshake: 0xff1b_9315_5f9b_4314
    case .handshakePresharedKey: 0x2d26_06bd_6c0c_e79b
    case .timers: 0x87b5_bdff_3257_f935
    case .replay: 0x89b0_9952_8291_208f
    case .routing: 0xda83_730c_5d2e_87a2
    case .time: 0xed2c_9a27_ee23_d8ec
    case .checksum: 0xe634_7a0d_7cfe_cd2e
    case .fragments: 0xf638_d33e_028d_5f2a
    case .reassembly: 0xd320_6539_6879_aab1
    case .text: 0xc7df_3a73_94b7_1b64
    case .configuration: 0xfe32_2ab2_4beb_5a67
    }
  }
}
