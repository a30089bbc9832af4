import Foundation
import Testing

@testable import Culvert

/// Each transport cipher against libsodium's AEAD call: results, bounds, refusals.
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

  /// Every length, once genuine and once with one bit flipped at varying places.
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

  /// The output of `open` for one message, or nil if it was refused.
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
      // A longer or shorter message with the same tag.
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
    // Zeros before the ciphertext would reveal the one-time key.
    source.lay(message)
    output.lay([])
    #expect(
      cipher.open(
        source.text, byteCount: 100, to: output.text, counter: 9, key: TransportCipherTests.key)
        == isGenuine)
    let isUntouched = output.isUnchangedAround(headroom: 0, byteCount: 116)
    #expect(isUntouched || output.isZero(from: -64, byteCount: 64))
  }

  /// RFC 8439 section 2.4.2: the stream from block 1, which gives the ciphertext without its tag.
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

/// The choice of a cipher, with a clock that the test controls.
@Suite struct CipherMeasuringTests {
  /// The chosen stride, 0 for libsodium's AEAD call, if each timing takes what `times` returns for
  /// its round, candidate and size, in the order of `measured`.
  static func choice(_ times: (_ round: Int, _ candidate: Int, _ isLong: Bool) -> UInt64) -> Int {
    let scratch = UnsafeMutableRawBufferPointer.allocate(
      byteCount: TransportCipher.scratchByteCount + 1, alignment: 16)
    defer { scratch.deallocate() }
    scratch[scratch.count - 1] = 0xee
    var now: UInt64 = 1 << 40
    var readings = 0
    let cipher = TransportCipher.measured(
      scratch: UnsafeMutableRawBufferPointer(rebasing: scratch.dropLast())
    ) {
      // Two readings per timing, two timings per candidate, four candidates per round.
      if readings % 2 == 1 { now &+= times(readings / 16, readings / 4 % 4, readings / 2 % 2 == 0) }
      readings += 1
      return now
    }
    #expect(readings >= 5 * 16)
    #expect(scratch[scratch.count - 1] == 0xee)
    return cipher.stride
  }

  @Test(arguments: [0, 64, 256, 512].enumerated().map { ($0.offset, $0.element) })
  func takesTheCheapest(cheapest: Int, stride: Int) {
    #expect(
      CipherMeasuringTests.choice { _, candidate, _ in candidate == cheapest ? 9 : 10 } == stride)
    // Fast for one size, and not too slow for the other.
    #expect(
      CipherMeasuringTests.choice { _, candidate, isLong in
        candidate == cheapest ? (isLong ? 50 : 30) : (isLong ? 60 : 29)
      } == stride)
    #expect(
      CipherMeasuringTests.choice { _, candidate, isLong in
        candidate == cheapest ? (isLong ? 61 : 20) : (isLong ? 60 : 29)
      } == stride)
  }

  @Test func oneQuietRoundIsEnough() {
    #expect(
      CipherMeasuringTests.choice { round, candidate, _ in
        candidate == 2 ? (round == 3 ? 9 : 1000) : 10
      } == 256)
    #expect(
      CipherMeasuringTests.choice { round, candidate, _ in
        candidate == 1 ? (round == 0 ? 9 : 1000) : 10
      } == 64)
  }

  @Test func aClockThatStandsOrGoesBackChoosesTheAEADCall() {
    #expect(CipherMeasuringTests.choice { _, _, _ in 0 } == 0)
    #expect(CipherMeasuringTests.choice { _, _, _ in UInt64.max } == 0)
  }

  /// A clock that goes back does not make a candidate look fast.
  @Test func timesThatWrapAreTheDearest() {
    #expect(
      CipherMeasuringTests.choice { _, candidate, isLong in
        candidate == 2 && isLong ? .max - 4 : 10
      } == 0)
  }
}

/// The input or the output of a `TransportCipher`: bytes with the room around them that the cipher
/// may use, and more that it may not. Remembers the previous content.
final class CipherBuffer {
  private static let edgeByteCount = 32
  private static let alignment = 64

  /// Where the text begins.
  private(set) var text: UnsafeMutableRawPointer
  private let now: UnsafeMutableRawBufferPointer
  private let before: UnsafeMutableRawBufferPointer
  private let noise: UnsafeMutableRawBufferPointer

  /// Room for `capacity` bytes of text, padding and tag.
  init(capacity: Int) {
    let byteCount =
      2 * CipherBuffer.edgeByteCount + TransportCipher.headroom + CipherBuffer.alignment + capacity
      + TransportCipher.slack
    now = .allocate(byteCount: byteCount, alignment: CipherBuffer.alignment)
    before = .allocate(byteCount: byteCount, alignment: CipherBuffer.alignment)
    noise = .allocate(byteCount: byteCount, alignment: CipherBuffer.alignment)
    for index in noise.indices { noise[index] = UInt8(truncatingIfNeeded: index &* 37 | 1) }
    text = now.baseAddress!
    lay([])
  }

  deinit {
    now.deallocate()
    before.deallocate()
    noise.deallocate()
  }

  /// Places `bytes` at an offset from an aligned address, with noise all around.
  func lay(_ bytes: [UInt8], misalignment: Int = 0) {
    now.copyMemory(from: UnsafeRawBufferPointer(noise))
    text = now.baseAddress! + CipherBuffer.edgeByteCount + TransportCipher.headroom + misalignment
    bytes.withUnsafeBytes {
      if let start = $0.baseAddress { text.copyMemory(from: start, byteCount: $0.count) }
    }
    before.copyMemory(from: UnsafeRawBufferPointer(now))
  }

  /// Whether nothing has changed.
  var isUnchanged: Bool { memcmp(now.baseAddress!, before.baseAddress!, now.count) == 0 }

  /// Whether nothing has changed except `headroom` bytes before the text, the `byteCount` bytes of
  /// the text, and the slack after it.
  func isUnchangedAround(headroom: Int, byteCount: Int) -> Bool {
    let front = text - now.baseAddress! - headroom
    let back = text - now.baseAddress! + byteCount + TransportCipher.slack
    return memcmp(now.baseAddress!, before.baseAddress!, front) == 0
      && memcmp(now.baseAddress! + back, before.baseAddress! + back, now.count - back) == 0
  }

  func holds(_ bytes: [UInt8]) -> Bool { memcmp(text, bytes, bytes.count) == 0 }

  /// Whether `byteCount` bytes are zero, from `start` bytes into the text.
  func isZero(from start: Int = 0, byteCount: Int) -> Bool {
    (start..<start + byteCount).allSatisfy { text.load(fromByteOffset: $0, as: UInt8.self) == 0 }
  }

  func bytes(_ byteCount: Int) -> [UInt8] {
    Array(UnsafeRawBufferPointer(start: text, count: byteCount))
  }
}
