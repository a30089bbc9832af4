import CLinux

/// Text for people, on descriptors that somebody else owns.
public enum Output {
  public static var standardOutput: Int32 { 1 }
  public static var standardError: Int32 { 2 }

  // The 512 bytes of a line are written as a literal: the compiler takes them from the stack, and
  // for anything else it would keep a way to the heap.

  /// Writes what `body` puts together, up to 512 bytes, as it is.
  public static func write(to raw: Int32, _ body: (inout Line) -> Void) {
    withUnsafeTemporaryAllocation(byteCount: 512, alignment: 1) { buffer in
      var line = Line(into: buffer)
      body(&line)
      write(line.bytes, to: raw)
    }
  }

  /// Writes what `body` puts together, up to 511 bytes, and ends the line.
  public static func writeLine(to raw: Int32, _ body: (inout Line) -> Void) {
    withUnsafeTemporaryAllocation(byteCount: 512, alignment: 1) { buffer in
      // One byte is kept for the end of the line, however long the rest.
      var line = Line(into: UnsafeMutableRawBufferPointer(rebasing: buffer.dropLast()))
      body(&line)
      end(line, in: buffer, to: raw)
    }
  }

  @inline(never)
  private static func end(_ line: Line, in buffer: UnsafeMutableRawBufferPointer, to raw: Int32) {
    buffer[line.count] = 0x0a
    write(UnsafeRawBufferPointer(rebasing: buffer[..<(line.count + 1)]), to: raw)
  }

  /// Writes bytes, all of them unless the descriptor fails. The failure is of no interest: there is
  /// nowhere left to report it.
  public static func write(_ bytes: UnsafeRawBufferPointer, to raw: Int32) {
    var rest = bytes
    while rest.count > 0 {
      let count = clinux_file_write(raw, rest.baseAddress, rest.count)
      if count <= 0 { return }
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    }
  }

  /// Reads standard input to its end or until the buffer is full; the byte count.
  public static func readInput(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    var count = 0
    while count < buffer.count {
      let read = clinux_file_read(0, buffer.baseAddress! + count, buffer.count - count)
      if read <= 0 { break }
      count += read
    }
    return count
  }
}
