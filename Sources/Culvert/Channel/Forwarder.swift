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

  public var counters: FlowCounters { flows.counters }

  /// Counts what became of datagrams that were given a way.
  public mutating func count(_ verdict: FlowVerdict, _ count: UInt64 = 1) {
    flows.counters.add(verdict, count)
  }
}
