@testable import Culvert

/// The datagrams in flight, and the faults that the seed decides.
struct SimulatedNetwork {
  private struct Flight {
    var due: Instant
    var source: Endpoint
    var target: Endpoint
    var bytes: [UInt8]
    var isTruncated = false
  }

  /// In order of arrival, so that one step looks only at what has arrived, however many are in
  /// flight.
  private var flights: [Flight] = []
  /// Earlier datagrams, for an attacker to replay.
  private var past: [Flight] = []
  private var generator: SeededGenerator
  private let options: SimulationOptions
  /// Whether the network no longer has faults.
  var isHealed = false
  /// Two ports between which nothing passes.
  var partitioned: (UInt16, UInt16)?

  init(seed: UInt64, options: SimulationOptions) {
    generator = SeededGenerator(seed: seed)
    self.options = options
  }

  var nextArrival: Instant? { flights.first?.due }

  private mutating func happens(_ chance: UInt64) -> Bool {
    !isHealed && generator.next() % 1000 < chance
  }

  mutating func send(_ emission: Emission, from source: Endpoint, at now: Instant) {
    let target = emission.path.endpoint
    if let (left, right) = partitioned,
      (source.port, target.port) == (left, right) || (target.port, source.port) == (left, right)
    {
      return
    }
    guard !happens(options.loss) else { return }
    var flight = Flight(
      due: now, source: source, target: target, bytes: emission.bytes)
    launch(flight, at: now)
    if happens(options.duplication) { launch(flight, at: now) }
    if happens(options.corruption) {
      let bit = generator.next() % UInt64(8 * flight.bytes.count)
      flight.bytes[Int(bit / 8)] ^= 1 << (bit % 8)
      launch(flight, at: now)
    }
    if happens(options.truncation) {
      flight.isTruncated = true
      launch(flight, at: now)
    }
    past.append(flight)
    if past.count > 300 { past.removeFirst(150) }
    if happens(options.replay), var old = past.randomElement(using: &generator) {
      // Sometimes the attacker sends it from its own address.
      if generator.next() % 2 == 0 { old.source = Endpoint(address: ipv4(203, 0, 113, 1), port: 6) }
      launch(old, at: now)
    }
  }

  private mutating func launch(_ flight: Flight, at now: Instant) {
    var flight = flight
    let delay = isHealed ? nanosecondsPerMillisecond : options.maximumDelay
    flight.due = now.advanced(by: generator.next() % delay)
    flights.insert(flight, at: count(dueBy: flight.due))
  }

  /// Removes and returns the datagrams that have arrived at `target`, in order of arrival.
  mutating func arrivals(at target: Endpoint, now: Instant) -> [Arrival] {
    let arrived = flights[..<count(dueBy: now)]
    guard arrived.contains(where: { $0.target == target }) else { return [] }
    let arrivals = arrived.filter { $0.target == target }
      .map { Arrival($0.bytes, from: $0.source, isTruncated: $0.isTruncated) }
    flights.replaceSubrange(arrived.indices, with: arrived.filter { $0.target != target })
    return arrivals
  }

  /// How many flights arrive at or before an instant, found by binary search.
  private func count(dueBy now: Instant) -> Int {
    var (low, high) = (0, flights.count)
    while low < high {
      let middle = (low + high) / 2
      if flights[middle].due <= now { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// Drops datagrams that have arrived at endpoints that no node uses any more.
  mutating func dropStray(now: Instant) {
    flights.removeFirst(count(dueBy: now))
  }
}

/// The options that a simulation's seed decides.
struct SimulationOptions {
  var nodeCount: Int
  var limits: Limits
  /// Chances out of 1000, for each datagram.
  var loss: UInt64
  var duplication: UInt64
  var replay: UInt64
  var corruption: UInt64
  var truncation: UInt64
  /// Upper limit of each datagram's random delay.
  var maximumDelay: UInt64
  /// Chances out of 1000, for each second.
  var partition: UInt64
  var clockJump: UInt64
  var roaming: UInt64
  var flap: UInt64
  var removal: UInt64
  /// Mean time between two packets of all nodes.
  var packetInterval: UInt64
  /// Time with faults, before the network heals.
  var duration: UInt64
  /// Chance out of 1000 that a packet has a segmentation offload.
  var segmentation: UInt64
  /// Datagrams arrive coalesced, and packets are written joined.
  var gluesDatagrams: Bool
  var joinsPackets: Bool
  /// Stride of the cipher; see `TransportCipher`.
  var stride: Int

  init(seed: UInt64) {
    var generator = SeededGenerator(seed: seed ^ 0x6f70_7469_6f6e_73)
    let upTo = { (bound: UInt64) in generator.next() % (bound + 1) }
    nodeCount = 2 + Int(upTo(2))
    limits = upTo(1) == 0 ? .shrunken() : .roomy
    if upTo(2) == 0 { limits.stagingSlots = 3 }
    loss = upTo(200)
    duplication = upTo(100)
    replay = upTo(50)
    corruption = upTo(30)
    truncation = upTo(10)
    maximumDelay = [1, 50, 800, 4000][Int(upTo(3))] * nanosecondsPerMillisecond
    partition = upTo(20)
    clockJump = upTo(20)
    roaming = upTo(20)
    flap = upTo(6)
    removal = upTo(6)
    packetInterval = [300, 700, 2000][Int(upTo(2))] * nanosecondsPerMillisecond
    duration = 400 * nanosecondsPerSecond
    segmentation = upTo(500)
    gluesDatagrams = upTo(2) != 0
    joinsPackets = upTo(2) != 0
    stride = [0, 64, 256, 512][Int(upTo(3))]
  }
}
