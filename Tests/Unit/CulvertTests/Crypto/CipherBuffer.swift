import Foundation

@testable import Culvert

/// The input or the output of a `TransportCipher`: bytes with the room around them that the cipher
/// may use, and more that it may not. Knows what stood there before.
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

  /// Lays `bytes` down, so many bytes off an aligned place, with noise all around.
  func lay(_ bytes: [UInt8], misalignment: Int = 0) {
    now.copyMemory(from: UnsafeRawBufferPointer(noise))
    text = now.baseAddress! + CipherBuffer.edgeByteCount + TransportCipher.headroom + misalignment
    bytes.withUnsafeBytes {
      if let start = $0.baseAddress { text.copyMemory(from: start, byteCount: $0.count) }
    }
    before.copyMemory(from: UnsafeRawBufferPointer(now))
  }

  /// Whether everything is as it was.
  var isUnchanged: Bool { memcmp(now.baseAddress!, before.baseAddress!, now.count) == 0 }

  /// Whether all is as it was but `headroom` bytes before the text, `byteCount` from there on and
  /// the slack behind these.
  func isUnchangedAround(headroom: Int, byteCount: Int) -> Bool {
    let front = text - now.baseAddress! - headroom
    let back = text - now.baseAddress! + byteCount + TransportCipher.slack
    return memcmp(now.baseAddress!, before.baseAddress!, front) == 0
      && memcmp(now.baseAddress! + back, before.baseAddress! + back, now.count - back) == 0
  }

  func holds(_ bytes: [UInt8]) -> Bool { memcmp(text, bytes, bytes.count) == 0 }

  /// Whether `byteCount` bytes are zero, from `start` bytes behind where the text begins.
  func isZero(from start: Int = 0, byteCount: Int) -> Bool {
    (start..<start + byteCount).allSatisfy { text.load(fromByteOffset: $0, as: UInt8.self) == 0 }
  }

  func bytes(_ byteCount: Int) -> [UInt8] {
    Array(UnsafeRawBufferPointer(start: text, count: byteCount))
  }
}
