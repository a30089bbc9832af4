import Testing

@testable import Culvert

@Suite struct XAEADTests {
  static func seal(
    _ text: [UInt8], additional: [UInt8], nonce: [UInt8], key: [UInt8]
  ) -> [UInt8] {
    var output = [UInt8](repeating: 0, count: text.count + 16)
    XAEAD.seal(
      into: &output, text: text, byteCount: text.count, additionalData: additional,
      additionalByteCount: additional.count, nonce: nonce, key: key)
    return output
  }

  /// The text, or nil where the tag is wrong; then the output has been zeroed too.
  static func open(
    _ message: [UInt8], additional: [UInt8], nonce: [UInt8], key: [UInt8]
  ) -> [UInt8]? {
    let byteCount = message.count - 16
    var output = [UInt8](repeating: 0xee, count: byteCount + 1)
    let isGenuine = XAEAD.open(
      into: &output, message: message, byteCount: byteCount, additionalData: additional,
      additionalByteCount: additional.count, nonce: nonce, key: key)
    #expect(output.removeLast() == 0xee)
    if !isGenuine { #expect(output.allSatisfy { $0 == 0 }) }
    return isGenuine ? output : nil
  }

  /// draft-irtf-cfrg-xchacha-03 appendix A.3.1.
  @Test func draftAppendixA31() {
    let key = TestVectors.pattern(32, start: 0x80, step: 1)
    let nonce = TestVectors.pattern(24, start: 0x40, step: 1)
    let additional = TestVectors.bytes("50515253c0c1c2c3c4c5c6c7")
    let message = TestVectors.bytes(
      """
      bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb
      731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452
      2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9
      21f9664c97637da9768812f615c68b13b52e
      c0875924c1c7987947deafd8780acf49
      """)
    #expect(
      XAEADTests.seal(AEADTests.text, additional: additional, nonce: nonce, key: key) == message)
    #expect(
      XAEADTests.open(message, additional: additional, nonce: nonce, key: key) == AEADTests.text)
    var forged = message
    forged[0] ^= 1
    #expect(XAEADTests.open(forged, additional: additional, nonce: nonce, key: key) == nil)
  }

  @Test(
    .enabled(if: TestVectors.exists("xchacha20_poly1305_test.json"), "no ../shared/vectors"))
  func wycheproofXChaCha20Poly1305() throws {
    let cases = try TestVectors.wycheproof("xchacha20_poly1305_test.json") {
      $0["ivSize"] as? Int == 192 && $0["tagSize"] as? Int == 128
    }
    #expect(cases.count > 200)
    for test in cases {
      let (key, text, additional) = (test.hex("key"), test.hex("msg"), test.hex("aad"))
      let nonce = test.hex("iv")
      let message = test.hex("ct") + test.hex("tag")
      let opened = XAEADTests.open(message, additional: additional, nonce: nonce, key: key)
      guard test.text("result") == "valid" else {
        #expect(opened == nil, "case \(test["tcId"]!)")
        continue
      }
      #expect(opened == text, "case \(test["tcId"]!)")
      #expect(
        XAEADTests.seal(text, additional: additional, nonce: nonce, key: key) == message,
        "case \(test["tcId"]!)")
    }
  }
}
