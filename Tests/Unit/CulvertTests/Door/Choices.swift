/// The source of the decisions in a run of `DoorWorld` or `UAPIDoor`: a seed, or the bytes that a
/// fuzzer mutates. The same choices give the same run.
struct Choices {
  private let bytes: UnsafeRawBufferPointer
  private var offset = 0
  private var state: UInt64
  private let isSeeded: Bool

  /// Endless choices (SplitMix64).
  init(seed: UInt64) {
    bytes = UnsafeRawBufferPointer(start: nil, count: 0)
    state = seed
    isSeeded = true
  }

  /// As many choices as there are bytes; zero after that.
  init(bytes: UnsafeRawBufferPointer) {
    self.bytes = bytes
    state = 0
    isSeeded = false
  }

  /// The fuzzer's bytes are used up.
  var isExhausted: Bool { !isSeeded && offset >= bytes.count }

  mutating func byte() -> UInt8 {
    guard !isSeeded else { return UInt8(truncatingIfNeeded: step()) }
    guard offset < bytes.count else { return 0 }
    offset += 1
    return bytes[offset - 1]
  }

  mutating func word() -> UInt64 {
    guard !isSeeded else { return step() }
    var word: UInt64 = 0
    for _ in 0..<8 { word = word << 8 | UInt64(byte()) }
    return word
  }

  /// A number in 0..<bound, with a bound of 1 to 65536; the slight bias is harmless.
  mutating func below(_ bound: Int) -> Int {
    if bound <= 256 { return Int(byte()) % bound }
    return (Int(byte()) << 8 | Int(byte())) % bound
  }

  mutating func fill(_ target: UnsafeMutableRawPointer, byteCount: Int) {
    for index in 0..<byteCount {
      target.storeBytes(of: byte(), toByteOffset: index, as: UInt8.self)
    }
  }

  private mutating func step() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var word = state
    word = (word ^ word >> 30) &* 0xbf58_476d_1ce4_e5b9
    word = (word ^ word >> 27) &* 0x94d0_49bb_1331_11eb
    return word ^ word >> 31
  }
}

/// SplitMix64: the same seed gives the same run on every platform.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) {
    state = seed
  }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var word = state
    word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
    word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
    return word ^ (word >> 31)
  }

  mutating func bytes(_ count: Int) -> [UInt8] {
    (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) }
  }
}
