import Testing

@testable import Culvert

@Suite struct FlowTableTests {
  private static func limits(_ flows: Int) -> Limits {
    var limits = Limits.shrunken()
    limits.flows = flows
    return limits
  }

  private static func client(_ port: UInt16, _ address: IPAddress = ipv4(127, 0, 0, 1)) -> Path {
    Path(to: Endpoint(address: address, port: port))
  }

  /// Clients that differ in one field each, so that a field missing from the key is noticed.
  private static func clients() -> [FlowTableModel.Client] {
    let base = Endpoint(address: ipv4(127, 0, 0, 1), port: 7)
    let zero6 = Endpoint(address: ipv6(base.address.high, 0), port: 7)
    let low6 = Endpoint(address: ipv6(base.address.high, 1), port: 7)
    var paths = [
      Path(to: base), Path(to: Endpoint(address: ipv4(127, 0, 0, 2), port: 7)),
      Path(to: Endpoint(address: base.address, port: 8)),
      Path(endpoint: base, source: ipv4(127, 0, 0, 9)), Path(to: zero6), Path(to: low6),
      Path(to: Endpoint(address: low6.address, port: 7, scope: 1)),
      Path(endpoint: low6, source: ipv6(0, 1)), Path(endpoint: low6, source: ipv6(1, 0)),
    ]
    paths += (100..<110).map { client($0) }
    return paths.map { FlowTableModel.Client(path: $0, mapping: 0) }
      + paths.prefix(2).map { FlowTableModel.Client(path: $0, mapping: 1) }
  }

  private static func shortTimes() -> FlowTimes {
    var times = FlowTimes()
    (times.unanswered, times.answered, times.grace) = (30, 180, 10)
    return times
  }

  /// Few places and more clients than places, so that flows are evicted and refused all the time.
  /// Every other run has few answers.
  @Test(arguments: 0..<40) func agreesWithAList(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let memory = TestArena()
    let capacity = 1 + Int(seed % 8)
    let times = Self.shortTimes()
    var table = FlowTable(
      carvingFrom: &memory.arena, limits: Self.limits(capacity), times: times)
    table.prepare(seed: random.next())
    var model = FlowTableModel(capacity: capacity, times: times)
    let clients = Array(Self.clients().shuffled(using: &random).prefix(2 * capacity + 3))
    var now: UInt64 = 1000
    var mistakes: [String] = []
    for step in 0..<3000 {
      // Mostly short steps, so that about half of the flows are within their grace period.
      now += random.next() % 100 == 0 ? random.next() % 200 : random.next() % 2
      let instant = Instant(nanoseconds: now)
      switch random.next() % 10 {
      case 0..<5:
        var client = clients.randomElement(using: &random)!
        let expected = model.send(client, at: now)
        // The interface is not part of a client's identity.
        client.path.interface = UInt32.random(in: 0...3, using: &random)
        let place = table.findOrOpen(from: client.path, on: client.mapping, at: instant)
        if place.map({ Int($0) - 1 }) != expected { mistakes.append("\(step): send") }
        if let place, table[place].client != client.path { mistakes.append("\(step): client") }
      case 5..<(seed & 8 == 0 ? 8 : 6):
        guard let row = model.rows.randomElement(using: &random) else { break }
        table.didReceive(UInt16(row.place + 1), at: instant)
        model.receive(place: row.place, at: now)
      case 8 where random.next() % 2 == 0:
        guard let index = model.rows.indices.randomElement(using: &random) else { break }
        table.close(UInt16(model.rows[index].place + 1), .unreachable)
        model.close(index, .unreachable)
      default:
        table.expire(at: instant)
        model.expire(at: now)
      }
      if !agree(table, model) { mistakes.append("\(step): state") }
      // After the first difference the two may diverge completely.
      guard mistakes.isEmpty else { break }
    }
    #expect(mistakes == [])
    guard mistakes.isEmpty else { return }
    let (opened, refused, evicted) = (
      table.counters[.opened], table.counters[.refused], table.counters[.evicted]
    )
    #expect(opened > 100 && refused > 10 && evicted > 100, "the run met all cases")
    withExtendedLifetime(memory) {}
  }

  private func agree(_ table: borrowing FlowTable, _ model: FlowTableModel) -> Bool {
    var ports: Set<UInt16> = []
    for row in model.rows {
      let flow = table[UInt16(row.place + 1)]
      guard flow.client.endpoint == row.client.path.endpoint, flow.mapping == row.client.mapping,
        flow.client.source == row.client.path.source, flow.lastUse.nanoseconds == row.lastUse,
        table.find(port: flow.port) == UInt16(row.place + 1)
      else { return false }
      ports.insert(flow.port)
    }
    guard ports.count == model.rows.count, table.count == model.rows.count else { return false }
    for place in model.free where table.find(port: table[UInt16(place + 1)].port) != nil {
      return false
    }
    for value in 0..<FlowVerdict.count {
      let verdict = FlowVerdict(rawValue: value)!
      guard table.counters[verdict] == model.counts[verdict, default: 0] else { return false }
    }
    return table.nextDeadline.instant?.nanoseconds == model.nextDeadline
  }

  /// Even if a full table reuses a place at once, a late answer must find no flow.
  @Test(arguments: [1, 3, 64, 256, 4096, FlowTable.maximumCapacity])
  func aPortIsNotReusedBeforeAllOthersOfItsPlace(capacity: Int) {
    let memory = TestArena(byteCount: 1 << 22)
    var times = FlowTimes()
    times.grace = 0
    var table = FlowTable(
      carvingFrom: &memory.arena, limits: Self.limits(capacity), times: times)
    table.prepare(seed: 5)
    let now = Instant(nanoseconds: 1)
    var wrong = 0
    var used: [UInt16: [UInt16]] = [:]
    let portsOfAPlace = powerOfTwo(atLeast: FlowTable.portCount / capacity / 2 + 1)
    for number in 0..<min(50 * capacity, 100_000) {
      // Every client is new and replaces the oldest.
      let address = ipv4(10, 0, 0, 0).ipv4Bits + UInt32(number >> 8)
      let client = Self.client(UInt16(number & 255), IPAddress(ipv4: address))
      let place = table.findOrOpen(from: client, on: 0, at: now)!
      let port = table[place].port
      if used[place, default: []].suffix(portsOfAPlace - 1).contains(port) { wrong += 1 }
      // Every port, including the first, is in the range and leads to its place.
      if port < FlowTable.firstPort || table.find(port: port) != place { wrong += 1 }
      used[place, default: []].append(port)
    }
    #expect(wrong == 0)
    let refused = table.counters[.refused]
    #expect(refused == 0 && used.count == capacity && portsOfAPlace >= 2)
    withExtendedLifetime(memory) {}
  }

  /// To forge an answer one has to guess the port: each place has many, in an order that depends on
  /// the seed.
  @Test func portsAreSpreadAtRandom() {
    var sequences: Set<[UInt16]> = []
    for seed in 0..<20 as Range<UInt64> {
      let memory = TestArena()
      var table = FlowTable(carvingFrom: &memory.arena, limits: Self.limits(256))
      table.prepare(seed: seed)
      var ports: [UInt16] = []
      for number in 0..<2000 as Range<UInt16> {
        let now = Instant(nanoseconds: UInt64(number))
        let place = table.findOrOpen(from: Self.client(number), on: 0, at: now)!
        ports.append(table[place].port)
        table.close(place, .unreachable)
      }
      // 2000 random draws out of 32,768 give about 1940 different values.
      #expect(Set(ports).count > 1800)
      // Each sixteenth of the range gets about its share of 125.
      let shares = Dictionary(grouping: ports) { $0 >> 11 }.mapValues(\.count)
      #expect(shares.count == 16 && shares.values.allSatisfy { (70...190).contains($0) })
      sequences.insert(Array(ports.prefix(8)))
      withExtendedLifetime(memory) {}
    }
    #expect(sequences.count == 20)
  }

  @Test func portsOfNobodyHaveNoFlow() {
    let memory = TestArena()
    var table = FlowTable(carvingFrom: &memory.arena, limits: Self.limits(100))
    table.prepare(seed: 1)
    let place = table.findOrOpen(from: Self.client(1), on: 0, at: Instant(nanoseconds: 1))!
    let port = table[place].port
    let found = (0...UInt16.max).filter { table.find(port: $0) != nil }
    #expect(found == [port])
    table.close(place, .unreachable)
    let late = table.find(port: port)
    #expect(late == nil)
    withExtendedLifetime(memory) {}
  }

  /// The order of eviction, by example: first a flow without an answer, then one that has had its
  /// answer, then a conversation that has gone silent; nothing else.
  @Test func whatGivesWay() {
    let memory = TestArena()
    var table = FlowTable(
      carvingFrom: &memory.arena, limits: Self.limits(4), times: Self.shortTimes())
    table.prepare(seed: 1)
    func at(_ time: UInt64) -> Instant { Instant(nanoseconds: time) }
    let conversing = table.findOrOpen(from: Self.client(1), on: 0, at: at(0))!
    table.didReceive(conversing, at: at(0))
    _ = table.findOrOpen(from: Self.client(1), on: 0, at: at(1))
    let waiting = table.findOrOpen(from: Self.client(2), on: 0, at: at(2))!
    let answered = table.findOrOpen(from: Self.client(3), on: 0, at: at(3))!
    table.didReceive(answered, at: at(4))
    let younger = table.findOrOpen(from: Self.client(4), on: 0, at: at(12))!
    // The conversation was used earlier, but the waiting flow's grace period is over.
    #expect(table.findOrOpen(from: Self.client(5), on: 0, at: at(12)) == waiting)
    #expect(table.findOrOpen(from: Self.client(6), on: 0, at: at(12)) == answered)
    #expect(table.findOrOpen(from: Self.client(7), on: 0, at: at(12)) == conversing)
    // The remaining flows are within their grace period.
    #expect(table.findOrOpen(from: Self.client(8), on: 0, at: at(12)) == nil)
    #expect(table.findOrOpen(from: Self.client(8), on: 0, at: at(21)) == nil)
    #expect(table.findOrOpen(from: Self.client(8), on: 0, at: at(22)) == younger)
    let (evicted, refused) = (table.counters[.evicted], table.counters[.refused])
    #expect(evicted == 4 && refused == 2)
    withExtendedLifetime(memory) {}
  }

  /// RFC 4787 REQ-5 and REQ-6: a flow that was answered lives for at least two minutes, and
  /// outgoing datagrams keep it open.
  @Test func flowsLiveForTheirTime() {
    let memory = TestArena()
    var table = FlowTable(carvingFrom: &memory.arena, limits: Self.limits(4))
    table.prepare(seed: 1)
    let second = nanosecondsPerSecond
    func at(_ seconds: UInt64) -> Instant { Instant(nanoseconds: seconds * second) }
    _ = table.findOrOpen(from: Self.client(1), on: 0, at: at(0))
    _ = table.findOrOpen(from: Self.client(1), on: 0, at: at(29))
    table.expire(at: at(58))
    #expect(table.count == 1 && table.nextDeadline == Deadline(at(59)))
    table.expire(at: at(59))
    #expect(table.count == 0 && table.nextDeadline == .never)
    let place = table.findOrOpen(from: Self.client(1), on: 0, at: at(60))!
    table.didReceive(place, at: at(61))
    table.expire(at: at(61 + 179))
    #expect(table.count == 1 && table.nextDeadline == Deadline(at(61 + 180)))
    _ = table.findOrOpen(from: Self.client(1), on: 0, at: at(61 + 179))
    table.expire(at: at(61 + 179 + 179))
    #expect(table.count == 1)
    table.expire(at: at(61 + 179 + 180))
    #expect(table.count == 0)
    // The clock may jump back (R24).
    _ = table.findOrOpen(from: Self.client(2), on: 0, at: at(1000))
    table.expire(at: at(1))
    #expect(table.count == 1)
    withExtendedLifetime(memory) {}
  }

  @Test func measuringTakesAsMuchAsCarving() {
    var measuring = Arena.measuring
    _ = Forwarder(carvingFrom: &measuring, limits: Self.limits(100))
    let memory = TestArena()
    _ = Forwarder(carvingFrom: &memory.arena, limits: Self.limits(100))
    let (measured, carved) = (measuring.byteCount, memory.arena.byteCount)
    #expect(measured == carved && measured > 0)
  }
}

/// A model of the flow table that searches a list.
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

  /// The place of the client's flow; nil if it is refused.
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

  /// The table expires one stage after the other.
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
