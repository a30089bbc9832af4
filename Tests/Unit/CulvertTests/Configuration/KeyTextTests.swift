import Testing

@testable import Culvert

@Suite struct KeyTextTests {
  private func hex(_ text: String) -> [UInt8]? {
    var key = [UInt8](repeating: 0xee, count: 32)
    let isValid = TextFixture.with(text) { text in
      key.withUnsafeMutableBytes { Hex.decodeKey(text, into: $0.baseAddress!) }
    }
    if !isValid { #expect(key == [UInt8](repeating: 0, count: 32)) }
    return isValid ? key : nil
  }

  private func base64(_ text: String) -> [UInt8]? {
    var key = [UInt8](repeating: 0xee, count: 32)
    let isValid = TextFixture.with(text) { text in
      key.withUnsafeMutableBytes { Base64.decodeKey(text, into: $0.baseAddress!) }
    }
    if !isValid { #expect(key == [UInt8](repeating: 0, count: 32)) }
    return isValid ? key : nil
  }

  private func base64(of key: [UInt8]) -> String {
    TextFixture.written { writer in
      key.withUnsafeBytes { Base64.appendKey($0.baseAddress!, to: &writer) }
    }
  }

  @Test func everyByteAsAHexadecimalDigit() {
    let expected = Array("0123456789abcdef".utf8)
    for byte in UInt8.min...UInt8.max {
      let lower = byte >= 0x41 && byte <= 0x46 ? byte + 0x20 : byte
      let value = expected.firstIndex(of: lower).map { Int32($0) } ?? -1
      #expect(Hex.value(of: byte) == value)
    }
    for value in UInt8(0)..<16 { #expect(Hex.character(of: value) == expected[Int(value)]) }
  }

  @Test func hexadecimalKeysOfBothCases() {
    let text = "00ff7f80" + String(repeating: "aB", count: 28)
    #expect(hex(text) == [0, 0xff, 0x7f, 0x80] + [UInt8](repeating: 0xab, count: 28))
    #expect(hex(text.uppercased()) == hex(text.lowercased()))
  }

  @Test func wrongHexadecimalKeysLeaveZeros() {
    let good = String(repeating: "5a", count: 32)
    #expect(hex(good) != nil)
    for wrong in ["", "5a", String(good.dropLast()), good + "5", good + "5a"] {
      #expect(hex(wrong) == nil)
    }
    for position in 0..<64 {
      for wrong in [UInt8(0x67), 0x2f, 0x3a, 0x40, 0x60, 0x20, 0] {
        var bytes = Array(good.utf8)
        bytes[position] = wrong
        #expect(hex(String(decoding: bytes, as: UTF8.self)) == nil)
      }
    }
  }

  /// RFC 7748 section 6.1's public keys, as base64(1) gives them.
  @Test func base64OfKnownKeys() {
    let alice = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")!
    #expect(base64(of: alice) == "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=")
    let ones = [UInt8](repeating: 0xff, count: 32)
    #expect(base64(of: ones) == String(repeating: "/", count: 42) + "8=")
    let zeros = [UInt8](repeating: 0, count: 32)
    #expect(base64(of: zeros) == String(repeating: "A", count: 43) + "=")
  }

  @Test func keysSurviveBothForms() {
    var generator = TextFixture.Generator(seed: 1)
    for _ in 0..<2000 {
      let key = (0..<32).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
      #expect(base64(base64(of: key)) == key)
      let text = TextFixture.written { writer in
        key.withUnsafeBytes { writer.append(hex: $0.baseAddress!, byteCount: 32) }
      }
      #expect(hex(text) == key)
    }
  }

  @Test func everyByteInEveryPlaceOfBase64() {
    let good = Array("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".utf8)
    let alphabet = Array(
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    for place in 0..<44 {
      for byte in UInt8.min...UInt8.max {
        var text = good
        text[place] = byte
        var key = [UInt8](repeating: 0, count: 32)
        let isValid = text.withUnsafeBytes { text in
          key.withUnsafeMutableBytes { Base64.decodeKey(text, into: $0.baseAddress!) }
        }
        let value = alphabet.firstIndex(of: byte)
        let expected = place == 43 ? byte == 0x3d : value != nil && (place != 42 || value! & 3 == 0)
        #expect(isValid == expected, "byte \(byte) at \(place)")
        if isValid { #expect(Array(base64(of: key).utf8) == text) }
      }
    }
    let text = String(decoding: good, as: UTF8.self)
    for wrong in ["", "=", String(text.dropLast()), "A" + text, text + "="] {
      #expect(base64(wrong) == nil)
    }
  }
}
