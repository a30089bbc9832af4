@testable import Culvert

/// What a flow table should do, by looking through a list.
struct FlowTableModel {
  struct Client: Hashable {
    var path: Path
    var mapping: UInt8
  }

  struct Row {
    var client: Client
    var place: Int
    var lastUse: UInt64
    var isAnswered = false
    var isConversing = false
  }

  let capacity: Int
  let times: FlowTimes
  /// In the order of last use.
  var rows: [Row] = []
  /// In the order in which they became free.
  var free: [Int]
  var counts: [FlowVerdict: UInt64] = [:]

  init(capacity: Int, times: FlowTimes) {
    self.capacity = capacity
    self.times = times
    free = Array(0..<capacity)
  }

  /// The place of the client's flow; nil where it is refused.
  mutating func send(_ client: Client, at now: UInt64) -> Int? {
    if let index = rows.firstIndex(where: { $0.client == client }) {
      var row = rows.remove(at: index)
      row.lastUse = now
      row.isConversing = row.isAnswered
      rows.append(row)
      return row.place
    }
    if free.isEmpty { expire(at: now) }
    if free.isEmpty {
      guard let index = victim(at: now) else {
        counts[.refused, default: 0] += 1
        return nil
      }
      close(index, .evicted)
    }
    counts[.opened, default: 0] += 1
    rows.append(Row(client: client, place: free.removeFirst(), lastUse: now))
    return rows.last!.place
  }

  private func victim(at now: UInt64) -> Int? {
    func isPastGrace(_ row: Row) -> Bool { now - row.lastUse >= times.grace }
    return rows.firstIndex { !$0.isAnswered && isPastGrace($0) }
      ?? rows.firstIndex { $0.isAnswered && !$0.isConversing }
      ?? rows.firstIndex { $0.isConversing && isPastGrace($0) }
  }

  mutating func receive(place: Int, at now: UInt64) {
    let index = rows.firstIndex { $0.place == place }!
    var row = rows.remove(at: index)
    row.lastUse = now
    row.isAnswered = true
    rows.append(row)
  }

  mutating func close(_ index: Int, _ reason: FlowVerdict) {
    counts[reason, default: 0] += 1
    free.append(rows.remove(at: index).place)
  }

  func end(of row: Row) -> UInt64 {
    row.lastUse + (row.isAnswered ? times.answered : times.unanswered)
  }

  /// The table ends one stage after the other.
  mutating func expire(at now: UInt64) {
    let stages: [(Row) -> Bool] = [
      { !$0.isAnswered }, { $0.isAnswered && !$0.isConversing }, { $0.isConversing },
    ]
    for isOfStage in stages {
      while let index = rows.firstIndex(where: { isOfStage($0) && end(of: $0) <= now }) {
        close(index, .expired)
      }
    }
  }

  var nextDeadline: UInt64? { rows.map(end).min() }
}
