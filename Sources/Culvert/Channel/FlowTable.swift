/// (mapping, client) <-> flow <-> port inside the tunnel: a hash over a fixed table of flows, which
/// are also linked by stage in the order of their last use.
///
/// Every flow has a port of its own, so that an answer finds its client. A new flow gets the place
/// that has been free for longest, and of its ports the one that it has not had for longest: an
/// answer that comes too late goes to nobody, also where a full table gives a place away at once.
/// The seed decides the order of the ports, so that strangers who forge answers have to guess (RFC
/// 6056, RFC 5452 section 4.5).
struct FlowTable: ~Copyable {
  private let flows: UnsafeMutableBufferPointer<Flow>
  /// Place + 1 of the first flow with a hash; 0 for none.
  private let buckets: UnsafeMutableBufferPointer<UInt16>
  /// Of a hash, so that the bits left are those of a bucket.
  private let bucketShift: UInt32
  /// By stage.
  private let lists: UnsafeMutablePointer<FlowList>
  private let times: FlowTimes
  /// Ports that each place has in turn, a power of two less 1: the first port + place + capacity *
  /// turn.
  private let turnMask: Int
  private var hash = TableHash(seed: 0)
  /// Decides the order of the ports.
  private var seed: UInt64 = 0
  let counters: Tally<FlowVerdict>
  /// Flows that are open.
  private(set) var count = 0

  static let owner: StaticString = "flows"
  /// Half of all ports, none of which a service is known by.
  static let firstPort: UInt16 = 32_768
  static let portCount = 32_768
  /// Each place has two ports at least.
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

  /// Empties the table; once, before anything else.
  /// - Parameter seed: random.
  mutating func start(seed: UInt64) {
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

  /// The flow of a datagram that a client sends on a mapping, opened where there was none. Nil,
  /// and counted, where the table is full of flows within their grace.
  mutating func send(from client: Path, on mapping: UInt8, at now: Instant) -> UInt16? {
    let bucket = bucket(of: client, mapping)
    if let place = find(client, mapping, in: bucket) {
      let flow = flow(place)
      // The interface may have changed since.
      flow.pointee.client = client
      use(place, as: flow.pointee.stage == .waiting ? .waiting : .conversing, at: now)
      return place
    }
    guard let place = freePlace(at: now) else {
      counters.add(.refused)
      return nil
    }
    let flow = flow(place)
    flow.pointee.client = client
    flow.pointee.mapping = mapping
    flow.pointee.port = nextPort(of: place)
    flow.pointee.next = buckets[bucket]
    buckets[bucket] = place
    use(place, as: .waiting, at: now)
    count += 1
    counters.add(.opened)
    return place
  }

  /// The flow that has a port now.
  func find(port: UInt16) -> UInt16? {
    guard port >= FlowTable.firstPort else { return nil }
    let place = UInt16(
      truncatingIfNeeded: Int(port &- FlowTable.firstPort) % flows.count &+ 1)
    let flow = flow(place)
    return flow.pointee.stage != .free && flow.pointee.port == port ? place : nil
  }

  /// An answer has come for a flow.
  mutating func didReceive(_ place: UInt16, at now: Instant) {
    let isConversing = flow(place).pointee.stage == .conversing
    use(place, as: isConversing ? .conversing : .answered, at: now)
  }

  /// What is known of an open flow; `place` is from the table.
  @inline(__always)
  subscript(place: UInt16) -> Flow { flow(place).pointee }

  // MARK: Ends

  /// Closes an open flow.
  mutating func close(_ place: UInt16, _ reason: FlowVerdict) {
    unlinkHash(place)
    use(place, as: .free, at: flow(place).pointee.lastUse)
    count -= 1
    counters.add(reason)
  }

  /// Closes the flows whose time is over.
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
    // Of three at once Swift would make an array.
    min(deadline(of: .waiting), min(deadline(of: .answered), deadline(of: .conversing)))
  }

  private func deadline(of stage: Flow.Stage) -> Deadline {
    let oldest = lists[stage].oldest
    guard oldest != 0 else { return .never }
    let time = stage == .waiting ? times.unanswered : times.answered
    return .after(time, from: flow(oldest).pointee.lastUse)
  }

  // MARK: Places

  /// The place that has been free for longest, or the one of a flow that gives way.
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

  /// The least recently used of the flows that can be missed most: those that wait in vain, then
  /// those that have had their answer, then those that have fallen silent.
  private func victim(at now: Instant) -> UInt16? {
    if isPastGrace(lists[.waiting].oldest, at: now) { return lists[.waiting].oldest }
    if lists[.answered].oldest != 0 { return lists[.answered].oldest }
    if isPastGrace(lists[.conversing].oldest, at: now) { return lists[.conversing].oldest }
    return nil
  }

  private func isPastGrace(_ place: UInt16, at now: Instant) -> Bool {
    place != 0 && now.since(flow(place).pointee.lastUse) >= times.grace
  }

  @inline(__always)
  private func flow(_ place: UInt16) -> UnsafeMutablePointer<Flow> {
    // Places come from the table itself.
    flows.baseAddress.unsafelyUnwrapped + (Int(place) &- 1)
  }

  // MARK: Ports

  private func port(_ index: Int, turn: Int) -> UInt16 {
    FlowTable.firstPort &+ UInt16(truncatingIfNeeded: index + capacity * (turn & turnMask))
  }

  /// The port after the last one. Steps of an odd number reach every turn before one comes again.
  private func nextPort(of place: UInt16) -> UInt16 {
    let index = Int(place) &- 1
    let turn = Int(flow(place).pointee.port &- FlowTable.firstPort) / capacity
    let step = Int(truncatingIfNeeded: order(of: index)) | 1
    return port(index, turn: turn &+ step)
  }

  /// Decides where a place's ports begin and how they follow each other.
  private func order(of index: Int) -> UInt64 { SplitMix64.mix(~seed &+ UInt64(index)) }

  // MARK: Lists

  /// Puts a flow at the newest end of a stage's list.
  private mutating func use(_ place: UInt16, as stage: Flow.Stage, at now: Instant) {
    unlink(place)
    flow(place).pointee.lastUse = now
    append(place, to: stage)
  }

  private mutating func append(_ place: UInt16, to stage: Flow.Stage) {
    let newest = lists[stage].newest
    let flow = flow(place)
    flow.pointee.stage = stage
    flow.pointee.older = newest
    flow.pointee.newer = 0
    if newest == 0 { lists[stage].oldest = place } else { self.flow(newest).pointee.newer = place }
    lists[stage].newest = place
  }

  private mutating func unlink(_ place: UInt16) {
    let (stage, older, newer) = (
      flow(place).pointee.stage, flow(place).pointee.older, flow(place).pointee.newer
    )
    if older == 0 { lists[stage].oldest = newer } else { flow(older).pointee.newer = newer }
    if newer == 0 { lists[stage].newest = older } else { flow(newer).pointee.older = older }
  }

  // MARK: Hash

  private func find(_ client: Path, _ mapping: UInt8, in bucket: Int) -> UInt16? {
    var place = buckets[bucket]
    while place != 0 {
      let flow = flow(place)
      if flow.pointee.client.endpoint == client.endpoint,
        flow.pointee.client.source == client.source, flow.pointee.mapping == mapping
      {
        return place
      }
      place = flow.pointee.next
    }
    return nil
  }

  private func unlinkHash(_ place: UInt16) {
    let (client, mapping) = (flow(place).pointee.client, flow(place).pointee.mapping)
    let bucket = bucket(of: client, mapping)
    var current = buckets[bucket]
    if current == place {
      buckets[bucket] = flow(place).pointee.next
      return
    }
    while flow(current).pointee.next != place { current = flow(current).pointee.next }
    flow(current).pointee.next = flow(place).pointee.next
  }

  /// A client is its address and port, and the address of ours that it asked.
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

/// One client of a forwarder and what it has to do with the destination: the row of `FlowTable`.
struct Flow: BitwiseCopyable {
  /// How much is lost with the flow. Each stage has a list of its flows, ordered by last use.
  enum Stage: UInt8, BitwiseCopyable {
    /// Nobody's.
    case free
    /// The client has sent, and nobody has answered yet.
    case waiting
    /// The client has had its answer and has not come back since: most of DNS ends here.
    case answered
    /// The client went on after an answer.
    case conversing

    static var count: Int { 4 }
  }

  /// Where the client is, and which of our addresses it asked and is to be answered from.
  var client: Path
  /// The local port inside the tunnel that stands for this flow. That of a free flow is the last
  /// one that it had.
  var port: UInt16
  /// Which of the forwarder's mappings the client asked.
  var mapping: UInt8
  var stage: Stage
  /// Place + 1 of the neighbours in the stage's list; 0 for none.
  var older: UInt16
  var newer: UInt16
  /// Place + 1 of the next flow whose hash is the same; 0 for none.
  var next: UInt16
  /// Of the last datagram in either direction.
  var lastUse: Instant
}

/// The ends of a stage's list: places + 1, 0 where it is empty.
struct FlowList: BitwiseCopyable {
  var oldest: UInt16
  var newest: UInt16
}

/// How long a flow lives, in nanoseconds.
public struct FlowTimes: Sendable, BitwiseCopyable {
  /// After its last datagram, a flow that nobody has ever answered (Linux's
  /// nf_conntrack_udp_timeout: 30 s).
  public var unanswered: UInt64 = 30 * nanosecondsPerSecond
  /// After its last datagram in either direction, a flow that has been answered (RFC 4787 REQ-5:
  /// two minutes at least; REQ-6: what goes out keeps it open).
  public var answered: UInt64 = 180 * nanosecondsPerSecond
  /// After its last datagram no new flow takes the place of this one, except where its one question
  /// has been answered: more than resolvers wait for an answer before they ask again.
  public var grace: UInt64 = 10 * nanosecondsPerSecond

  public init() {}
}
