/// The received counters of a session (whitepaper section 5.4.6), in a ring of bits as in RFC 6479.
/// The RFC clears whole words, which costs one word of the window. This implementation clears only
/// the necessary bits, so the window has the full `Policy.replayWindowPacketCount` counters up to
/// the greatest one.
struct ReplayWindow: BitwiseCopyable {
  /// The number of words in the bitmap of a window.
  static let wordCount = Policy.replayWindowPacketCount / UInt64.bitWidth

  /// Bit `counter` modulo the window's width is set once that counter has been accepted.
  private let bits: UnsafeMutablePointer<UInt64>
  private var greatest: UInt64 = 0

  /// - Parameter bits: `wordCount` (a power of two) zeroed words that belong to this window.
  init(bits: UnsafeMutablePointer<UInt64>) {
    self.bits = bits
  }

  /// Forgets all counters, for a new session.
  mutating func reset() {
    greatest = 0
    bits.update(repeating: 0, count: ReplayWindow.wordCount)
  }

  /// Whether `accept` would return true. Changes nothing.
  @inline(__always)
  func wouldAccept(_ counter: UInt64) -> Bool {
    guard counter < WireGuard.rejectAfterMessages else { return false }
    if counter > greatest { return true }
    guard greatest &- counter < UInt64(Policy.replayWindowPacketCount) else { return false }
    return bits[ReplayWindow.word(of: counter)] & ReplayWindow.bit(of: counter) == 0
  }

  /// Accepts the counter of an authenticated message. Touches at most `wordCount` + 1 words, no
  /// matter how far the counter jumps.
  ///
  /// - Returns: false if the counter was received before, is older than the window, or has reached
  ///   the limit of a session.
  @inline(__always)
  mutating func accept(_ counter: UInt64) -> Bool {
    guard wouldAccept(counter) else { return false }
    if counter > greatest { slide(to: counter) }
    bits[ReplayWindow.word(of: counter)] |= ReplayWindow.bit(of: counter)
    return true
  }

  /// Moves the upper end of the window to a greater counter, and clears the bits of all counters
  /// that enter the window.
  private mutating func slide(to counter: UInt64) {
    let width = UInt64(Policy.replayWindowPacketCount)
    // Neither expression overflows: `greatest` is below reject-after-messages, and in the second
    // case `counter` is at least `width`.
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
