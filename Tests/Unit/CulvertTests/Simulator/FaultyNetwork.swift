#if !ONE_MODULE
  @testable import Culvert
#endif

/// The datagrams in flight between hosts, and what happens to them. Each host has one port at a
/// time; whatever arrives at another port is lost.
struct FaultyNetwork {
  struct Flight {
    var source: Endpoint
    var target: Endpoint
    var bytes: [UInt8]
    var isTruncated = false
  }

  /// A flight in the heap: its time of arrival, and its place in `flights`. Of flights that arrive
  /// at the same time, the one sent first is first.
  private struct Due {
    var time: UInt64
    var number: UInt64
    var place: Int

    static func < (left: Due, right: Due) -> Bool {
      left.time != right.time ? left.time < right.time : left.number < right.number
    }
  }

  private var heap: [Due] = []
  private var flights: [Flight] = []
  private var freePlaces: [Int] = []
  private var sentCount: UInt64 = 0
  /// Earlier datagrams, for an attacker to replay.
  private var past: [Flight] = []

  private var generators: [SeededGenerator] = []
  private var chances: [UInt64] = []
  private let maximumDelay: UInt64
  /// Whether the network no longer has faults.
  var isHealed = false

  /// The host at each port; -1 for none.
  private var hosts: [Int] = []
  /// The side of a partition that each host is on; empty if there is none.
  var sides: [Bool] = []

  /// Upper limit of `maximumDelay`.
  static let longestDelay = 4 * nanosecondsPerSecond
  static let firstPort = 1000
  /// The attacker's own address, from which old datagrams come again.
  static let attacker = Endpoint(address: IPAddress(ipv4: 203 << 24 | 113 << 8 | 1), port: 6)
  /// From here, only datagrams come that are not authentic, so no peer may ever seem to be here.
  static let forger = Endpoint(address: IPAddress(ipv4: 203 << 24 | 113 << 8 | 1), port: 7)

  init(_ plan: SimulationPlan) {
    for fault in Fault.allCases {
      generators.append(plan.generator(4, UInt64(fault.rawValue)))
      chances.append(plan.chance(of: fault))
    }
    var generator = plan.generator(5)
    maximumDelay = [5, 50, 800, 4000].pick(&generator) * nanosecondsPerMillisecond
  }

  // MARK: Addresses

  /// A port that no host has had.
  mutating func makeEndpoint(of host: Int) -> Endpoint {
    hosts.append(host)
    let port = UInt16(FaultyNetwork.firstPort + hosts.count - 1)
    return Endpoint(
      address: port % 3 == 0
        ? IPAddress(ipv6High: 0x2001_0db8 << 32, low: 1) : IPAddress(ipv4: 192 << 24 | 2 << 8 | 1),
      port: port)
  }

  mutating func close(_ endpoint: Endpoint) {
    hosts[Int(endpoint.port) - FaultyNetwork.firstPort] = -1
  }

  /// The host that has this endpoint now; nil for none.
  func host(at endpoint: Endpoint) -> Int? {
    let place = Int(endpoint.port) - FaultyNetwork.firstPort
    guard hosts.indices.contains(place), hosts[place] >= 0 else { return nil }
    return hosts[place]
  }

  // MARK: Sending

  private mutating func happens(_ fault: Fault) -> Bool {
    let place = Int(fault.rawValue)
    guard !isHealed, chances[place] > 0 else { return false }
    return generators[place].happens(chances[place])
  }

  /// Whether the kernel refuses the next datagram.
  mutating func refuses() -> Bool { happens(.refusal) }

  mutating func send(
    _ bytes: [UInt8], from host: Int, _ source: Endpoint, to target: Endpoint, at now: Instant
  ) {
    if !sides.isEmpty, let other = self.host(at: target), sides[host] != sides[other] { return }
    var flight = Flight(source: source, target: target, bytes: bytes)
    if !happens(.loss) { launch(flight, at: now) }
    if happens(.duplication) { launch(flight, at: now) }
    if happens(.corruption) { launch(corrupted(flight), at: now) }
    if happens(.truncation) {
      flight.isTruncated = true
      launch(flight, at: now)
      flight.isTruncated = false
    }
    guard chances[Int(Fault.replay.rawValue)] > 0 else { return }
    past.append(flight)
    if past.count > 300 { past.removeFirst(150) }
    if happens(.replay) {
      let place = Int(Fault.replay.rawValue)
      var old = past.pick(&generators[place])
      if generators[place].next() % 2 == 0 { old.source = FaultyNetwork.attacker }
      launch(old, at: now)
    }
  }

  /// Changes one bit. If that makes it invalid, it comes from the forger in half of the cases.
  private mutating func corrupted(_ flight: Flight) -> Flight {
    var flight = flight
    let place = Int(Fault.corruption.rawValue)
    let bit = generators[place].below(8 * flight.bytes.count)
    flight.bytes[bit / 8] ^= 1 << UInt8(bit % 8)
    // Without load, mac2 is ignored.
    let isIgnored =
      flight.bytes[0] != MessageType.transportData.rawValue
      && bit / 8 >= flight.bytes.count - Cookie.trailerByteCount / 2
    if !isIgnored, generators[place].next() % 2 == 0 { flight.source = FaultyNetwork.forger }
    return flight
  }

  /// Sends a datagram that only looks right.
  mutating func inject(_ bytes: [UInt8], to target: Endpoint, at now: Instant) {
    launch(Flight(source: FaultyNetwork.forger, target: target, bytes: bytes), at: now)
  }

  private mutating func launch(_ flight: Flight, at now: Instant) {
    var delay = nanosecondsPerMillisecond
    let place = Int(Fault.delay.rawValue)
    if happens(.delay) { delay += generators[place].next() % maximumDelay }
    let free = freePlaces.popLast() ?? flights.count
    let due = Due(time: now.nanoseconds + delay, number: sentCount, place: free)
    sentCount += 1
    if due.place == flights.count { flights.append(flight) } else { flights[due.place] = flight }
    push(due)
  }

  // MARK: Arriving

  var nextArrival: UInt64 { heap.first?.time ?? .max }

  /// Removes and returns the next datagram that has arrived, with the host that it has arrived at.
  mutating func nextArrival(at now: Instant) -> (host: Int, flight: Flight)? {
    while let due = heap.first, due.time <= now.nanoseconds {
      pop()
      freePlaces.append(due.place)
      let flight = flights[due.place]
      if let host = host(at: flight.target) { return (host, flight) }
    }
    return nil
  }

  private mutating func push(_ due: Due) {
    heap.append(due)
    var place = heap.count - 1
    while place > 0, due < heap[(place - 1) / 2] {
      heap[place] = heap[(place - 1) / 2]
      place = (place - 1) / 2
    }
    heap[place] = due
  }

  private mutating func pop() {
    let last = heap.removeLast()
    guard !heap.isEmpty else { return }
    var place = 0
    while true {
      var child = 2 * place + 1
      guard child < heap.count else { break }
      if child + 1 < heap.count, heap[child + 1] < heap[child] { child += 1 }
      guard heap[child] < last else { break }
      heap[place] = heap[child]
      place = child
    }
    heap[place] = last
  }
}
