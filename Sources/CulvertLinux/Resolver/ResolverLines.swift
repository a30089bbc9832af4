import CLinux
import Culvert

/// A small text file of the system's, line by line, word by word.
enum ResolverLines {
  /// The words of a line: what stands between blanks, up to a `#`.
  struct Words {
    private let line: UnsafeRawBufferPointer
    private var position = 0

    init(_ line: UnsafeRawBufferPointer) {
      self.line = line
    }

    /// The next word; nil at the end.
    mutating func next() -> UnsafeRawBufferPointer? {
      while position < line.count, isBlank(line[position]) { position += 1 }
      let start = position
      while position < line.count, !isBlank(line[position]), line[position] != 0x23 {
        position += 1
      }
      guard position > start else { return nil }
      return UnsafeRawBufferPointer(rebasing: line[start..<position])
    }

    private func isBlank(_ byte: UInt8) -> Bool {
      byte == 0x20 || (byte >= 0x09 && byte <= 0x0d)
    }
  }

  /// Calls `body` with the words of each line. A file that cannot be read has none, and lines of
  /// more than 1023 bytes are left out.
  ///
  /// - Parameter path: NUL-terminated.
  static func read(_ path: UnsafePointer<CChar>, _ body: (inout Words) -> Void) {
    var traits: UInt32 = 0
    let file = FileDescriptor(taking: clinux_file_open(path, &traits))
    guard file.isOpen else { return }
    withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 1) { buffer in
      var reader = LineReader(buffer: buffer)
      var isAtEnd = false
      while !isAtEnd {
        let room = reader.makeRoom()
        var count = file.read(into: room)
        if count <= 0 {
          // The last line may lack its newline.
          room[0] = 0x0a
          count = 1
          isAtEnd = true
        }
        reader.didReceive(byteCount: count)
        take(&reader, body)
      }
    }
  }

  private static func take(_ reader: inout LineReader, _ body: (inout Words) -> Void) {
    while true {
      switch reader.next() {
      case .line(let line):
        var words = Words(line)
        body(&words)
      case .overlong: break
      case .incomplete: return
      }
    }
  }

  /// Whether both are the same, but for the case of letters.
  static func isEqual(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool {
    guard left.count == right.count else { return false }
    for index in 0..<left.count where lowercase(left[index]) != lowercase(right[index]) {
      return false
    }
    return true
  }

  private static func lowercase(_ byte: UInt8) -> UInt8 {
    byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte
  }
}
