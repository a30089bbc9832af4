/// The counters of a session that have been received (whitepaper section 5.4.6), in the ring of
/// bits of RFC 6479. The RFC clears whole words and so loses one word of the window; this clears
/// exactly the bits needed, and tracks all `Policy.replayWindowPacketCount` counters up to the
/// greatest.
struct ReplayWindow: BitwiseCopyable {
  /// Words of the bitmap that each window needs.
  static let wordCount = Policy.replayWindowPacketCount / UInt64.bitWidth

  /// Bit `counter` modulo the window's width is set once that counter has been accepted.
  private let bits: UnsafeMutablePointer<UInt64>
  private var greatest: UInt64 = 0

  /// - Parameter bits: `wordCount` zeroed words, a power of two, owned by this window.
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

  /// Accepts a counter whose message has been authenticated. Touches at most `wordCount` + 1 words,
  /// however far the counter jumps.
  ///
  /// - Returns: false if the counter was received before, is older than the window, or exceeds the
  ///   limit of a session.
  @inline(__always)
  mutating func accept(_ counter: UInt64) -> Bool {
    guard wouldAccept(counter) else { return false }
    if counter > greatest { slide(to: counter) }
    bits[ReplayWindow.word(of: counter)] |= ReplayWindow.bit(of: counter)
    return true
  }

  /// Moves the end of the window to a greater counter, and clears the bits of all counters that are
  /// new in it.
  private mutating func slide(to counter: UInt64) {
    let width = UInt64(Policy.replayWindowPacketCount)
    // Neither wraps: `greatest` is below reject-after-messages, and `counter` is at least `width`
    // in the second case.
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
