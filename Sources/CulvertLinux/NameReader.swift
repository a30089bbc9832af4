import Culvert

/// The parts of a DNS message, each proved to lie within it (RFC 1035 sections 4.1.1 to 4.1.4).
///
/// Positions are bytes from the message's start. Names may go on elsewhere; a pointer must lead
/// back, before everything of that name read so far, so that no name goes round in circles.
struct NameReader {
  /// A resource record.
  struct Record {
    /// Where its name is.
    var owner: Int
    var type: UInt16
    var isInternet: Bool
    /// Where its data is, and where that ends.
    var data: Int
    var end: Int

    /// CNAME.
    static let alias: UInt16 = 5
  }

  /// A name's label on the way through it.
  private struct Label {
    /// Where its bytes are.
    var start: Int
    /// 0 for the root, where every name ends.
    var count: Int
  }

  /// On the way through a name.
  private struct Cursor {
    var position: Int
    /// A pointer must lead before this.
    var limit: Int
    /// Bytes of the name so far, lengths counted.
    var byteCount = 0
    /// Where what follows the name begins, once that is known.
    var end: Int?

    init(at position: Int) {
      self.position = position
      limit = position
    }
  }

  private let message: UnsafeRawBufferPointer
  /// Bytes of a name (RFC 1035 section 2.3.4).
  private static let longestNameByteCount = 255

  init(_ message: UnsafeRawBufferPointer) {
    self.message = message
  }

  /// Two bytes in network order; nil beyond the end.
  func word(at position: Int) -> UInt16? {
    guard position >= 0, position <= message.count - 2 else { return nil }
    return UInt16(message[position]) << 8 | UInt16(message[position + 1])
  }

  /// Where the question ends, if it is the query's: name in any case, type and class.
  func endOfQuestion(_ query: NameQuery) -> Int? {
    var cursor = Cursor(at: NameQuery.headerByteCount)
    var matched = 0
    while true {
      guard let label = next(&cursor) else { return nil }
      if label.count == 0 { break }
      // Between labels there is a dot, and behind the last there is nothing.
      if matched > 0 {
        guard matched < query.name.count, query.name[matched] == 0x2e else { return nil }
        matched += 1
      }
      guard label.count <= query.name.count - matched else { return nil }
      for index in 0..<label.count {
        let byte = lowercase(message[label.start + index])
        // A label may hold dots; a name as text has them between labels.
        guard byte != 0x2e, byte == lowercase(query.name[matched + index]) else { return nil }
      }
      matched += label.count
    }
    guard matched == query.name.count, let end = cursor.end, word(at: end) == query.type,
      word(at: end + 2) == NameQuery.internetClass
    else { return nil }
    return end + 4
  }

  /// The record at a position; nil where it is not whole.
  func record(at position: Int) -> Record? {
    guard let body = endOfName(at: position), let type = word(at: body),
      let kind = word(at: body + 2), let byteCount = word(at: body + 8)
    else { return nil }
    // Within the message, or the length could not have been read.
    let data = body + 10
    guard Int(byteCount) <= message.count - data else { return nil }
    return Record(
      owner: position, type: type, isInternet: kind == NameQuery.internetClass, data: data,
      end: data + Int(byteCount))
  }

  /// The address that a record holds; nil where its length is another.
  func address(_ record: Record, _ family: IPAddress.Family) -> IPAddress? {
    guard record.end - record.data == family.byteCount, let base = message.baseAddress else {
      return nil
    }
    return IPAddress(family, at: base + record.data)
  }

  /// Where what follows a name begins; nil where the name is not whole or not sound.
  func endOfName(at position: Int) -> Int? {
    var cursor = Cursor(at: position)
    while let label = next(&cursor) {
      if label.count == 0 { return cursor.end }
    }
    return nil
  }

  /// Whether two names are the same, in any case; false where one is not sound.
  func isEqual(_ left: Int, _ right: Int) -> Bool {
    if left == right { return true }
    var leftCursor = Cursor(at: left)
    var rightCursor = Cursor(at: right)
    while let left = next(&leftCursor), let right = next(&rightCursor), left.count == right.count {
      if left.count == 0 { return true }
      for index in 0..<left.count
      where lowercase(message[left.start + index]) != lowercase(message[right.start + index]) {
        return false
      }
    }
    return false
  }

  /// The next label of a name, the root last; nil where it is not within the message, where a
  /// pointer does not lead back, and where the name is too long.
  @inline(never)
  private func next(_ cursor: inout Cursor) -> Label? {
    while cursor.position >= 0, cursor.position < message.count {
      let length = Int(message[cursor.position])
      if length >= 0xc0 {
        guard let word = word(at: cursor.position) else { return nil }
        let target = Int(word & 0x3fff)
        guard target < cursor.limit else { return nil }
        if cursor.end == nil { cursor.end = cursor.position + 2 }
        cursor.position = target
        cursor.limit = target
        continue
      }
      // The two other kinds of length were never used, or were given up (RFC 6891 section 5).
      guard length < 0x40 else { return nil }
      cursor.byteCount += length + 1
      guard cursor.byteCount <= NameReader.longestNameByteCount,
        length < message.count - cursor.position
      else { return nil }
      let label = Label(start: cursor.position + 1, count: length)
      cursor.position += length + 1
      if length == 0, cursor.end == nil { cursor.end = cursor.position }
      return label
    }
    return nil
  }

  private func lowercase(_ byte: UInt8) -> UInt8 {
    byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte
  }
}
