/// Datagrams between local sockets and fixed destinations inside the tunnel, without a TUN.
///
/// Each mapping is a local socket and the destination that its clients' datagrams go to. The
/// forwarder knows which client stands behind which port inside the tunnel; the datagrams lie in
/// batches, and go (`Forwarder+Carry`):
///
///     out   the shell receives from clients into a ForwarderBatch -> `route` -> DatagramChannel
///     in    the tunnel has delivered -> DatagramChannel -> `answer`, or `close`
///           -> a ForwarderBatch -> the shell sends to clients
///
/// Answers count only from a mapping's destination itself, address and port: what else arrives in
/// the tunnel cannot reach a client.
public struct Forwarder: ~Copyable {
  private let targets: UnsafeMutablePointer<Endpoint>
  private var flows: FlowTable
  public private(set) var mappingCount = 0

  /// Mappings of one forwarder, each with a socket.
  public static let mappingCapacity = 32
  /// The local ports that the channel has to take.
  public static let firstPort = FlowTable.firstPort
  public static let portCount = FlowTable.portCount
  /// More flows than this have no ports to tell them apart.
  public static let maximumFlows = FlowTable.maximumCapacity

  /// The way of a client's datagram.
  struct Route: BitwiseCopyable {
    /// Local, inside the tunnel.
    let port: UInt16
    let target: Endpoint
  }

  /// The way of a destination's datagram.
  struct Answer: BitwiseCopyable {
    /// Index of the mapping whose socket it leaves by.
    let mapping: Int
    /// To whom, and from which of our addresses.
    let client: Path
  }

  public init(carvingFrom arena: inout Arena, limits: Limits, times: FlowTimes = FlowTimes()) {
    targets =
      arena.carve(
        Endpoint.self, count: Forwarder.mappingCapacity, owner: "flows: destinations"
      ).baseAddress!
    flows = FlowTable(carvingFrom: &arena, limits: limits, times: times)
  }

  /// Once, before anything else.
  ///
  /// - Parameter seed: random.
  public mutating func start(seed: UInt64) {
    flows.start(seed: seed)
  }

  /// Adds a mapping, whose index is the count of those before it. False: there are 32 already.
  public mutating func addMapping(to target: Endpoint) -> Bool {
    guard mappingCount < Forwarder.mappingCapacity else { return false }
    (targets + mappingCount).initialize(to: target)
    mappingCount += 1
    return true
  }

  // MARK: Datagrams

  /// Where a datagram goes that `client` has sent to a mapping's socket; nil where the table is
  /// full, which is counted.
  mutating func route(
    _ mapping: Int, from client: Path, at now: Instant
  ) -> Route? {
    precondition(mapping >= 0 && mapping < mappingCount)
    guard
      let place = flows.send(from: client, on: UInt8(truncatingIfNeeded: mapping), at: now)
    else { return nil }
    return Route(port: flows[place].port, target: targets[mapping])
  }

  /// Whose answer a datagram is that has come from `sender` to a port of ours; nil where it is
  /// nobody's, which is counted.
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
    return Answer(mapping: Int(flow.mapping), client: flow.client)
  }

  /// An ICMP error says that `target` cannot be reached from a port of ours: its flow ends, and the
  /// client's next datagram opens another. Nothing where the port never sent there.
  mutating func close(_ target: Endpoint, from port: UInt16) {
    guard let place = flows.find(port: port), isTarget(target, of: flows[place]) else { return }
    flows.close(place, .unreachable)
  }

  private func isTarget(_ endpoint: Endpoint, of flow: Flow) -> Bool {
    let target = targets[Int(flow.mapping)]
    return endpoint.address == target.address && endpoint.port == target.port
  }

  // MARK: Time and counters

  /// Closes the flows whose time is over.
  public mutating func advance(at now: Instant) { flows.expire(at: now) }

  /// When `advance` has something to do.
  public var nextDeadline: Deadline { flows.nextDeadline }

  /// Flows that are open.
  public var flowCount: Int { flows.count }

  public var counters: Tally<FlowVerdict> { flows.counters }

  /// Counts what became of datagrams that were given a way.
  public mutating func count(_ verdict: FlowVerdict, _ count: UInt64 = 1) {
    flows.counters.add(verdict, count)
  }
}

/// Between clients' datagrams and the packets of the tunnel:
///
///     var next = 0                               // outward
///     while next < clients.count {
///       batch.reset()
///       next = forwarder.carry(from: clients, at: next, &channel, into: &batch, at: now)
///       tunnel.plan(&batch, at: now)
///       while batch.seal() { send the outputs of batch }
///       tunnel.emit(&batch, at: now)
///     }
///
///     tunnel.deliver(&batch, at: now)            // inward
///     var next = 0
///     while next < batch.count {
///       answers.reset()
///       next = forwarder.carry(from: batch, at: next, &channel, into: &answers, at: now)
///       send the answers
///       channel.release()
///     }
extension Forwarder {
  /// Puts clients' datagrams from `index` on into `batch`, which is empty, as far as there is room,
  /// and tells the index to go on at. They stay where they are until the batch has been emitted.
  public mutating func carry(
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

  /// Puts the answers among the packets that `batch` has delivered, from `index` on, into
  /// `answers`, which is empty, as far as there is room, and tells the index to go on at. They stay
  /// where they are until `channel.release`.
  public mutating func carry(
    from batch: borrowing InboundBatch, at index: Int, _ channel: inout DatagramChannel,
    into answers: inout ForwarderBatch, at now: Instant
  ) -> Int {
    var index = index
    while index < batch.count, answers.hasPlace, channel.lentCount < Reassembler.slots / 2 {
      if let packet = batch.delivered(index) {
        carry(packet, from: batch.sender(index), &channel, into: &answers, at: now)
      }
      index &+= 1
    }
    return index
  }

  /// A packet that the tunnel has delivered.
  mutating func carry(
    _ packet: UnsafeMutableRawBufferPointer, from sender: UInt32, _ channel: inout DatagramChannel,
    into answers: inout ForwarderBatch, at now: Instant
  ) {
    switch channel.receive(packet, from: sender, at: now) {
    case .datagram(let bytes, let endpoint, let port, let trafficClass):
      guard let answer = answer(from: endpoint, to: port, at: now) else { return }
      answers.append(bytes, answer.client, answer.mapping, trafficClass)
    case .unreachable(let endpoint, let port): close(endpoint, from: port)
    case .nothing: break
    }
  }
}

extension Tunnel {
  /// Whether some peer's allowed IPs cover `address`.
  public func hasRoute(to address: IPAddress) -> Bool { allowedIPs.route(address) != nil }
}

/// Datagrams of a forwarder's clients on their way: fixed tables, and for those that come from
/// clients the memory that they are received into.
///
///     | lead | headroom | datagram | lead | headroom | datagram | ... slack |
///
/// The headroom takes the headers of the packet that the datagram becomes where it stands. The lead
/// and the slack are what the cipher may read, and the lead what an ICMP error in front of the
/// packet may overwrite.
public struct ForwarderBatch: ~Copyable {
  public struct Datagram: BitwiseCopyable {
    /// Where a datagram from a client stands in the batch, or one to a client elsewhere.
    public let bytes: UnsafeMutableRawBufferPointer
    /// From or to whom, and which address of ours he asked.
    public let client: Path
    public let mapping: UInt8
    public let trafficClass: UInt8
  }

  private let bytes: UnsafeMutableRawBufferPointer
  private let datagrams: UnsafeMutableBufferPointer<Datagram>
  private var used = 0
  public private(set) var count = 0

  static let owner: StaticString = "flows: datagrams on their way"
  private static let before = BatchLayout.lead + DatagramChannel.headroom
  /// One datagram of any size.
  private static let leastByteCount =
    before + BatchLayout.maximumDatagram + BatchLayout.slack

  /// - Parameter receives: whether datagrams from clients are received into its own memory.
  public init(carvingFrom arena: inout Arena, limits: Limits, receives: Bool) {
    bytes = arena.carveBytes(
      receives ? max(limits.batchByteCount, ForwarderBatch.leastByteCount) : 0,
      owner: ForwarderBatch.owner)
    let size = limits.batchPackets * MemoryLayout<Datagram>.stride
    datagrams = UnsafeMutableBufferPointer(
      start: arena.carveBytes(size, owner: ForwarderBatch.owner).baseAddress!
        .assumingMemoryBound(to: Datagram.self), count: limits.batchPackets)
  }

  public mutating func reset() {
    used = 0
    count = 0
  }

  /// Room for a datagram of any size; nil where the batch is full.
  public func room() -> UnsafeMutableRawBufferPointer? {
    let start = used + ForwarderBatch.before
    guard hasPlace, start + BatchLayout.maximumDatagram + BatchLayout.slack <= bytes.count else {
      return nil
    }
    return UnsafeMutableRawBufferPointer(
      start: bytes.baseAddress! + start, count: BatchLayout.maximumDatagram)
  }

  /// Takes the datagram that was written into the room last given.
  public mutating func append(
    byteCount: Int, from client: Path, on mapping: Int, trafficClass: UInt8
  ) {
    guard let room = room() else { return }
    precondition(byteCount >= 0 && byteCount <= room.count)
    used = roundUp(
      used + ForwarderBatch.before + byteCount, to: BatchLayout.alignment)
    append(
      UnsafeMutableRawBufferPointer(rebasing: room[..<byteCount]), client, mapping, trafficClass)
  }

  /// Whether another datagram finds a place in the table.
  var hasPlace: Bool { count < datagrams.count }

  /// Takes a datagram that stands elsewhere.
  mutating func append(
    _ bytes: UnsafeMutableRawBufferPointer, _ client: Path, _ mapping: Int, _ trafficClass: UInt8
  ) {
    precondition(hasPlace)
    datagrams.initializeElement(
      at: count,
      to: Datagram(
        bytes: bytes, client: client, mapping: UInt8(truncatingIfNeeded: mapping),
        trafficClass: trafficClass))
    count += 1
  }

  public subscript(index: Int) -> Datagram {
    precondition(index >= 0 && index < count)
    return datagrams[index]
  }
}
