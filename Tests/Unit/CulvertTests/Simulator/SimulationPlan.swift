#if !ONE_MODULE
  @testable import Culvert
#endif

/// The kinds of trouble in a simulation. Each has its own random numbers, so that a run without one
/// of them is otherwise as similar as possible.
enum Fault: UInt8, CaseIterable {
  // Decided for each datagram.
  case loss
  case duplication
  /// Each datagram has its own delay, so they are also reordered.
  case delay
  case corruption
  case truncation
  /// An attacker sends old datagrams again, from their source or from its own address.
  case replay
  /// The kernel does not send it.
  case refusal

  // Decided for each packet of a program.
  /// The source address belongs to another host.
  case forgery
  /// The packet is to be segmented.
  case segments

  // Decided once per second.
  case partition
  /// Messages that only look right.
  case flood
  /// The wall clock jumps in either direction.
  case wallClock
  /// The monotonic clock jumps forward.
  case leap
  /// The host does nothing for a while, and then handles what has arrived.
  case suspension
  case crash
  /// Crashes also lose the stored timestamp.
  case stateLoss
  /// The host's address changes; sometimes its peers are told.
  case roaming
  /// The interface goes down and up again.
  case flap
  /// Peers are removed, and added again; others that nobody answers for come and go.
  case peers
  case privateKeys
  case presharedKeys
  /// Endpoints are set, sometimes to wrong ones.
  case endpoints
  case keepalives
  case allowedIPs
  case mtu
  /// The disk hangs for a while, so timestamps are stored late.
  case storage

  var name: String { "\(self)" }

  static func named(_ name: Substring) -> Fault? { allCases.first { $0.name == name } }

  /// Whether it happens once in a while and not to a datagram or a packet.
  var isEvent: Bool { rawValue >= Fault.partition.rawValue && self != .stateLoss }
}

/// All that decides a run. A seed gives a plan; the rest of the command line makes it smaller.
struct SimulationPlan {
  /// One event of a run.
  struct Event: Hashable {
    var second: UInt64
    var fault: Fault

    var text: String { "\(second).\(fault.name)" }

    init(second: UInt64, fault: Fault) {
      self.second = second
      self.fault = fault
    }

    init?(_ text: Substring) {
      let parts = text.split(separator: ".")
      guard parts.count == 2, let second = UInt64(parts[0]), let fault = Fault.named(parts[1])
      else { return nil }
      self.init(second: second, fault: fault)
    }
  }

  let seed: UInt64
  /// A host in the middle, and only links between it and the others.
  private(set) var isHub: Bool
  private(set) var hostCount: Int
  /// Seconds with faults.
  private(set) var seconds: UInt64
  private(set) var faults: Set<Fault>
  /// The only events that happen; nil for all that the seed decides.
  private(set) var events: Set<Event>?
  /// When such events have happened in this order, the run fails, to test what follows; see
  /// `run selftest`.
  private(set) var planted: [Fault] = []

  init(seed: UInt64) {
    self.seed = seed
    var generator = SeededGenerator(seed: seed ^ 0x706c_616e)
    isHub = seed % 64 == 63
    hostCount =
      isHub
      ? 101 + Int(generator.next() % 200) : [2, 2, 2, 3, 3, 4, 5, 6, 8, 10].pick(&generator)
    seconds = isHub ? 30 + generator.next() % 60 : 60 + generator.next() % 240
    // Not all of them at once, because some hide others.
    faults = []
    for fault in Fault.allCases where generator.next() % 2 == 0 { faults.insert(fault) }
  }

  /// - Parameter words: as on the command line: the seed, and pairs of an option and its value.
  init?(_ words: [String]) {
    guard let seed = words.first.flatMap({ UInt64($0) }), words.count % 2 == 1 else { return nil }
    self.init(seed: seed)
    for index in stride(from: 1, to: words.count, by: 2) {
      let value = words[index + 1]
      let names = value.split(separator: ",")
      switch words[index] {
      case "--hosts":
        guard let count = Int(value), count >= 2 else { return nil }
        hostCount = count
      case "--seconds":
        guard let count = UInt64(value) else { return nil }
        seconds = count
      case "--without":
        let given = names.compactMap { Fault.named($0) }
        guard given.count == names.count else { return nil }
        faults.subtract(given)
      case "--events":
        let given = names.compactMap { Event($0) }
        guard given.count == names.count || value == "none" else { return nil }
        events = Set(given)
      case "--planted":
        planted = names.compactMap { Fault.named($0) }
        guard planted.count == names.count else { return nil }
      default: return nil
      }
    }
  }

  /// Random numbers for one purpose.
  func generator(_ purpose: UInt64, _ number: UInt64 = 0) -> SeededGenerator {
    var generator = SeededGenerator(seed: seed &+ purpose << 48)
    return SeededGenerator(seed: generator.next() &+ number)
  }

  /// The chance out of 1000 of a fault: of a datagram, of a packet, or in a second. 0 if the run is
  /// without it.
  func chance(of fault: Fault) -> UInt64 {
    guard faults.contains(fault) else { return 0 }
    var generator = generator(1, UInt64(fault.rawValue))
    let most: UInt64 =
      switch fault {
      case .loss: 300
      case .duplication, .forgery: 100
      case .delay: 1000
      case .corruption, .replay, .refusal: 50
      case .truncation: 20
      case .segments: 500
      case .stateLoss: 1000
      default: isHub ? 200 : 60
      }
    return 1 + generator.next() % most
  }

  func happens(_ event: Event) -> Bool {
    events.map { $0.contains(event) } ?? true
  }

  /// Whether the planted events are among these, in their order.
  func isPlanted(in happened: [Event]) -> Bool {
    var rest = planted[...]
    for event in happened where event.fault == rest.first { rest.removeFirst() }
    return !planted.isEmpty && rest.isEmpty
  }

  // MARK: Topology

  /// Pairs of hosts that know each other.
  var links: [(Int, Int)] {
    var links: [(Int, Int)] = []
    var generator = generator(2)
    let shape = isHub ? 0 : generator.next() % 3
    for host in 1..<hostCount {
      switch shape {
      case 0: links.append((0, host))
      case 1:
        let nearest = hostCount <= 5 ? 0 : max(0, host - 2)
        for other in nearest..<host { links.append((other, host)) }
      default: links.append((Int(generator.next() % UInt64(host)), host))
      }
    }
    return links
  }

  /// - Parameter linkCount: links of the host.
  func limits(of host: Int, linkCount: Int) -> Limits {
    var generator = generator(3)
    let isTight = generator.next() % 2 == 0
    var limits = Limits(
      peers: linkCount + 2, allowedIPs: 4 * hostCount + 8, stagedPacketsPerPeer: isTight ? 2 : 4,
      stagingSlots: isTight ? 4 : 40, handshakeRing: isTight ? 8 : 64,
      rateLimiterEntries: 8, batchPackets: [4, 7, 16, 64].pick(&generator),
      batchByteCount: 160 * 1024, maximumMTU: 65_475)
    if isHub {
      let isMiddle = host == 0
      limits.stagingSlots = isMiddle ? (isTight ? 40 : 2 * hostCount) : 4
      limits.handshakeRing = isMiddle ? (isTight ? 64 : 1024) : 8
      limits.allowedIPs = isMiddle ? limits.allowedIPs : 16
      limits.rateLimiterEntries = isMiddle ? 512 : 8
    }
    // A packet of 5000 bytes is too large then.
    if generator.next() % 4 == 0 { limits.maximumMTU = 2000 }
    return limits
  }
}

extension Array {
  func pick(_ generator: inout SeededGenerator) -> Element {
    self[Int(generator.next() % UInt64(count))]
  }
}

extension SeededGenerator {
  /// A number below `bound`; 0 if the bound is 0.
  mutating func below(_ bound: Int) -> Int {
    bound == 0 ? 0 : Int(truncatingIfNeeded: next() % UInt64(bound))
  }

  /// True in `chance` of 1000 cases.
  mutating func happens(_ chance: UInt64) -> Bool { next() % 1000 < chance }
}
