import Foundation
import Testing

@testable import Culvert

@Suite struct SecretTests {
  @Test func sodiumStarts() {
    #expect(Sodium.start())
    // Starting again is no error.
    #expect(Sodium.start())
  }

  @Test func R9_wipeZeroes() {
    var bytes = TestVectors.pattern(40, start: 1)
    Secret.wipe(&bytes, byteCount: 32)
    #expect(bytes.prefix(32).allSatisfy { $0 == 0 })
    #expect(Array(bytes[32...]) == Array(TestVectors.pattern(40, start: 1)[32...]))
  }

  @Test func equalAndIsZeroSeeEveryByte() {
    let a = TestVectors.pattern(33, start: 1)
    #expect(Secret.equal(a, a, byteCount: 33))
    for index in 0..<33 {
      var b = a
      b[index] ^= 0x80
      #expect(!Secret.equal(a, b, byteCount: 33))
      #expect(Secret.equal(a, b, byteCount: index))
      var zeros = [UInt8](repeating: 0, count: 33)
      #expect(Secret.isZero(zeros, byteCount: 33))
      zeros[index] = 1
      #expect(!Secret.isZero(zeros, byteCount: 33))
    }
  }

  /// A structure test: no time can be measured reliably here, so the sources are read. Bytes are
  /// compared only by libsodium's constant-time calls, and every MAC goes through them.
  @Test func R35_comparisonsAreConstantTime() throws {
    var root = URL(fileURLWithPath: #filePath)
    for _ in 0..<4 { root.deleteLastPathComponent() }
    let sources = root.appendingPathComponent("Sources")
    let shim = try String(
      contentsOf: sources.appendingPathComponent("CSodium/shim.h"), encoding: .utf8)
    #expect(shim.contains("return sodium_memcmp("))
    #expect(shim.contains("return sodium_is_zero("))
    var names: [String] = []
    for folder in ["Crypto", "Noise"] {
      let path = sources.appendingPathComponent("Culvert/" + folder)
      for name in try FileManager.default.contentsOfDirectory(atPath: path.path) {
        guard name.hasSuffix(".swift") else { continue }
        names.append(name)
        let text = try String(contentsOf: path.appendingPathComponent(name), encoding: .utf8)
        for forbidden in ["memcmp", "elementsEqual", "lexicographicallyPrecedes"] {
          #expect(!text.contains(forbidden), "\(name) compares with \(forbidden)")
        }
        // Only MACs that are compared are named so; both go through `Secret.equal`.
        if name == "CookieChecker.swift" {
          #expect(text.components(separatedBy: "Secret.equal(").count == 3)
        }
      }
    }
    #expect(names.contains("Secret.swift"))
  }
}
