import Culvert

/// A query to a name server for a name's addresses of one family (RFC 1035 section 4.1, RFC 3596
/// section 2, RFC 6891).
struct NameQuery {
  /// As returned by `ConfigHostName.name`; it outlives the query.
  let name: UnsafeRawBufferPointer
  let family: IPAddress.Family
  /// Random, so that only a sender who has seen the query can answer it.
  let id: UInt16
  /// Whether the query announces that the answer may be longer than 512 bytes (EDNS0). Some old
  /// servers refuse such queries.
  var hasEDNS = true

  /// Header, the longest name, type and class, and the record of EDNS0.
  static let longestByteCount = headerByteCount + 255 + 4 + 11
  /// The longest answer that is asked for: it needs no fragments on any path
  /// (<https://www.dnsflagday.net/2020/>).
  static let answerByteCount: UInt16 = 1232
  static let headerByteCount = 12
  static let internetClass: UInt16 = 1

  /// A (1) or AAAA (28).
  var type: UInt16 { family == .ipv4 ? 1 : 28 }

  /// Writes a recursive query and returns its byte count. The buffer has at least
  /// `longestByteCount` bytes.
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
    append(word: 0)
    append(word: 0)
    append(word: hasEDNS ? 1 : 0)
    var start = 0
    for index in 0...name.count where index == name.count || name[index] == UInt8(ascii: ".") {
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
    if hasEDNS {
      // The root as owner, type OPT, the size in place of a class, version 0, no options (RFC 6891
      // section 6.1.2).
      append(0)
      append(word: 41)
      append(word: NameQuery.answerByteCount)
      for _ in 0..<3 { append(word: 0) }
    }
    return count
  }
}

/// A name server's answer to a `NameQuery` (RFC 1035 section 4.1). Datagrams can be forged, so
/// every field is checked to be within the datagram before it is used.
enum NameAnswer: Equatable {
  /// The number of addresses that were written; 0 if the name has none of that family.
  case addresses(Int)
  /// The name does not exist.
  case noSuchName
  /// The server cannot or will not answer (with this code), or it refers to other servers.
  case refused(code: UInt8)
  /// The answer did not fit into a datagram, and none of its addresses did.
  case truncated
  /// An answer to the query, but an invalid one.
  case malformed
  /// Not an answer to this query: keep waiting.
  case unrelated

  /// The most addresses taken from an answer.
  static let capacity = 8
  /// The longest chain of aliases that is followed.
  private static let longestChain = 8

  /// Reads a message.
  ///
  /// - Parameters:
  ///   - addresses: room for `capacity` of them.
  ///   - secondsToLive: lowered to the shortest lifetime of the records that were used.
  ///   - isCut: the message is only the beginning of a longer one.
  static func read(
    _ message: UnsafeRawBufferPointer, to query: NameQuery,
    into addresses: UnsafeMutableBufferPointer<IPAddress>, _ secondsToLive: inout UInt32,
    isCut: Bool = false
  ) -> NameAnswer {
    let reader = NameReader(message)
    guard let id = reader.word(at: 0), let flags = reader.word(at: 2),
      let questions = reader.word(at: 4), let answers = reader.word(at: 6),
      let authorities = reader.word(at: 8), reader.word(at: 10) != nil
    else { return .unrelated }
    // A response, to a standard query.
    guard id == query.id, flags & 0x8000 != 0, flags & 0x7800 == 0 else { return .unrelated }
    let code = UInt8(truncatingIfNeeded: flags & 15)
    if questions == 0, code != 0, code != 3, message.count == NameQuery.headerByteCount {
      // Some servers do not repeat the question when they refuse it.
      return .refused(code: code)
    }
    guard questions == 1, let end = reader.endOfQuestion(query) else { return .unrelated }
    if flags & 0x0200 != 0 || isCut {
      // An address is an address, whatever was cut off behind it. The last record may be half
      // there.
      let answer = follow(
        reader, from: end, answers, query, into: addresses, &secondsToLive, isCut: true)
      if case .addresses(let count) = answer, count > 0 { return answer }
      return .truncated
    }
    if code == 3 { return .noSuchName }
    guard code == 0 else { return .refused(code: code) }
    if answers == 0, authorities > 0, flags & 0x0480 == 0 {
      // Neither authoritative nor willing to recurse: a referral.
      return .refused(code: code)
    }
    return follow(
      reader, from: end, answers, query, into: addresses, &secondsToLive, isCut: false)
  }

  /// Finds the addresses of the name, following its aliases. If the message is cut, the records end
  /// with the first that is incomplete.
  private static func follow(
    _ reader: NameReader, from start: Int, _ answers: UInt16, _ query: NameQuery,
    into addresses: UnsafeMutableBufferPointer<IPAddress>, _ secondsToLive: inout UInt32,
    isCut: Bool
  ) -> NameAnswer {
    var owner = NameQuery.headerByteCount
    for _ in 0..<longestChain {
      var count = 0
      var alias: Int?
      var position = start
      for _ in 0..<answers {
        guard let record = reader.record(at: position) else {
          if isCut { break }
          return .malformed
        }
        position = record.end
        guard record.isInternet, reader.isEqual(record.owner, owner) else { continue }
        if record.type == query.type {
          guard let address = reader.address(record, query.family) else { return .malformed }
          if count < min(capacity, addresses.count) {
            addresses[count] = address
            count += 1
            secondsToLive = min(secondsToLive, record.secondsToLive)
          }
        } else if record.type == NameReader.Record.alias, alias == nil {
          guard reader.endOfName(at: record.data) == record.end else { return .malformed }
          alias = record.data
          secondsToLive = min(secondsToLive, record.secondsToLive)
        }
      }
      guard count == 0, let alias else { return .addresses(count) }
      owner = alias
    }
    return .malformed
  }
}

/// Reads the parts of a DNS message, and checks that each is within it (RFC 1035 sections 4.1.1 to
/// 4.1.4).
///
/// Positions are byte offsets from the start of the message. Names may contain pointers. Each must
/// point before all parts of that name read so far, so that no name contains a loop.
struct NameReader {
  /// A resource record.
  struct Record {
    /// The position of its name.
    var owner: Int
    var type: UInt16
    var isInternet: Bool
    var secondsToLive: UInt32
    /// The position of its data, and of the end of it.
    var data: Int
    var end: Int

    /// CNAME.
    static let alias: UInt16 = 5
  }

  /// One label of a name.
  private struct Label {
    /// The position of its bytes.
    var start: Int
    /// 0 for the root, which ends every name.
    var count: Int
  }

  /// The progress through the labels of a name.
  private struct Cursor {
    var position: Int
    /// A pointer must point before this position.
    var limit: Int
    /// Bytes of the name so far, including the length bytes.
    var byteCount = 0
    /// The position after the name, once it is known.
    var end: Int?

    init(at position: Int) {
      self.position = position
      limit = position
    }
  }

  private let message: UnsafeRawBufferPointer
  /// The most bytes of a name (RFC 1035 section 2.3.4).
  private static let longestNameByteCount = 255

  init(_ message: UnsafeRawBufferPointer) {
    self.message = message
  }

  /// The 16-bit word at a position; nil if it is not within the message.
  func word(at position: Int) -> UInt16? {
    guard position >= 0, position <= message.count - 2 else { return nil }
    return UInt16(message[position]) << 8 | UInt16(message[position + 1])
  }

  /// The position after the question. Nil unless it has the query's name (ignoring case), type and
  /// class.
  func endOfQuestion(_ query: NameQuery) -> Int? {
    var cursor = Cursor(at: NameQuery.headerByteCount)
    var matched = 0
    while true {
      guard let label = next(&cursor) else { return nil }
      if label.count == 0 { break }
      // The query's name has a dot between labels, and none after the last.
      if matched > 0 {
        guard matched < query.name.count, query.name[matched] == UInt8(ascii: ".") else {
          return nil
        }
        matched += 1
      }
      guard label.count <= query.name.count - matched else { return nil }
      for index in 0..<label.count {
        let byte = NameReader.lowercase(message[label.start + index])
        // A label may contain dots, but a dot in the query's name separates labels.
        guard byte != UInt8(ascii: "."),
          byte == NameReader.lowercase(query.name[matched + index])
        else { return nil }
      }
      matched += label.count
    }
    guard matched == query.name.count, let end = cursor.end, word(at: end) == query.type,
      word(at: end + 2) == NameQuery.internetClass
    else { return nil }
    return end + 4
  }

  /// The record at a position; nil if it is incomplete.
  func record(at position: Int) -> Record? {
    guard let body = endOfName(at: position), let type = word(at: body),
      let kind = word(at: body + 2), let lifeHigh = word(at: body + 4),
      let lifeLow = word(at: body + 6), let byteCount = word(at: body + 8)
    else { return nil }
    // This position is within the message or at its end, because the length field precedes it.
    let data = body + 10
    guard Int(byteCount) <= message.count - data else { return nil }
    return Record(
      owner: position, type: type, isInternet: kind == NameQuery.internetClass,
      secondsToLive: UInt32(lifeHigh) << 16 | UInt32(lifeLow), data: data,
      end: data + Int(byteCount))
  }

  /// The address in a record; nil if its length is wrong.
  func address(_ record: Record, _ family: IPAddress.Family) -> IPAddress? {
    guard record.end - record.data == family.byteCount, let base = message.baseAddress else {
      return nil
    }
    return IPAddress(family, at: base + record.data)
  }

  /// The position after a name; nil if the name is incomplete or invalid.
  func endOfName(at position: Int) -> Int? {
    var cursor = Cursor(at: position)
    while let label = next(&cursor) {
      if label.count == 0 { return cursor.end }
    }
    return nil
  }

  /// Whether two names are equal, ignoring case; false if one is invalid.
  func isEqual(_ left: Int, _ right: Int) -> Bool {
    if left == right { return true }
    var leftCursor = Cursor(at: left)
    var rightCursor = Cursor(at: right)
    while let left = next(&leftCursor), let right = next(&rightCursor), left.count == right.count {
      if left.count == 0 { return true }
      for index in 0..<left.count
      where NameReader.lowercase(message[left.start + index])
        != NameReader.lowercase(message[right.start + index])
      {
        return false
      }
    }
    return false
  }

  /// The next label of a name; the root is last. Nil if it is not within the message, if a pointer
  /// does not point backwards, or if the name is too long.
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
      // The two other kinds of length bytes are reserved or obsolete (RFC 6891 section 5).
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

  /// An ASCII letter in lower case; any other byte as it is.
  static func lowercase(_ byte: UInt8) -> UInt8 {
    byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z") ? byte | 0x20 : byte
  }
}
