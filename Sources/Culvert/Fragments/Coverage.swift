/// Two bitmaps over the 8-byte blocks of a datagram: which blocks have arrived, and at which blocks
/// a fragment starts. They are processed word by word. Fragments may arrive in any order. Overlaps
/// are detected exactly, because only the last fragment may end within a block.
struct Coverage: BitwiseCopyable {
  /// How a fragment relates to earlier ones.
  enum Relation: BitwiseCopyable {
    /// None of its blocks had arrived.
    case new
    /// It covers exactly the range of one earlier fragment.
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

  /// Bytes of both bitmaps, for a payload of `payloadByteCount` bytes and the block after it.
  static func byteCount(for payloadByteCount: Int) -> Int {
    // The block after a payload of 505 to 511 bytes is already in the next word (R54).
    let blockCount = (payloadByteCount + blockByteCount - 1) / blockByteCount + 1
    let wordCount = (blockCount + blocksPerWord - 1) / blocksPerWord
    return wordCount * MemoryLayout<Word>.stride
  }

  /// - Parameter bytes: zeroed, of `byteCount(for:)`.
  @inline(__always)
  init(at bytes: UnsafeMutableRawPointer) {
    words = bytes.assumingMemoryBound(to: Word.self)
  }

  /// Marks `byteCount` bytes (at least 1) from `byteOffset` (a multiple of 8) as arrived. After
  /// `.overlap`, only `clear` may be called.
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

  /// Clears the bitmaps up to `byteCount`, the end of the furthest fragment.
  @inline(__always)
  func clear(byteCount: Int) {
    var index = 0
    while index &* (Coverage.blockByteCount &* Coverage.blocksPerWord) < byteCount {
      words[index] = Word(covered: 0, starts: 0)
      index &+= 1
    }
  }

  /// Whether the blocks `first...last`, all of which have arrived, belong to exactly one fragment:
  /// one starts at `first`, no other starts among them, and it does not continue after `last`.
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
