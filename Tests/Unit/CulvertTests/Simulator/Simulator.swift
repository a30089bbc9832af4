#if !ONE_MODULE
  @testable import Culvert
#endif

/// Hosts with tunnels to each other, a faulty network, and programs that exchange packets. First
/// there is trouble, then it ends, and everything must work again. A plan decides everything, so
/// that a run can be repeated.
final class Simulator {
  /// Something that must never happen.
  struct Problem {
    var text: String
    var host: Int
    var now: Instant
  }

  let plan: SimulationPlan
  let links: [(Int, Int)]
  private(set) var hosts: [SimulatedHost] = []
  var network: FaultyNetwork
  var packets = PacketBook()
  let keys = KeyBook()
  var now = Simulator.start
  private(set) var problem: Problem?
  /// Prints what happens, for one run.
  var log: ((String) -> Void)?

  // What the events need; see `Simulator+Events`.
  var tasks: [Task] = []
  var happened: [SimulationPlan.Event] = []
  var presharedKeys: [[Int]: [UInt8]] = [:]
  var lostState: Set<Int> = []
  var keyCount: UInt64 = 0
  /// When a monotonic clock has last leapt.
  var lastLeap: Instant?

  /// Packets that were delivered since the start of a round, by sender and receiver.
  var arrived: Set<[Int]> = []
  /// Nanoseconds that it took until all pairs had exchanged a packet.
  var recovery: UInt64 = 0

  private var traffic: SeededGenerator
  private var wakes: [UInt64] = []
  private var isTouched: [Bool] = []
  private let glues: Bool
  private let batches: BatchMemory

  static let start = Instant(nanoseconds: 1_000 * nanosecondsPerSecond)

  init(_ plan: SimulationPlan) {
    self.plan = plan
    links = plan.links
    network = FaultyNetwork(plan)
    traffic = plan.generator(6)
    var generator = plan.generator(7)
    glues = generator.next() % 2 == 0
    batches = BatchMemory(plan.limits(of: 1, linkCount: 1))
    let stride = [0, 64, 256, 512].pick(&generator)
    let latency = [0, 1, 20, 400].pick(&generator) * nanosecondsPerMillisecond
    let keepalive = generator.next() % 3 == 0 ? [5, 25].pick(&generator) : 0
    var linkCounts = [Int](repeating: 0, count: plan.hostCount)
    for link in links {
      linkCounts[link.0] += 1
      linkCounts[link.1] += 1
    }
    for number in 0..<plan.hostCount {
      let host = SimulatedHost(
        number: number, seed: plan.seed,
        limits: plan.limits(of: number, linkCount: linkCounts[number]), batches: batches.end,
        endpoint: network.makeEndpoint(of: number), privateKey: makePrivateKey())
      host.joins = glues
      host.stride = stride
      host.disk.latency = latency
      hosts.append(host)
      wakes.append(.max)
      isTouched.append(true)
    }
    for (left, right) in links {
      introduce(left, at: right, keepalive: UInt16(keepalive))
      introduce(right, at: left, keepalive: 0)
      // A hub does not know where its clients are.
      if plan.isHub {
        hosts[left].forgetEndpoint(of: hosts[right].publicKey)
      }
    }
    for host in hosts { host.start(at: now, clock: generator.next() % (1 << 40)) }
  }

  func fail(_ text: String?, _ host: Int) {
    if let text, problem == nil { problem = Problem(text: text, host: host, now: now) }
  }

  /// Seconds since the start.
  func time(_ instant: Instant) -> String {
    let microseconds = instant.since(Simulator.start) / 1000
    let fraction = String(microseconds % 1_000_000 + 1_000_000).dropFirst()
    return "\(microseconds / 1_000_000).\(fraction)"
  }

  func note(_ text: @autoclosure () -> String) {
    if let log { log("\(time(now)) \(text())") }
  }

  func touch(_ host: Int) { isTouched[host] = true }

  /// How often the tunnels have given a verdict, since each has last started.
  func count(_ verdict: Verdict) -> UInt64 {
    hosts.reduce(0) { $0 + $1.tunnel.counters[verdict] }
  }

  // MARK: The run

  func run() {
    makeTrouble()
    heal()
    checkLiveness()
    checkSilence()
    for host in hosts where !host.isGuardIntact { fail("written beyond the arena", host.number) }
  }

  private func makeTrouble() {
    let end = now.advanced(by: plan.seconds * nanosecondsPerSecond)
    let interval =
      (plan.isHub ? 20 : [200, 700, 2000].pick(&traffic)) * nanosecondsPerMillisecond
    var nextPackets = now
    var second: UInt64 = 0
    while now < end, problem == nil {
      if nextPackets <= now {
        writePackets()
        nextPackets = now.advanced(by: 1 + traffic.next() % (2 * interval))
      }
      let nextSecond = Simulator.start.advanced(by: second * nanosecondsPerSecond)
      if nextSecond <= now {
        runTasks()
        causeEvents(second)
        second += 1
      }
      step()
      now = max(now, min(nextTime, min(nextPackets, nextSecond, end)))
    }
  }

  /// Lets time pass without new packets.
  func pass(_ duration: UInt64) {
    let end = now.advanced(by: duration)
    while problem == nil {
      step()
      guard nextTime < end else { break }
      now = max(now, nextTime)
    }
    now = end
  }

  /// When the next timer fires or the next datagram arrives.
  private var nextTime: Instant {
    var time = network.nextArrival
    for wake in wakes where wake < time { time = wake }
    return Instant(nanoseconds: time)
  }

  /// Delivers all datagrams that have arrived, and runs all timers that are due.
  private func step() {
    while let (host, flight) = network.nextArrival(at: now) {
      note("\(host) < \(flight.source.port) \(Simulator.summary(of: flight.bytes))")
      // A socket's buffer is limited too.
      guard hosts[host].isRunning, hosts[host].inbox.count < 1024 else { continue }
      hosts[host].inbox.append(
        Arrival(flight.bytes, from: flight.source, isTruncated: flight.isTruncated))
      isTouched[host] = true
    }
    for number in hosts.indices where isTouched[number] || wakes[number] <= now.nanoseconds {
      isTouched[number] = false
      serve(hosts[number])
      wakes[number] = hosts[number].wake(now)
    }
  }

  private func serve(_ host: SimulatedHost) {
    guard host.isRunning, host.resume <= now else { return }
    if !host.inbox.isEmpty {
      if glues { host.inbox = Arrival.glued(host.inbox) }
      host.receive(at: now) { judge($0, at: host) }
    }
    if !host.settle(at: now, { send($0, from: host, to: $1) }) {
      fail("the control path does not come to rest", host.number)
    }
    fail(host.invariants.check(host, at: now, isThorough: false), host.number)
  }

  private func judge(_ packet: UnsafeRawBufferPointer, at host: SimulatedHost) {
    switch packets.deliver(packet, at: host.number) {
    case .wrong(let text): fail(text, host.number)
    case .delivered(let delivery):
      if host.settings.route(delivery.claimed) != delivery.source {
        fail("a packet has a source that is not allowed", host.number)
      }
      note("\(host.number) gets a packet of \(delivery.source)")
      arrived.insert([delivery.source, host.number])
    }
  }

  private func send(
    _ datagram: UnsafeRawBufferPointer, from host: SimulatedHost, to target: Endpoint
  ) -> Bool {
    fail(keys.inspect(datagram, from: host, at: now), host.number)
    guard !network.refuses() else { return false }
    note("\(host.number) > \(target.port) \(Simulator.summary(of: [UInt8](datagram)))")
    network.send([UInt8](datagram), from: host.number, host.endpoint, to: target, at: now)
    return true
  }

  private static func summary(of datagram: [UInt8]) -> String {
    guard datagram.count >= 16 else { return "\(datagram.count) bytes" }
    let word = { (offset: Int) in
      (0..<4).reduce(UInt32(0)) { $0 | UInt32(datagram[offset + $1]) << (8 * $1) }
    }
    switch datagram[0] {
    case 1: return "initiation \(word(4))"
    case 2: return "response \(word(4)) to \(word(8))"
    case 3: return "cookie reply to \(word(4))"
    case 4: return "data \(word(8)) to \(word(4)), \(datagram.count) bytes"
    default: return "\(datagram.count) bytes"
    }
  }

  // MARK: Packets

  private func writePackets() {
    let link = links.pick(&traffic)
    let (source, target) = traffic.next() % 2 == 0 ? link : (link.1, link.0)
    // Also for hosts that it does not know.
    let addressee = traffic.happens(20) ? traffic.below(plan.hostCount + 2) : target
    var list: [TunPacket] = []
    for _ in 0...traffic.below(5) {
      let claimed =
        traffic.happens(plan.chance(of: .forgery)) ? traffic.below(plan.hostCount) : source
      let isSegmented = traffic.happens(plan.chance(of: .segments))
      list.append(
        packets.write(
          from: source, claiming: claimed, to: addressee,
          target: hosts[source].settings.route(addressee),
          byteCount: isSegmented
            ? 8 + traffic.below(60) : traffic.happens(10) ? 5000 : traffic.below(400),
          isIPv6: traffic.happens(300), segmentCount: isSegmented ? 1 + traffic.below(12) : 0))
    }
    write(list, from: source)
  }

  /// Writes one small packet, to see whether it arrives.
  func writeProbe(from source: Int, to target: Int) {
    let packet = packets.write(
      from: source, claiming: source, to: target, target: hosts[source].settings.route(target),
      byteCount: 64, isIPv6: false)
    write([packet], from: source)
  }

  private func write(_ list: [TunPacket], from source: Int) {
    let host = hosts[source]
    guard host.isRunning, host.settings.isUp, host.resume <= now else { return }
    host.write(list, at: now) { send($0, from: host, to: $1) }
    touch(source)
  }
}

/// The batches that all hosts of a simulation use in turn.
final class BatchMemory {
  let end: TunnelEnd
  private let region: UnsafeMutableRawBufferPointer

  init(_ limits: Limits) {
    region = .allocate(byteCount: 1 << 20, alignment: Arena.pageByteCount)
    region.initializeMemory(as: UInt8.self, repeating: 0)
    var arena = Arena(region: region)
    end = TunnelEnd(carvingFrom: &arena, limits: limits)
    arena.seal()
  }

  deinit { region.deallocate() }
}
