/// Maps (mapping, client) to a flow, and a port inside the tunnel back to the flow: a hash over a
/// fixed table of flows, which are also linked by stage in the order of their last use.
///
/// Every flow has a port of its own, by which an answer finds its client. A new flow gets the place
/// that has been free for longest, and of that place's ports the one that has been unused for
/// longest. So a late answer reaches nobody, even if a full table reuses a place at once. The seed
/// decides the order of the ports, so that whoever forges answers has to guess it (RFC 6056, RFC
/// 5452 section 4.5).
struct FlowTable: ~Copyable {
  private let flows: UnsafeMutableBufferPointer<Flow>
  /// Place + 1 of the first flow in the bucket; 0 for none.
  private let buckets: UnsafeMutableBufferPointer<UInt16>
  /// The upper bits of a hash, shifted right by this, are the number of a bucket.
  private let bucketShift: UInt32
  /// The list of each stage.
  private let lists: UnsafeMutablePointer<FlowList>
  private let times: FlowTimes
  /// The number of ports of each place, less 1; a power of two less 1. A place's port is the first
  /// port + place + capacity * turn.
  private let turnMask: Int
  /// Seeded, so that nobody can choose clients that share a bucket.
  private var hash = TableHash(seed: 0)
  /// Secret: decides the order of the ports.
  private var seed: UInt64 = 0
  let counters: Tally<FlowVerdict>
  /// Flows that are open.
  private(set) var count = 0

  static let owner: StaticString = "flows"
  /// The upper half of all ports, which contains no well-known services.
  static let firstPort: UInt16 = 32_768
  static let portCount = 32_768
  /// Each place has at least two ports.
  static let maximumCapacity = portCount / 2

  init(carvingFrom arena: inout Arena, limits: Limits, times: FlowTimes = FlowTimes()) {
    let capacity = limits.flows
    precondition(capacity > 0 && capacity <= FlowTable.maximumCapacity)
    flows = arena.carve(Flow.self, count: capacity, owner: FlowTable.owner)
    let bucketCount = powerOfTwo(atLeast: capacity)
    buckets = arena.carve(UInt16.self, count: bucketCount, owner: FlowTable.owner)
    bucketShift = UInt32(32 - bucketCount.trailingZeroBitCount)
    lists =
      arena.carve(FlowList.self, count: Flow.Stage.count, owner: FlowTable.owner).baseAddress!
    counters = Tally(carvingFrom: &arena, owner: FlowTable.owner)
    self.times = times
    turnMask = powerOfTwo(atLeast: FlowTable.portCount / capacity / 2 + 1) - 1
  }

  /// Empties the table. Called once, before anything else.
  ///
  /// - Parameter seed: random.
  mutating func prepare(seed: UInt64) {
    hash = TableHash(seed: seed)
    self.seed = seed
    buckets.update(repeating: 0)
    (UnsafeMutableBufferPointer(start: lists, count: Flow.Stage.count))
      .update(repeating: FlowList(oldest: 0, newest: 0))
    count = 0
    let nobody = Path(to: Endpoint(address: IPAddress(ipv4: 0), port: 0))
    for index in 0..<flows.count {
      let turn = Int(truncatingIfNeeded: order(of: index) >> 32)
      let flow = Flow(
        client: nobody, port: port(index, turn: turn), mapping: 0, stage: .free, older: 0,
        newer: 0, next: 0, lastUse: Instant(nanoseconds: 0))
      flows.initializeElement(at: index, to: flow)
      append(UInt16(index + 1), to: .free)
    }
  }

  var capacity: Int { flows.count }

  // MARK: Datagrams

  /// The flow of a datagram that a client sends on a mapping; a new one if there is none.
  ///
  /// - Returns: nil, which is counted, if the table is full of flows within their grace.
  mutating func findOrOpen(from client: Path, on mapping: UInt8, at now: Instant) -> UInt16? {
    let bucket = bucket(of: client, mapping)
    if let place = find(client, mapping, in: bucket) {
      // The interface may have changed since.
      self[place].client = client
      use(place, as: self[place].stage == .waiting ? .waiting : .conversing, at: now)
      return place
    }
    guard let place = freePlace(at: now) else {
      counters.add(.refused)
      return nil
    }
    self[place].client = client
    self[place].mapping = mapping
    self[place].port = nextPort(of: place)
    self[place].next = buckets[bucket]
    buckets[bucket] = place
    use(place, as: .waiting, at: now)
    count += 1
    counters.add(.opened)
    return place
  }

  /// The open flow that has this port.
  func find(port: UInt16) -> UInt16? {
    guard port >= FlowTable.firstPort else { return nil }
    let place = UInt16(
      truncatingIfNeeded: Int(port &- FlowTable.firstPort) % flows.count &+ 1)
    return self[place].stage != .free && self[place].port == port ? place : nil
  }

  /// Records that an answer has arrived for a flow.
  mutating func didReceive(_ place: UInt16, at now: Instant) {
    use(place, as: self[place].stage == .conversing ? .conversing : .answered, at: now)
  }

  /// A flow, in place; `place` is from the table.
  fileprivate(set) subscript(place: UInt16) -> Flow {
    @inline(__always) unsafeAddress { UnsafePointer(address(of: place)) }
    @inline(__always) nonmutating unsafeMutableAddress { address(of: place) }
  }

  @inline(__always)
  private func address(of place: UInt16) -> UnsafeMutablePointer<Flow> {
    // Places come from the table itself.
    flows.baseAddress.unsafelyUnwrapped + (Int(place) &- 1)
  }

  // MARK: Ends

  /// Closes an open flow.
  mutating func close(_ place: UInt16, _ reason: FlowVerdict) {
    unlinkHash(place)
    use(place, as: .free, at: self[place].lastUse)
    count -= 1
    counters.add(reason)
  }

  /// Closes the flows whose time has expired.
  mutating func expire(at now: Instant) {
    expire(.waiting, at: now)
    expire(.answered, at: now)
    expire(.conversing, at: now)
  }

  private mutating func expire(_ stage: Flow.Stage, at now: Instant) {
    while deadline(of: stage).isDue(at: now) { close(lists[stage].oldest, .expired) }
  }

  /// When `expire` has something to do.
  var nextDeadline: Deadline {
    // Swift would allocate an array for `min` of three.
    min(deadline(of: .waiting), min(deadline(of: .answered), deadline(of: .conversing)))
  }

  private func deadline(of stage: Flow.Stage) -> Deadline {
    let oldest = lists[stage].oldest
    guard oldest != 0 else { return .never }
    let time = stage == .waiting ? times.unanswered : times.answered
    return .after(time, from: self[oldest].lastUse)
  }

  // MARK: Places

  /// The place that has been free for longest, or that of a flow that is evicted.
  private mutating func freePlace(at now: Instant) -> UInt16? {
    if lists[.free].oldest == 0 {
      expire(at: now)
      if lists[.free].oldest == 0 {
        guard let victim = victim(at: now) else { return nil }
        close(victim, .evicted)
      }
    }
    return lists[.free].oldest
  }

  /// The flow to evict. The least valuable are those that have waited in vain, then those that have
  /// had their answer, then silent conversations; of these, the least recently used one.
  private func victim(at now: Instant) -> UInt16? {
    if isPastGrace(lists[.waiting].oldest, at: now) { return lists[.waiting].oldest }
    if lists[.answered].oldest != 0 { return lists[.answered].oldest }
    if isPastGrace(lists[.conversing].oldest, at: now) { return lists[.conversing].oldest }
    return nil
  }

  private func isPastGrace(_ place: UInt16, at now: Instant) -> Bool {
    place != 0 && now.since(self[place].lastUse) >= times.grace
  }

  // MARK: Ports

  private func port(_ index: Int, turn: Int) -> UInt16 {
    FlowTable.firstPort &+ UInt16(truncatingIfNeeded: index + capacity * (turn & turnMask))
  }

  /// The port after the last one of this place. Because the step is odd, every port is used before
  /// one is used again.
  private func nextPort(of place: UInt16) -> UInt16 {
    let index = Int(place) &- 1
    let turn = Int(self[place].port &- FlowTable.firstPort) / capacity
    let step = Int(truncatingIfNeeded: order(of: index)) | 1
    return port(index, turn: turn &+ step)
  }

  /// Decides which port of a place is the first, and the step from one to the next.
  private func order(of index: Int) -> UInt64 { SplitMix64.mix(~seed &+ UInt64(index)) }

  // MARK: Lists

  /// Puts a flow at the newest end of a stage's list.
  private mutating func use(_ place: UInt16, as stage: Flow.Stage, at now: Instant) {
    unlink(place)
    self[place].lastUse = now
    append(place, to: stage)
  }

  private mutating func append(_ place: UInt16, to stage: Flow.Stage) {
    let newest = lists[stage].newest
    self[place].stage = stage
    self[place].older = newest
    self[place].newer = 0
    if newest == 0 { lists[stage].oldest = place } else { self[newest].newer = place }
    lists[stage].newest = place
  }

  private mutating func unlink(_ place: UInt16) {
    let (stage, older, newer) = (self[place].stage, self[place].older, self[place].newer)
    if older == 0 { lists[stage].oldest = newer } else { self[older].newer = newer }
    if newer == 0 { lists[stage].newest = older } else { self[newer].older = older }
  }

  // MARK: Hash

  private func find(_ client: Path, _ mapping: UInt8, in bucket: Int) -> UInt16? {
    var place = buckets[bucket]
    while place != 0 {
      if self[place].client.endpoint == client.endpoint,
        self[place].client.source == client.source, self[place].mapping == mapping
      {
        return place
      }
      place = self[place].next
    }
    return nil
  }

  private func unlinkHash(_ place: UInt16) {
    let (client, mapping) = (self[place].client, self[place].mapping)
    let bucket = bucket(of: client, mapping)
    var current = buckets[bucket]
    if current == place {
      buckets[bucket] = self[place].next
      return
    }
    while self[current].next != place { current = self[current].next }
    self[current].next = self[place].next
  }

  /// A client is identified by its address and port, and by the local address that it sent to.
  private func bucket(of client: Path, _ mapping: UInt8) -> Int {
    let endpoint = client.endpoint
    let rest =
      UInt64(endpoint.scope) << 32 | UInt64(endpoint.port) << 16 | UInt64(mapping) << 8
      | UInt64(endpoint.address.family.rawValue)
    let hash = hash.hash(
      endpoint.address.high, endpoint.address.low, client.source.high, client.source.low, rest)
    return Int(truncatingIfNeeded: hash >> bucketShift)
  }
}

extension UnsafeMutablePointer where Pointee == FlowList {
  @inline(__always)
  fileprivate subscript(stage: Flow.Stage) -> FlowList {
    get { self[Int(stage.rawValue)] }
    nonmutating set { self[Int(stage.rawValue)] = newValue }
  }
}

/// A row of `FlowTable`: one client of a forwarder, and its state.
struct Flow: BitwiseCopyable {
  /// How valuable the flow is. Each stage has a list of its flows, ordered by last use.
  enum Stage: UInt8, BitwiseCopyable {
    /// Not open.
    case free
    /// The client has sent, and nothing has answered yet.
    case waiting
    /// The client has had its answer and has not sent since: where most DNS queries end.
    case answered
    /// The client has sent again after an answer.
    case conversing

    static var count: Int { 4 }
  }

  /// Where the client is, and the local address that it sent to, from which it is answered.
  var client: Path
  /// The local port of this flow inside the tunnel. In a free place, the last one used.
  var port: UInt16
  /// The forwarder's mapping to which the client sent.
  var mapping: UInt8
  var stage: Stage
  /// Place + 1 of the neighbours in the stage's list; 0 for none.
  var older: UInt16
  var newer: UInt16
  /// Place + 1 of the next flow in the same bucket; 0 for none.
  var next: UInt16
  /// When the last datagram was sent in either direction.
  var lastUse: Instant
}

/// The ends of a stage's list: places + 1, or 0 if the list is empty.
struct FlowList: BitwiseCopyable {
  var oldest: UInt16
  var newest: UInt16
}

/// How long a flow lives, in nanoseconds.
package struct FlowTimes: Sendable, BitwiseCopyable {
  /// Of a flow that was never answered, after its last datagram (Linux's nf_conntrack_udp_timeout:
  /// 30 s).
  package var unanswered: UInt64 = 30 * nanosecondsPerSecond
  /// Of a flow that was answered, after its last datagram in either direction (RFC 4787 REQ-5: at
  /// least two minutes; REQ-6: outbound datagrams keep it open).
  package var answered: UInt64 = 180 * nanosecondsPerSecond
  /// How long after its last datagram a flow is not evicted, unless its only question has been
  /// answered: longer than resolvers wait before they ask again.
  package var grace: UInt64 = 10 * nanosecondsPerSecond

  package init() {}
}

/// What became of a forwarder's flow, or of a datagram on one.
package enum FlowVerdict: UInt8, CountedVerdict {
  // Flows.
  case opened
  /// Its time expired without a datagram.
  case expired
  /// A new flow took its place in a full table.
  case evicted
  /// Not opened: the table was full of flows within their grace.
  case refused
  /// Closed by an ICMP error about its destination.
  case unreachable

  // Datagrams.
  /// Sent from a client into the tunnel.
  case sent
  /// Sent from the tunnel to its client.
  case answered
  /// Refused by the channel, which has counted the reason.
  case unsent
  /// From the tunnel to a port without a flow: too late, or unsolicited.
  case stray
  /// From the tunnel to a flow's port, but not from the flow's destination.
  case wrongSender
  /// The kernel refused to send it to the client.
  case undelivered

  package static var count: UInt8 { undelivered.rawValue + 1 }

  package var name: StaticString {
    switch self {
    case .opened: "flow-opened"
    case .expired: "flow-expired"
    case .evicted: "flow-evicted"
    case .refused: "flow-refused"
    case .unreachable: "flow-unreachable"
    case .sent: "forward-sent"
    case .answered: "forward-answered"
    case .unsent: "forward-unsent"
    case .stray: "forward-stray"
    case .wrongSender: "forward-wrong-sender"
    case .undelivered: "forward-undelivered"
    }
  }
}
