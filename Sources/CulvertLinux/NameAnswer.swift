import Culvert

/// What a name server says to a `NameQuery` (RFC 1035 section 4.1). Anybody can send a datagram
/// that gets here, so nothing in it is believed before it is proved to lie within the datagram.
enum NameAnswer: Equatable {
  /// So many addresses were written; none where the name has none of that family.
  case addresses(Int)
  /// The name does not exist.
  case noSuchName
  /// The server cannot or will not answer, with this code; or it refers to others.
  case refused(code: UInt8)
  /// The answer did not fit into a datagram.
  case truncated
  /// An answer to the query that makes no sense.
  case malformed
  /// No answer to this query: wait on.
  case unrelated

  /// Addresses taken of an answer.
  static let capacity = 8
  /// Longest chain of aliases that is followed.
  private static let longestChain = 8

  /// Reads a message.
  ///
  /// - Parameter addresses: room for `capacity` of them.
  static func read(
    _ message: UnsafeRawBufferPointer, to query: NameQuery,
    into addresses: UnsafeMutableBufferPointer<IPAddress>
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
      // Some servers do not repeat what they refuse.
      return .refused(code: code)
    }
    guard questions == 1, let end = reader.endOfQuestion(query) else { return .unrelated }
    if flags & 0x0200 != 0 { return .truncated }
    if code == 3 { return .noSuchName }
    guard code == 0 else { return .refused(code: code) }
    if answers == 0, authorities > 0, flags & 0x0480 == 0 {
      // Neither of its own knowledge nor willing to ask: a referral.
      return .refused(code: code)
    }
    return follow(reader, from: end, answers, query, into: addresses)
  }

  /// The addresses of the name, or of the name that it is an alias of, and so on.
  private static func follow(
    _ reader: NameReader, from start: Int, _ answers: UInt16, _ query: NameQuery,
    into addresses: UnsafeMutableBufferPointer<IPAddress>
  ) -> NameAnswer {
    var owner = NameQuery.headerByteCount
    for _ in 0..<longestChain {
      var count = 0
      var alias: Int?
      var position = start
      for _ in 0..<answers {
        guard let record = reader.record(at: position) else { return .malformed }
        position = record.end
        guard record.isInternet, reader.isEqual(record.owner, owner) else { continue }
        if record.type == query.type {
          guard let address = reader.address(record, query.family) else { return .malformed }
          if count < min(capacity, addresses.count) {
            addresses[count] = address
            count += 1
          }
        } else if record.type == NameReader.Record.alias, alias == nil {
          guard reader.endOfName(at: record.data) == record.end else { return .malformed }
          alias = record.data
        }
      }
      guard count == 0, let alias else { return .addresses(count) }
      owner = alias
    }
    return .malformed
  }
}
