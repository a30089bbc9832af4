import Culvert

/// A question to a name server: the addresses of one family that a name has (RFC 1035 section 4.1,
/// RFC 3596 section 2).
struct NameQuery {
  /// As `ConfigHostName.name` gives it; it outlives the query.
  let name: UnsafeRawBufferPointer
  let family: IPAddress.Family
  /// Random, so that only who has seen the question can answer it.
  let id: UInt16

  /// Header, the longest name, type and class.
  static let longestByteCount = headerByteCount + 255 + 4
  static let headerByteCount = 12
  static let internetClass: UInt16 = 1

  /// A (1) or AAAA (28).
  var type: UInt16 { family == .ipv4 ? 1 : 28 }

  /// Writes the query, which asks the server to ask others, and returns its byte count. The buffer
  /// holds `longestByteCount`.
  func write(to buffer: UnsafeMutableRawBufferPointer) -> Int {
    precondition(
      buffer.count >= NameQuery.longestByteCount
        && name.count <= ConfigHostName.longestByteCount)
    var count = 0
    func append(_ byte: UInt8) {
      buffer[count] = byte
      count += 1
    }
    func append(word: UInt16) {
      append(UInt8(truncatingIfNeeded: word >> 8))
      append(UInt8(truncatingIfNeeded: word))
    }
    append(word: id)
    // Recursion desired.
    append(word: 0x0100)
    append(word: 1)
    for _ in 0..<3 { append(word: 0) }
    var start = 0
    for index in 0...name.count where index == name.count || name[index] == 0x2e {
      append(UInt8(truncatingIfNeeded: index - start))
      while start < index {
        append(name[start])
        start += 1
      }
      start += 1
    }
    append(0)
    append(word: type)
    append(word: NameQuery.internetClass)
    return count
  }
}
