import Testing

@testable import Culvert

/// Each way to encrypt transport data against libsodium's AEAD call, its bounds and its refusals.
@Suite struct TransportCipherTests {
  static let candidates: [TransportCipher] = [
    .whole, .composed(stride: 64), .composed(stride: 256), .composed(stride: 512),
  ]
  static let key = TestVectors.pattern(32, start: 0x91, step: 29)
  static let lengthMaximum = 2048

  let source = CipherBuffer(capacity: lengthMaximum + 31)
  let output = CipherBuffer(capacity: lengthMaximum + 31)

  @Test(arguments: candidates)
  func sealsAsTheAEADDoesAndTouchesNothingElse(cipher: TransportCipher) {
    let key = TransportCipherTests.key
    let pattern = TestVectors.pattern(TransportCipherTests.lengthMaximum, start: 3, step: 13)
    for byteCount in 0...TransportCipherTests.lengthMaximum {
      let text = Array(pattern.prefix(byteCount))
      for padding in 0...15 {
        let paddedByteCount = byteCount + padding
        source.lay(text, misalignment: byteCount % 16)
        output.lay([], misalignment: padding)
        let counter = UInt64(byteCount) << 33 | UInt64(padding)
        cipher.seal(
          source.text, byteCount: byteCount, paddedByteCount: paddedByteCount, to: output.text,
          counter: counter, key: key)
        let expected = AEADTests.seal(
          text + [UInt8](repeating: 0, count: padding), additional: [], counter: counter, key: key)
        let isRight =
          output.holds(expected) && source.isUnchanged
          && output.isUnchangedAround(headroom: 0, byteCount: expected.count)
        guard isRight else {
          Issue.record("\(byteCount) bytes padded to \(paddedByteCount)")
          return
        }
      }
    }
  }

  /// Every length genuine, and again with one bit flipped somewhere else each time.
  @Test(arguments: candidates)
  func opensWhatTheAEADSealsAndTouchesNothingElse(cipher: TransportCipher) {
    let key = TransportCipherTests.key
    let pattern = TestVectors.pattern(TransportCipherTests.lengthMaximum, start: 3, step: 13)
    for byteCount in 0...TransportCipherTests.lengthMaximum {
      let text = Array(pattern.prefix(byteCount))
      let counter = UInt64(byteCount) << 35 | 5
      var message = AEADTests.seal(text, additional: [], counter: counter, key: key)
      for isGenuine in [true, false] {
        if !isGenuine { message[byteCount &* 7919 % message.count] ^= 1 << (byteCount & 7) }
        source.lay(message, misalignment: byteCount % 16)
        output.lay([], misalignment: byteCount / 16 % 16)
        let opened = cipher.open(
          source.text, byteCount: byteCount, to: output.text, counter: counter, key: key)
        let isRight =
          opened == isGenuine && source.isUnchanged
          && (isGenuine ? output.holds(text) : output.isZero(byteCount: byteCount))
          && output.isUnchangedAround(
            headroom: TransportCipher.headroom, byteCount: byteCount + 16)
        guard isRight else {
          Issue.record("\(byteCount) bytes, genuine: \(isGenuine)")
          return
        }
      }
    }
  }

  /// The output of `open` for one message, or nil where it was refused.
  func open(
    _ message: [UInt8], counter: UInt64, sender: UInt32 = 0, key: [UInt8], cipher: TransportCipher
  ) -> [UInt8]? {
    source.lay(message)
    output.lay([])
    let byteCount = message.count - 16
    guard
      cipher.open(
        source.text, byteCount: byteCount, to: output.text, counter: counter, sender: sender,
        key: key)
    else {
      #expect(output.isZero(byteCount: byteCount))
      return nil
    }
    return output.bytes(byteCount)
  }

  @Test(arguments: candidates)
  func R13_everyFlippedBitIsRefused(cipher: TransportCipher) {
    let key = TransportCipherTests.key
    let counter: UInt64 = 0x0123_4567_89ab_cdef
    for byteCount in [0, 33, 64] {
      let text = TestVectors.pattern(byteCount, start: 200)
      let message = AEADTests.seal(text, additional: [], counter: counter, key: key)
      #expect(open(message, counter: counter, key: key, cipher: cipher) == text)
      for bit in 0..<message.count * 8 {
        var changed = message
        changed[bit / 8] ^= 1 << (bit % 8)
        #expect(open(changed, counter: counter, key: key, cipher: cipher) == nil, "bit \(bit)")
      }
      for bit in 0..<64 {
        #expect(
          open(message, counter: counter ^ 1 << bit, key: key, cipher: cipher) == nil,
          "counter's bit \(bit)")
      }
      for bit in 0..<256 {
        var changed = key
        changed[bit / 8] ^= 1 << (bit % 8)
        #expect(open(message, counter: counter, key: changed, cipher: cipher) == nil, "key's bit")
      }
      // A longer or shorter message with the same tag behind it.
      #expect(open([0] + message, counter: counter, key: key, cipher: cipher) == nil)
      if byteCount > 0 {
        let shorter = Array(message.prefix(byteCount - 1) + message.suffix(16))
        #expect(open(shorter, counter: counter, key: key, cipher: cipher) == nil)
      }
    }
  }

  @Test(arguments: candidates, [true, false])
  func R9_theOneTimeKeyIsWiped(cipher: TransportCipher, isGenuine: Bool) {
    let text = TestVectors.pattern(100, start: 5)
    var message = AEADTests.seal(text, additional: [], counter: 9, key: TransportCipherTests.key)
    if !isGenuine { message[0] ^= 1 }
    // A text of zeros in front of the ciphertext would show the key in the clear.
    source.lay(message)
    output.lay([])
    #expect(
      cipher.open(
        source.text, byteCount: 100, to: output.text, counter: 9, key: TransportCipherTests.key)
        == isGenuine)
    let isUntouched = output.isUnchangedAround(headroom: 0, byteCount: 116)
    #expect(isUntouched || output.isZero(from: -64, byteCount: 64))
  }

  /// RFC 8439 section 2.4.2: the stream from its block 1, which is a ciphertext without its tag.
  @Test(arguments: candidates)
  func rfc8439Section242(cipher: TransportCipher) {
    let ciphertext = TestVectors.bytes(
      """
      6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b
      f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8
      07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736
      5af90bbf74a35be6b40b8eedf2785e42874d
      """)
    source.lay(AEADTests.text)
    output.lay([])
    cipher.seal(
      source.text, byteCount: AEADTests.text.count, paddedByteCount: AEADTests.text.count,
      to: output.text, counter: 0x4a00_0000, key: TestVectors.pattern(32, start: 0, step: 1))
    #expect(output.bytes(ciphertext.count) == ciphertext)
  }

  @Test(
    .enabled(if: TestVectors.exists("chacha20_poly1305_test.json"), "no ../shared/vectors"),
    arguments: candidates)
  func wycheproofChaCha20Poly1305(cipher: TransportCipher) throws {
    let cases = try TestVectors.wycheproof("chacha20_poly1305_test.json") {
      $0["ivSize"] as? Int == 96 && $0["tagSize"] as? Int == 128
    }.filter { $0.text("aad").isEmpty }
    #expect(cases.count > 40)
    for test in cases {
      let nonce = test.hex("iv")
      let sender = nonce.withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) }
      let counter = nonce.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 4, as: UInt64.self) }
      let (key, text) = (test.hex("key"), test.hex("msg"))
      let message = test.hex("ct") + test.hex("tag")
      let opened = open(message, counter: counter, sender: sender, key: key, cipher: cipher)
      guard test.text("result") == "valid" else {
        #expect(opened == nil, "case \(test["tcId"]!)")
        continue
      }
      #expect(opened == text, "case \(test["tcId"]!)")
      source.lay(text)
      output.lay([])
      cipher.seal(
        source.text, byteCount: text.count, paddedByteCount: text.count, to: output.text,
        counter: counter, sender: sender, key: key)
      #expect(output.holds(message), "case \(test["tcId"]!)")
    }
  }
}
