import CLinux
import Culvert

/// Reads a small text file of the system line by line and word by word.
enum ResolverLines {
  /// The words of a line, which are separated by blanks. A `#` ends the line.
  struct Words {
    private let line: UnsafeRawBufferPointer
    private var position = 0

    init(_ line: UnsafeRawBufferPointer) {
      self.line = line
    }

    /// The next word; nil at the end.
    mutating func next() -> UnsafeRawBufferPointer? {
      while position < line.count, Words.isBlank(line[position]) { position += 1 }
      let start = position
      while position < line.count, !Words.isBlank(line[position]),
        line[position] != UInt8(ascii: "#")
      {
        position += 1
      }
      guard position > start else { return nil }
      return UnsafeRawBufferPointer(rebasing: line[start..<position])
    }

    private static func isBlank(_ byte: UInt8) -> Bool {
      byte == UInt8(ascii: " ") || (byte >= UInt8(ascii: "\t") && byte <= UInt8(ascii: "\r"))
    }
  }

  /// Calls `body` with the words of each line. A file that cannot be read counts as empty, and
  /// lines of more than 1023 bytes are skipped.
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
          room[0] = UInt8(ascii: "\n")
          count = 1
          isAtEnd = true
        }
        reader.didReceive(byteCount: count)
        passLines(&reader, to: body)
      }
    }
  }

  private static func passLines(_ reader: inout LineReader, to body: (inout Words) -> Void) {
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

  /// Whether both texts are equal, ignoring case.
  static func isEqual(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool {
    guard left.count == right.count else { return false }
    for index in 0..<left.count
    where NameReader.lowercase(left[index]) != NameReader.lowercase(right[index]) {
      return false
    }
    return true
  }
}
