@testable import Culvert

/// What the tests of text share: bytes from strings, strings from writers, and a seeded generator.
enum TextFixture {
  static func with<Result>(
    _ text: String, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) rethrows -> Result {
    try Array(text.utf8).withUnsafeBytes(body)
  }

  /// What `body` writes into a buffer of `capacity` bytes.
  static func written(capacity: Int = 1024, _ body: (inout ByteWriter) -> Void) -> String {
    var memory = [UInt8](repeating: 0xaa, count: capacity)
    return memory.withUnsafeMutableBytes { buffer in
      var writer = ByteWriter(buffer)
      body(&writer)
      return String(decoding: writer.written, as: UTF8.self)
    }
  }

  static func text(_ address: IPAddress) -> String {
    written { AddressText.append(address, to: &$0) }
  }

  /// SplitMix64: the same numbers for the same seed, everywhere.
  struct Generator: RandomNumberGenerator {
    var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
      state &+= 0x9e37_79b9_7f4a_7c15
      var bits = state
      bits = (bits ^ (bits >> 30)) &* 0xbf58_476d_1ce4_e5b9
      bits = (bits ^ (bits >> 27)) &* 0x94d0_49bb_1331_11eb
      return bits ^ (bits >> 31)
    }
  }
}
