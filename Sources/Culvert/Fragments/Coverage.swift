/// Which 8-byte blocks of a datagram have come, and at which ones a fragment starts: two bitmaps,
/// worked on by words. Fragments may come in any order, and overlap is exact, as only the last
/// fragment may end within a block.
struct Coverage: BitwiseCopyable {
  /// What a fragment is to those that came before.
  enum Relation: BitwiseCopyable {
    /// All of it is new.
    case new
    /// It takes exactly the place of one that came before.
    case same
    /// Anything else.
    case overlap
  }

  private struct Word: BitwiseCopyable {
    var covered: UInt64
    var starts: UInt64
  }

  private let words: UnsafeMutablePointer<Word>

  static let blockByteCount = 8
  private static let blocksPerWord = 64

  /// Bytes that both bitmaps take for a payload of so many bytes, and the block behind it.
  static func byteCount(for payloadByteCount: Int) -> Int {
    let wordCount = payloadByteCount / (blockByteCount * blocksPerWord) + 1
    return wordCount * MemoryLayout<Word>.stride
  }

  /// - Parameter bytes: zeroed, of `byteCount(for:)`.
  @inline(__always)
  init(at bytes: UnsafeMutableRawPointer) {
    words = bytes.assumingMemoryBound(to: Word.self)
  }

  /// Covers `byteCount` bytes, more than zero, from `byteOffset`, a multiple of 8. After `.overlap`
  /// the coverage is of no use but to be cleared.
  @inline(__always)
  func insert(byteOffset: Int, byteCount: Int) -> Relation {
    let first = byteOffset &>> 3
    let last = (byteOffset &+ byteCount &- 1) &>> 3
    let lastWord = last &>> 6
    var index = first &>> 6
    var mask = UInt64.max &<< UInt64(truncatingIfNeeded: first & 63)
    var old: UInt64 = 0
    var missing: UInt64 = 0
    while index < lastWord {
      let covered = words[index].covered
      old |= covered & mask
      missing |= ~covered & mask
      words[index].covered = covered | mask
      mask = .max
      index &+= 1
    }
    mask &= UInt64.max &>> UInt64(truncatingIfNeeded: 63 &- (last & 63))
    let covered = words[index].covered
    old |= covered & mask
    missing |= ~covered & mask
    words[index].covered = covered | mask
    guard old == 0 else {
      return missing == 0 && isOneFragment(first, last) ? .same : .overlap
    }
    words[first &>> 6].starts |= 1 &<< UInt64(truncatingIfNeeded: first & 63)
    return .new
  }

  /// Forgets everything before `byteCount`, which is where the furthest fragment ended.
  @inline(__always)
  func clear(byteCount: Int) {
    var index = 0
    while index &* (Coverage.blockByteCount &* Coverage.blocksPerWord) < byteCount {
      words[index] = Word(covered: 0, starts: 0)
      index &+= 1
    }
  }

  /// Whether the blocks `first...last`, all of them covered, are those of a single fragment: it
  /// starts with them, no other starts among them, and it does not go on behind them.
  private func isOneFragment(_ first: Int, _ last: Int) -> Bool {
    let lastWord = last &>> 6
    var index = first &>> 6
    var mask = UInt64.max &<< UInt64(truncatingIfNeeded: first & 63)
    var startCount = 0
    while index < lastWord {
      startCount &+= (words[index].starts & mask).nonzeroBitCount
      mask = .max
      index &+= 1
    }
    mask &= UInt64.max &>> UInt64(truncatingIfNeeded: 63 &- (last & 63))
    startCount &+= (words[index].starts & mask).nonzeroBitCount
    let behind = words[(last &+ 1) &>> 6]
    let bit: UInt64 = 1 &<< UInt64(truncatingIfNeeded: (last &+ 1) & 63)
    return startCount == 1 && words[first &>> 6].starts & 1 &<< UInt64(first & 63) != 0
      && (behind.covered & bit == 0 || behind.starts & bit != 0)
  }
}
