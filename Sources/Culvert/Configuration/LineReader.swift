/// Splits a stream into lines within one buffer of fixed size, however the bytes are divided on
/// arrival. Only an unfinished line is ever copied, to the start of the buffer.
///
/// The stream carries private keys, so the buffer must be in locked memory, and used bytes are
/// wiped whenever `makeRoom` is called.
///
/// The caller's loop: read into `makeRoom()`, call `didReceive`, take lines until `incomplete`.
public struct LineReader: ~Copyable {
  public enum Line {
    /// A line without its newline; valid until the next call to this reader.
    case line(UnsafeRawBufferPointer)
    /// The end of a line that, with its newline, was longer than the buffer.
    case overlong
    /// There is no further complete line.
    case incomplete
  }

  private let buffer: UnsafeMutableRawBufferPointer
  private var start = 0
  private var end = 0
  /// There is no newline between `start` and this index.
  private var searched = 0
  private var isOverlong = false

  /// - Parameter buffer: at least one byte. The longest line is one byte shorter than the buffer.
  public init(buffer: UnsafeMutableRawBufferPointer) {
    precondition(buffer.count > 0)
    self.buffer = buffer
  }

  /// True if all received bytes have been returned as lines.
  public var isEmpty: Bool { start == end && !isOverlong }

  /// The space for the next bytes of the stream. Never empty after `next` has returned
  /// `incomplete`.
  public mutating func makeRoom() -> UnsafeMutableRawBufferPointer {
    let base = buffer.baseAddress!
    if start > 0 {
      let kept = end - start
      if kept > 0 { base.copyMemory(from: base + start, byteCount: kept) }
      Secret.wipe(base + kept, byteCount: start)
      searched -= start
      start = 0
      end = kept
    }
    return UnsafeMutableRawBufferPointer(start: base + end, count: buffer.count - end)
  }

  /// The caller has written the next `byteCount` bytes of the stream to the start of `makeRoom()`.
  public mutating func didReceive(byteCount: Int) {
    guard byteCount > 0 else { return }
    end += min(byteCount, buffer.count - end)
  }

  /// The next line, in the order of the stream.
  public mutating func next() -> Line {
    let base = buffer.baseAddress!
    while searched < end {
      let isNewline = base.byte(searched) == UInt8(ascii: "\n")
      searched += 1
      guard isNewline else { continue }
      let line = UnsafeRawBufferPointer(start: base + start, count: searched - 1 - start)
      start = searched
      if isOverlong {
        isOverlong = false
        return .overlong
      }
      return .line(line)
    }
    if start == 0, end == buffer.count {
      // The line does not fit: drop these bytes, and the rest up to the newline.
      isOverlong = true
      start = end
    }
    return .incomplete
  }

  /// Forgets the stream and wipes the buffer, for the next connection.
  public mutating func reset() {
    Secret.wipe(buffer.baseAddress!, byteCount: buffer.count)
    start = 0
    end = 0
    searched = 0
    isOverlong = false
  }
}
