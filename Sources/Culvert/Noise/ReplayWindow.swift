/// Which counters of a session have been seen (whitepaper section 5.4.6): the ring of bits of
/// RFC 6479. Where the RFC clears whole words ahead and so gives one up, this clears to the bit,
/// and all `Policy.replayWindowPacketCount` counters up to the greatest are told apart.
struct ReplayWindow: BitwiseCopyable {
  /// Words of the bitmap that each window needs.
  static let wordCount = Policy.replayWindowPacketCount / UInt64.bitWidth

  /// Bit `counter` modulo the window is set once that counter has been accepted.
  private let bits: UnsafeMutablePointer<UInt64>
  private var greatest: UInt64 = 0

  /// - Parameter bits: `wordCount` zeroed words, a power of two of them, that this window owns.
  init(bits: UnsafeMutablePointer<UInt64>) {
    self.bits = bits
  }

  /// Forgets everything, for a new session.
  mutating func reset() {
    greatest = 0
    bits.update(repeating: 0, count: ReplayWindow.wordCount)
  }

  /// Whether `accept` would return true; changes nothing.
  @inline(__always)
  func wouldAccept(_ counter: UInt64) -> Bool {
    guard counter < WireGuard.rejectAfterMessages else { return false }
    if counter > greatest { return true }
    guard greatest &- counter < UInt64(Policy.replayWindowPacketCount) else { return false }
    return bits[ReplayWindow.word(of: counter)] & ReplayWindow.bit(of: counter) == 0
  }

  /// Takes a counter whose message has been authenticated.
  ///
  /// Touches at most `wordCount` + 1 words, however far the counter jumps.
  ///
  /// - Returns: false for one seen before, one too old to tell, and one that no sender may use.
  @inline(__always)
  mutating func accept(_ counter: UInt64) -> Bool {
    guard wouldAccept(counter) else { return false }
    if counter > greatest { slide(to: counter) }
    bits[ReplayWindow.word(of: counter)] |= ReplayWindow.bit(of: counter)
    return true
  }

  /// Moves the window's end to `counter`, a greater one, and clears the bits of every counter that
  /// has come into it.
  private mutating func slide(to counter: UInt64) {
    let width = UInt64(Policy.replayWindowPacketCount)
    // Neither sum wraps: a greatest is below reject-after-messages, and the distance is the width.
    let first = counter &- greatest < width ? greatest &+ 1 : counter &- width &+ 1
    greatest = counter
    let firstWord = first >> 6
    let lastWord = counter >> 6
    var word = firstWord
    while word <= lastWord {
      let from = word == firstWord ? UInt64.max &<< (first & 63) : .max
      let through = word == lastWord ? UInt64.max &>> (63 &- (counter & 63)) : .max
      bits[Int(truncatingIfNeeded: word) & (ReplayWindow.wordCount &- 1)] &= ~(from & through)
      word &+= 1
    }
  }

  @inline(__always)
  private static func word(of counter: UInt64) -> Int {
    Int(truncatingIfNeeded: counter >> 6) & (wordCount &- 1)
  }

  @inline(__always)
  private static func bit(of counter: UInt64) -> UInt64 {
    1 &<< (counter & 63)
  }
}
