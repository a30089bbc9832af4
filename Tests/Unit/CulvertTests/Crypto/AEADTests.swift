import Testing

@testable import Culvert

@Suite struct AEADTests {
  static let text = Array(
    ("Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
      + "future, sunscreen would be it.").utf8)

  static func seal(
    _ text: [UInt8], additional: [UInt8], counter: UInt64, sender: UInt32 = 0, key: [UInt8]
  ) -> [UInt8] {
    var output = [UInt8](repeating: 0, count: text.count + 16)
    AEAD.seal(
      into: &output, text: text, byteCount: text.count, additionalData: additional,
      additionalByteCount: additional.count, counter: counter, sender: sender, key: key)
    return output
  }

  /// The text; or nil if the tag is wrong, in which case the output is zeroed.
  static func open(
    _ message: [UInt8], additional: [UInt8], counter: UInt64, sender: UInt32 = 0, key: [UInt8]
  ) -> [UInt8]? {
    let byteCount = message.count - 16
    // One byte more than the text, to check that nothing is written after it.
    var output = [UInt8](repeating: 0xee, count: byteCount + 1)
    let isGenuine = AEAD.open(
      into: &output, message: message, byteCount: byteCount, additionalData: additional,
      additionalByteCount: additional.count, counter: counter, sender: sender, key: key)
    #expect(output.removeLast() == 0xee)
    if !isGenuine { #expect(output.allSatisfy { $0 == 0 }) }
    return isGenuine ? output : nil
  }

  @Test func rfc8439Section282() {
    let key = TestVectors.pattern(32, start: 0x80, step: 1)
    let additional = TestVectors.bytes("50515253c0c1c2c3c4c5c6c7")
    let message = TestVectors.bytes(
      """
      d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6
      3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36
      92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc
      3ff4def08e4b7a9de576d26586cec64b6116
      1ae10b594f09e26a7e902ecbd0600691
      """)
    #expect(
      AEADTests.seal(
        AEADTests.text, additional: additional, counter: 0x4746_4544_4342_4140, sender: 7,
        key: key) == message)
    #expect(
      AEADTests.open(
        message, additional: additional, counter: 0x4746_4544_4342_4140, sender: 7, key: key)
        == AEADTests.text)
  }

  /// RFC 8439 appendix A.5, whose nonce has WireGuard's form: four zero bytes and a counter.
  @Test func rfc8439AppendixA5() {
    let key = TestVectors.bytes("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0")
    let message = TestVectors.bytes(
      """
      64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2
      4c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf
      332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855
      9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4
      b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523e
      af4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a
      0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a10
      49e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29
      a6ad5cb4022b02709b
      eead9d67890cbb22392336fea1851f38
      """)
    let text = AEADTests.open(
      message, additional: TestVectors.bytes("f33388860000000000004e91"),
      counter: 0x0807_0605_0403_0201, key: key)
    #expect(
      text.map { String(decoding: $0.prefix(40), as: UTF8.self) }
        == "Internet-Drafts are draft documents vali")
    #expect(text?.count == 265)
  }

  @Test func inPlaceAgreesWithTheHandshakeForm() {
    let key = TestVectors.pattern(32, start: 77)
    for count in [0, 1, 15, 16, 64, 1420] {
      let text = TestVectors.pattern(count, start: 5)
      let sealed = AEADTests.seal(text, additional: [], counter: 1 << 40 | 3, key: key)
      var place = text + [UInt8](repeating: 0, count: 16)
      AEAD.seal(&place, byteCount: count, counter: 1 << 40 | 3, key: key)
      #expect(place == sealed)
      #expect(AEAD.open(&place, byteCount: count, counter: 1 << 40 | 3, key: key))
      #expect(Array(place.prefix(count)) == text)
    }
  }

  @Test func R13_nothingIsReadableAfterAWrongTag() {
    let key = TestVectors.pattern(32, start: 77)
    let text = TestVectors.pattern(100, start: 5)
    let sealed = AEADTests.seal(text, additional: [1, 2], counter: 9, key: key)
    for index in sealed.indices {
      var message = sealed
      message[index] ^= 0x10
      #expect(AEADTests.open(message, additional: [1, 2], counter: 9, key: key) == nil)
    }
    #expect(AEADTests.open(sealed, additional: [1, 3], counter: 9, key: key) == nil)
    #expect(AEADTests.open(sealed, additional: [1, 2], counter: 10, key: key) == nil)
    var place = AEADTests.seal(text, additional: [], counter: 9, key: key)
    place[115] ^= 1
    #expect(!AEAD.open(&place, byteCount: 100, counter: 9, key: key))
    #expect(place.prefix(100).allSatisfy { $0 == 0 })
  }

  @Test(
    .enabled(if: TestVectors.exists("chacha20_poly1305_test.json"), "no ../shared/vectors"))
  func wycheproofChaCha20Poly1305() throws {
    let cases = try TestVectors.wycheproof("chacha20_poly1305_test.json") {
      $0["ivSize"] as? Int == 96 && $0["tagSize"] as? Int == 128
    }
    #expect(cases.count > 200)
    for test in cases {
      let nonce = test.hex("iv")
      let sender = nonce.withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) }
      let counter = nonce.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 4, as: UInt64.self) }
      let (key, text, additional) = (test.hex("key"), test.hex("msg"), test.hex("aad"))
      let message = test.hex("ct") + test.hex("tag")
      let opened = AEADTests.open(
        message, additional: additional, counter: counter, sender: sender, key: key)
      guard test.text("result") == "valid" else {
        #expect(opened == nil, "case \(test["tcId"]!)")
        continue
      }
      #expect(opened == text, "case \(test["tcId"]!)")
      #expect(
        AEADTests.seal(text, additional: additional, counter: counter, sender: sender, key: key)
          == message, "case \(test["tcId"]!)")
    }
  }
}

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

  /// The text; or nil if the tag is wrong, in which case the output is zeroed.
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
