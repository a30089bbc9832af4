/// Maps (mapping, client) to a flow, and a port inside the tunnel back to the flow. It is a hash
/// table over a fixed array of flows. The flows are also in a list for each stage, ordered by last
/// use.
///
/// Every flow has its own port, which identifies the client when an answer arrives. A new flow gets
/// the place that has been free for longest, and the port of that place that has been unused for
/// longest. This way a late answer does not reach another client, even if a full table reuses a
/// place at once. The seed determines the order of the ports, so that an attacker who forges
/// answers has to guess the port (RFC 6056, RFC 5452 section 4.5).
///
/// A `place: UInt16` is an index into the array plus 1, so that 0 can mean "none".
struct FlowTable: ~Copyable {
  private let flows: UnsafeMutableBufferPointer<Flow>
  /// The place of the first flow in each bucket; 0 for none.
  private let buckets: UnsafeMutableBufferPointer<UInt16>
  /// The index of a bucket is the hash, shifted right by this number of bits.
  private let bucketShift: UInt32
  /// The list of each stage.
  private let lists: UnsafeMutablePointer<FlowList>
  private let times: FlowTimes
  /// The number of ports of each place, which is a power of two, minus 1. A port of a place is
  /// firstPort + index + capacity * turn.
  private let turnMask: Int
  /// Seeded, so that an attacker cannot choose clients that share a bucket.
  private var hash = TableHash(seed: 0)
  /// A secret that determines the order of the ports.
  private var seed: UInt64 = 0
  let counters: Tally<FlowVerdict>
  /// The number of open flows.
  private(set) var count = 0

  static let owner: StaticString = "flows"
  /// The upper half of the port range, which contains no well-known services.
  static let firstPort: UInt16 = 32_768
  static let portCount = 32_768
  /// The limit leaves at least two ports for each place.
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

  /// Empties the table. Must be called once, before anything else.
  ///
  /// - Parameter seed: a random number.
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

  /// Finds the flow for a client's datagram on a mapping, or opens a new one.
  ///
  /// - Returns: nil, which is counted, if the table is full and no flow may be evicted
  ///   (`FlowTimes.grace`).
  mutating func findOrOpen(from client: Path, on mapping: UInt8, at now: Instant) -> UInt16? {
    let bucket = bucket(of: client, mapping)
    if let place = find(client, mapping, in: bucket) {
      // The client may now be reached through another interface.
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

  /// The open flow with this port.
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

  /// A flow, used in place. The table must have returned `place`.
  fileprivate(set) subscript(place: UInt16) -> Flow {
    @inline(__always) unsafeAddress { UnsafePointer(address(of: place)) }
    @inline(__always) nonmutating unsafeMutableAddress { address(of: place) }
  }

  @inline(__always)
  private func address(of place: UInt16) -> UnsafeMutablePointer<Flow> {
    // Unchecked, because places come from the table itself.
    flows.baseAddress.unsafelyUnwrapped + (Int(place) &- 1)
  }

  // MARK: Closing

  /// Closes an open flow.
  mutating func close(_ place: UInt16, _ reason: FlowVerdict) {
    unlinkHash(place)
    use(place, as: .free, at: self[place].lastUse)
    count -= 1
    counters.add(reason)
  }

  /// Closes the flows that have expired.
  mutating func expire(at now: Instant) {
    expire(.waiting, at: now)
    expire(.answered, at: now)
    expire(.conversing, at: now)
  }

  private mutating func expire(_ stage: Flow.Stage, at now: Instant) {
    while deadline(of: stage).isDue(at: now) { close(lists[stage].oldest, .expired) }
  }

  /// When `expire` must be called next.
  var nextDeadline: Deadline {
    // `min` with three arguments would allocate an array.
    min(deadline(of: .waiting), min(deadline(of: .answered), deadline(of: .conversing)))
  }

  private func deadline(of stage: Flow.Stage) -> Deadline {
    let oldest = lists[stage].oldest
    guard oldest != 0 else { return .never }
    let time = stage == .waiting ? times.unanswered : times.answered
    return .after(time, from: self[oldest].lastUse)
  }

  // MARK: Places

  /// The place that has been free for longest. If none is free, evicts a flow.
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

  /// The flow to evict: preferably an unanswered one, then one whose question has been answered,
  /// then a silent conversation. Of several, it is the least recently used.
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

  /// The next port of this place. The step is odd and the number of ports is a power of two, so all
  /// ports are used before one is reused.
  private func nextPort(of place: UInt16) -> UInt16 {
    let index = Int(place) &- 1
    let turn = Int(self[place].port &- FlowTable.firstPort) / capacity
    let step = Int(truncatingIfNeeded: order(of: index)) | 1
    return port(index, turn: turn &+ step)
  }

  /// Random bits that determine the first port of a place, and the step to its next port.
  private func order(of index: Int) -> UInt64 { SplitMix64.mix(~seed &+ UInt64(index)) }

  // MARK: Lists

  /// Moves a flow to the newest end of a stage's list.
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

  /// The bucket of a client, which is identified by its address and port and by the local address
  /// that it sent to.
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

/// An entry of `FlowTable`: one client of a forwarder, and its state.
struct Flow: BitwiseCopyable {
  /// The stage decides which flow is evicted first. Each stage has a list of its flows, ordered by
  /// last use.
  enum Stage: UInt8, BitwiseCopyable {
    /// The place is not in use.
    case free
    /// The client has sent, and there has been no answer yet.
    case waiting
    /// The client has received an answer and has not sent again. Most DNS queries end in this
    /// stage.
    case answered
    /// The client has sent again after an answer.
    case conversing

    static var count: Int { 4 }
  }

  /// The client's endpoint, and the local address that it sent to. Answers are sent from that
  /// address.
  var client: Path
  /// The local port of this flow inside the tunnel. In a free place, the port of its last flow.
  var port: UInt16
  /// The forwarder's mapping that the client sent to.
  var mapping: UInt8
  var stage: Stage
  /// The places of the neighbours in the stage's list; 0 for none.
  var older: UInt16
  var newer: UInt16
  /// The place of the next flow in the same bucket; 0 for none.
  var next: UInt16
  /// When the last datagram was sent in either direction.
  var lastUse: Instant
}

/// The places at the ends of a stage's list; 0 if the list is empty.
struct FlowList: BitwiseCopyable {
  var oldest: UInt16
  var newest: UInt16
}

/// The lifetimes of flows, in nanoseconds.
package struct FlowTimes: Sendable, BitwiseCopyable {
  /// The lifetime of an unanswered flow after its last datagram (the same as Linux's
  /// nf_conntrack_udp_timeout, 30 s).
  package var unanswered: UInt64 = 30 * nanosecondsPerSecond
  /// The lifetime of an answered flow after its last datagram in either direction (RFC 4787 REQ-5:
  /// at least two minutes; REQ-6: outbound datagrams keep it open).
  package var answered: UInt64 = 180 * nanosecondsPerSecond
  /// For this long after its last datagram, a flow is not evicted, unless it is in stage
  /// `answered`. The time is longer than resolvers wait before they retry.
  package var grace: UInt64 = 10 * nanosecondsPerSecond

  package init() {}
}

/// The result of processing a flow of a forwarder, or a datagram of a flow.
package enum FlowVerdict: UInt8, CountedVerdict {
  // Flows.
  case opened
  /// Closed because it was unused for its lifetime.
  case expired
  /// Closed to make room for a new flow in a full table.
  case evicted
  /// Not opened, because the table was full and no flow could be evicted.
  case refused
  /// Closed because of an ICMP error about its destination.
  case unreachable

  // Datagrams.
  /// Sent from a client into the tunnel.
  case sent
  /// Sent from the tunnel to its client.
  case answered
  /// Refused by the channel, which counts the reason.
  case unsent
  /// From the tunnel to a port without a flow: late or unsolicited.
  case stray
  /// From the tunnel to a flow's port, but not from the flow's destination.
  case wrongSender
  /// The kernel refused to send it to the client.
  case undelivered
  /// No datagram: its client was told that the destination's port is closed.
  case reported

  package static var count: UInt8 { reported.rawValue + 1 }

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
    case .reported: "forward-port-closed"
    }
  }
}
