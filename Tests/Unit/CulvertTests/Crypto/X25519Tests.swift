import Foundation
import Testing

@testable import Culvert

@Suite struct X25519Tests {
  /// The product; or nil if it was refused, in which case the output is zeroed.
  static func multiply(_ secret: [UInt8], _ point: [UInt8]) -> [UInt8]? {
    var output = [UInt8](repeating: 0xee, count: 32)
    guard X25519.multiply(into: &output, secret: secret, point: point) else {
      #expect(output.allSatisfy { $0 == 0 })
      return nil
    }
    return output
  }

  @Test(arguments: [
    (
      "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
      "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
      "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    ),
    (
      "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
      "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
      "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"
    ),
  ])
  func rfc7748Section52(secret: String, point: String, product: String) {
    #expect(
      X25519Tests.multiply(TestVectors.bytes(secret), TestVectors.bytes(point))
        == TestVectors.bytes(product))
  }

  @Test func rfc7748Section52Iterated() {
    var secret: [UInt8] = [9] + [UInt8](repeating: 0, count: 31)
    var point = secret
    for _ in 0..<1000 {
      let product = X25519Tests.multiply(secret, point)!
      (secret, point) = (product, secret)
    }
    #expect(
      secret
        == TestVectors.bytes("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"))
  }

  @Test func rfc7748Section61() {
    let a = TestVectors.bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    let b = TestVectors.bytes("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    var publicA = [UInt8](repeating: 0, count: 32)
    X25519.publicKey(into: &publicA, secret: a)
    #expect(
      publicA
        == TestVectors.bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"))
    var publicB = publicA
    X25519.publicKey(into: &publicB, secret: b)
    let shared = TestVectors.bytes(
      "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    #expect(X25519Tests.multiply(a, publicB) == shared)
    #expect(X25519Tests.multiply(b, publicA) == shared)
  }

  @Test func R31_lowOrderPointsAreRefused() {
    let secret = TestVectors.pattern(32, start: 1)
    var order8 = TestVectors.bytes(
      "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
    #expect(X25519Tests.multiply(secret, order8) == nil)
    // The top bit of a point is ignored (RFC 7748 section 5).
    order8[31] |= 0x80
    #expect(X25519Tests.multiply(secret, order8) == nil)
    var point = [UInt8](repeating: 0, count: 32)
    #expect(X25519Tests.multiply(secret, point) == nil)
    point[0] = 1
    #expect(X25519Tests.multiply(secret, point) == nil)
  }

  @Test func clampingIsIdempotentAndChangesNoProduct() {
    let raw = [UInt8](repeating: 0xff, count: 32)
    var clamped = raw
    X25519.clamp(&clamped)
    #expect(clamped[0] == 0xf8 && clamped[31] == 0x7f)
    #expect(Array(clamped[1..<31]) == Array(raw[1..<31]))
    var zero = [UInt8](repeating: 0, count: 32)
    X25519.clamp(&zero)
    #expect(zero[0] == 0 && zero[31] == 0x40)
    var again = clamped
    X25519.clamp(&again)
    #expect(again == clamped)
    let point: [UInt8] = [9] + [UInt8](repeating: 0, count: 31)
    #expect(X25519Tests.multiply(raw, point) == X25519Tests.multiply(clamped, point))
  }

  @Test(.enabled(if: TestVectors.exists("x25519_test.json"), "no ../shared/vectors"))
  func wycheproofX25519() throws {
    let cases = try TestVectors.wycheproof("x25519_test.json")
    #expect(cases.count > 500)
    for test in cases {
      let shared = test.hex("shared")
      let product = X25519Tests.multiply(test.hex("private"), test.hex("public"))
      if shared.allSatisfy({ $0 == 0 }) {
        #expect(product == nil, "R31, case \(test["tcId"]!)")
      } else {
        #expect(product == shared, "case \(test["tcId"]!)")
      }
    }
  }
}

/// Bytes in hex, and the larger vector sets beside the repository. If the sets are absent, the
/// tests that read them are skipped by name; the RFCs' own cases are in the tests.
enum TestVectors {
  /// Bytes from hex; blanks and line ends between the digits are ignored.
  static func bytes(_ text: String) -> [UInt8] {
    let digits = text.filter { !$0.isWhitespace }
    precondition(digits.count % 2 == 0)
    var bytes: [UInt8] = []
    var index = digits.startIndex
    while index < digits.endIndex {
      let next = digits.index(index, offsetBy: 2)
      bytes.append(UInt8(digits[index..<next], radix: 16)!)
      index = next
    }
    return bytes
  }

  /// `start`, `start` + `step`, and so on, `count` bytes.
  static func pattern(_ count: Int, start: UInt8, step: UInt8 = 7) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0) &* step &+ start }
  }

  /// The bytes of a set, from `CULVERT_VECTORS` or from ../shared/vectors beside the repository.
  static func file(_ name: String) -> Data? {
    if let folder = ProcessInfo.processInfo.environment["CULVERT_VECTORS"] {
      return FileManager.default.contents(atPath: folder + "/" + name)
    }
    return FileManager.default.contents(
      atPath: repositoryRoot.deletingLastPathComponent().path + "/shared/vectors/" + name)
  }

  static func exists(_ name: String) -> Bool { file(name) != nil }

  /// The cases of a Wycheproof set that `matches` accepts by its group, as name and value pairs.
  static func wycheproof(
    _ name: String, where matches: ([String: Any]) -> Bool = { _ in true }
  ) throws -> [[String: Any]] {
    let json = try JSONSerialization.jsonObject(with: file(name)!) as! [String: Any]
    return (json["testGroups"] as! [[String: Any]]).filter(matches)
      .flatMap { $0["tests"] as! [[String: Any]] }
  }
}

extension [String: Any] {
  /// The bytes of a field in hex.
  func hex(_ name: String) -> [UInt8] { TestVectors.bytes(self[name] as! String) }

  func text(_ name: String) -> String { self[name] as! String }
}
