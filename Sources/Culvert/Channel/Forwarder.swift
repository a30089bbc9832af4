/// Forwards datagrams between local sockets and fixed destinations inside the tunnel, without a
/// TUN.
///
/// Each mapping consists of a local socket and the destination of its clients' datagrams. The
/// forwarder maps clients to ports inside the tunnel and back. The datagrams stay in batches:
///
///     outward   ForwarderBatch, into which the shell receives from clients
///               -> `route` -> DatagramChannel -> OutboundBatch
///     inward    InboundBatch, delivered by the tunnel
///               -> DatagramChannel -> `answer`, or `close` for an ICMP error
///               -> ForwarderBatch, from which the shell sends to clients
///
/// Answers are accepted only from the address and port of the mapping's destination. No other
/// datagram from the tunnel can reach a client.
package struct Forwarder: ~Copyable {
  private let targets: UnsafeMutablePointer<Endpoint>
  /// Until when each target counts as alive, because it has answered.
  private let aliveUntil: UnsafeMutablePointer<Instant>
  private var flows: FlowTable
  package private(set) var mappingCount = 0

  /// The largest number of mappings of one forwarder.
  package static let mappingCapacity = 32
  /// The local ports that the channel must open.
  package static let firstPort = FlowTable.firstPort
  package static let portCount = FlowTable.portCount
  /// The largest number of flows. There are not enough ports for more.
  package static let maximumFlows = FlowTable.maximumCapacity

  /// How long after an answer a target counts as alive, in nanoseconds. Until then an ICMP error,
  /// which may be forged, does not close the target's port to all clients.
  static let aliveTime = 10 * nanosecondsPerSecond

  /// The route of a client's datagram.
  struct Route: BitwiseCopyable {
    /// The local port inside the tunnel.
    let port: UInt16
    let target: Endpoint
  }

  /// The route of a destination's datagram.
  struct Answer: BitwiseCopyable {
    /// The index of the mapping whose socket sends the answer.
    let mapping: Int
    /// The client, and the local address to answer from.
    let client: Path
  }

  package init(carvingFrom arena: inout Arena, limits: Limits, times: FlowTimes = FlowTimes()) {
    targets =
      arena.carve(
        Endpoint.self, count: Forwarder.mappingCapacity, owner: "flows: destinations"
      ).baseAddress!
    aliveUntil =
      arena.carve(
        Instant.self, count: Forwarder.mappingCapacity, owner: "flows: destinations"
      ).baseAddress!
    flows = FlowTable(carvingFrom: &arena, limits: limits, times: times)
  }

  /// Initializes the carved memory. Must be called once, before anything else.
  ///
  /// - Parameter seed: a random number.
  package mutating func start(seed: UInt64) {
    flows.prepare(seed: seed)
  }

  /// Adds a mapping. Indices are assigned in order, starting at 0. Returns false if there are
  /// already `mappingCapacity` mappings.
  package mutating func addMapping(to target: Endpoint) -> Bool {
    guard mappingCount < Forwarder.mappingCapacity else { return false }
    (targets + mappingCount).initialize(to: target)
    (aliveUntil + mappingCount).initialize(to: Instant(nanoseconds: 0))
    mappingCount += 1
    return true
  }

  // MARK: Datagrams

  /// The route of a datagram that `client` has sent to a mapping's socket. Nil, which is counted,
  /// if the table is full.
  mutating func route(
    _ mapping: Int, from client: Path, at now: Instant
  ) -> Route? {
    precondition(mapping >= 0 && mapping < mappingCount)
    guard
      let place = flows.findOrOpen(from: client, on: UInt8(truncatingIfNeeded: mapping), at: now)
    else { return nil }
    return Route(port: flows[place].port, target: targets[mapping])
  }

  /// The client that receives a datagram from `sender` to one of our ports as an answer. Nil, which
  /// is counted, if there is none.
  mutating func answer(
    from sender: Endpoint, to port: UInt16, at now: Instant
  ) -> Answer? {
    guard let place = flows.find(port: port) else {
      flows.counters.add(.stray)
      return nil
    }
    let flow = flows[place]
    guard isTarget(sender, of: flow) else {
      flows.counters.add(.wrongSender)
      return nil
    }
    flows.didReceive(place, at: now)
    aliveUntil[Int(flow.mapping)] = now.advanced(by: Forwarder.aliveTime)
    return Answer(mapping: Int(flow.mapping), client: flow.client)
  }

  /// Closes the flow of `port`, because an ICMP error has reported that `target` is unreachable.
  /// The client's next datagram opens a new flow. Does nothing if the flow has another destination.
  ///
  /// - Returns: whom the flow belonged to.
  @discardableResult
  mutating func close(_ target: Endpoint, from port: UInt16) -> Answer? {
    guard let place = flows.find(port: port), isTarget(target, of: flows[place]) else {
      return nil
    }
    let flow = flows[place]
    flows.close(place, .unreachable)
    return Answer(mapping: Int(flow.mapping), client: flow.client)
  }

  private func isTarget(_ endpoint: Endpoint, of flow: Flow) -> Bool {
    let target = targets[Int(flow.mapping)]
    return endpoint.address == target.address && endpoint.port == target.port
  }

  // MARK: Time and counters

  /// Closes the flows that have expired.
  package mutating func expireFlows(at now: Instant) { flows.expire(at: now) }

  /// When `expireFlows` must be called next.
  package var nextDeadline: Deadline { flows.nextDeadline }

  /// The number of open flows.
  package var flowCount: Int { flows.count }

  package var counters: Tally<FlowVerdict> { flows.counters }

  /// Counts datagrams that had a route, by result.
  package mutating func count(_ verdict: FlowVerdict, _ count: UInt64 = 1) {
    flows.counters.add(verdict, count)
  }
}

/// Moves datagrams between the batches of the clients and those of the tunnel:
///
///     var next = 0                               // outward
///     while next < clients.count {
///       batch.reset()
///       next = forwarder.forward(from: clients, at: next, &channel, into: &batch, at: now)
///       tunnel.plan(&batch, at: now)
///       while batch.seal() { send the outputs of batch }
///       tunnel.emit(&batch, at: now)
///     }
///
///     tunnel.deliver(&batch, at: now)            // inward
///     var next = 0
///     while next < batch.count {
///       answers.reset()
///       next = forwarder.collectAnswers(from: batch, at: next, &channel, into: &answers, at: now)
///       send the answers
///       channel.release()
///     }
extension Forwarder {
  /// Appends clients' datagrams from `index` on to `batch`, which must be empty, as long as there
  /// is room. They must stay in place until the batch has been emitted.
  ///
  /// - Returns: the index at which to continue.
  package mutating func forward(
    from clients: borrowing ForwarderBatch, at index: Int, _ channel: inout DatagramChannel,
    into batch: inout OutboundBatch, at now: Instant
  ) -> Int {
    var index = index
    while index < clients.count {
      let datagram = clients[index]
      if let route = route(Int(datagram.mapping), from: datagram.client, at: now) {
        switch channel.send(
          datagram.bytes, from: route.port, to: route.target,
          trafficClass: datagram.trafficClass, into: &batch, at: now)
        {
        case .sent: count(.sent)
        case .batchFull: return index
        case .refused: count(.unsent)
        }
      }
      index &+= 1
    }
    return index
  }

  /// Appends the answers among the packets that `batch` has delivered, from `index` on, to
  /// `answers`, which must be empty, as long as there is room. The datagrams are valid until
  /// `channel.release`.
  ///
  /// - Returns: the index at which to continue.
  package mutating func collectAnswers(
    from batch: borrowing InboundBatch, at index: Int, _ channel: inout DatagramChannel,
    into answers: inout ForwarderBatch, at now: Instant
  ) -> Int {
    var index = index
    while index < batch.count, answers.hasPlace, channel.lentCount < Reassembler.slots / 2 {
      if let packet = batch.delivered(index) {
        collectAnswer(packet, from: batch.sender(index), &channel, into: &answers, at: now)
      }
      index &+= 1
    }
    return index
  }

  /// Processes a packet that the tunnel has delivered. If it is an answer, appends it.
  mutating func collectAnswer(
    _ packet: UnsafeMutableRawBufferPointer, from sender: UInt32, _ channel: inout DatagramChannel,
    into answers: inout ForwarderBatch, at now: Instant
  ) {
    let (targets, count) = (targets, mappingCount)
    let received = channel.receive(packet, from: sender, at: now) { source in
      for index in 0..<count where targets[index].address == source { return true }
      return false
    }
    switch received {
    case .datagram(let bytes, let endpoint, let port, let trafficClass):
      guard let answer = answer(from: endpoint, to: port, at: now) else { return }
      answers.append(bytes, answer.client, answer.mapping, trafficClass)
    case .unreachable(let endpoint, let port, let isPortClosed):
      guard let closed = close(endpoint, from: port), isPortClosed else { return }
      answers.append(
        UnsafeMutableRawBufferPointer(start: nil, count: 0), closed.client, closed.mapping, 0,
        now < aliveUntil[closed.mapping] ? .refusal : .refusalOfAll)
    case .nothing: break
    }
  }
}

/// Datagrams from or to a forwarder's clients: a table of fixed size, and memory for datagrams that
/// are received from clients.
///
///     | lead | headroom | datagram | lead | headroom | datagram | ... slack |
///
/// The headroom is for the IP and UDP headers, which turn the datagram into a packet in place. The
/// cipher may read the lead and the slack.
package struct ForwarderBatch: ~Copyable {
  package struct Datagram: BitwiseCopyable {
    /// A datagram from a client (in the batch's memory), or to a client (outside it).
    package let bytes: UnsafeMutableRawBufferPointer
    /// The client, and the local address that it uses.
    package let client: Path
    package let mapping: UInt8
    package let trafficClass: UInt8
    package let kind: Kind
  }

  package enum Kind: UInt8, BitwiseCopyable {
    case datagram
    /// No datagram: the client is told that the destination's port is closed (R67).
    case refusal
    /// The same, and the destination has not answered anybody for a while. So other clients of the
    /// mapping may be refused too.
    case refusalOfAll
  }

  private let bytes: UnsafeMutableRawBufferPointer
  private let datagrams: UnsafeMutableBufferPointer<Datagram>
  private var used = 0
  package private(set) var count = 0

  static let owner: StaticString = "flows: datagrams on their way"
  private static let before = BatchLayout.lead + DatagramChannel.headroom
  /// Bytes that one datagram of the largest size needs.
  private static let leastByteCount =
    before + BatchLayout.maximumDatagram + BatchLayout.slack

  /// - Parameter receives: whether the batch needs memory for datagrams from clients.
  package init(carvingFrom arena: inout Arena, limits: Limits, receives: Bool) {
    bytes = arena.carveBytes(
      receives ? max(limits.batchByteCount, ForwarderBatch.leastByteCount) : 0,
      owner: ForwarderBatch.owner)
    let size = limits.batchPackets * MemoryLayout<Datagram>.stride
    datagrams = UnsafeMutableBufferPointer(
      start: arena.carveBytes(size, owner: ForwarderBatch.owner).baseAddress!
        .assumingMemoryBound(to: Datagram.self), count: limits.batchPackets)
  }

  package mutating func reset() {
    used = 0
    count = 0
  }

  /// Room for a datagram of any size; nil if the batch is full.
  package func room() -> UnsafeMutableRawBufferPointer? {
    let start = used + ForwarderBatch.before
    guard hasPlace, start + BatchLayout.maximumDatagram + BatchLayout.slack <= bytes.count else {
      return nil
    }
    return UnsafeMutableRawBufferPointer(
      start: bytes.baseAddress! + start, count: BatchLayout.maximumDatagram)
  }

  /// Appends the datagram that was written to the room last returned.
  package mutating func append(
    byteCount: Int, from client: Path, on mapping: Int, trafficClass: UInt8
  ) {
    guard let room = room() else { return }
    precondition(byteCount >= 0 && byteCount <= room.count)
    used = roundUp(
      used + ForwarderBatch.before + byteCount, to: BatchLayout.alignment)
    append(
      UnsafeMutableRawBufferPointer(rebasing: room[..<byteCount]), client, mapping, trafficClass)
  }

  /// Whether the table has a place for another datagram.
  var hasPlace: Bool { count < datagrams.count }

  /// Appends a datagram outside the batch's memory.
  mutating func append(
    _ bytes: UnsafeMutableRawBufferPointer, _ client: Path, _ mapping: Int, _ trafficClass: UInt8,
    _ kind: Kind = .datagram
  ) {
    precondition(hasPlace)
    datagrams.initializeElement(
      at: count,
      to: Datagram(
        bytes: bytes, client: client, mapping: UInt8(truncatingIfNeeded: mapping),
        trafficClass: trafficClass, kind: kind))
    count += 1
  }

  package subscript(index: Int) -> Datagram {
    precondition(index >= 0 && index < count)
    return datagrams[index]
  }
}
