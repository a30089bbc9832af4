import Testing

@testable import Culvert

/// Two processes with as many nested tunnels each, and a network without delay between them.
final class NestedPair {
  let a: NestedNode
  let b: NestedNode
  var now = Instant(nanoseconds: 1_000 * nanosecondsPerSecond)
  var wall = WallTime(seconds: 1_800_000_000, nanoseconds: 0)
  /// What the network swallows.
  var loses: (Emission) -> Bool = { _ in false }
  /// All that came out of the innermost tunnels, and all that went over the network.
  var deliveredToA: [[UInt8]] = []
  var deliveredToB: [[UInt8]] = []
  var sentByA: [Emission] = []
  var sentByB: [Emission] = []

  /// - Parameter families: what the datagrams of each hop but the outermost are inside the one
  ///   around it; the last is used for all further ones.
  init(
    hops: Int = 2, families: [IPAddress.Family] = [.ipv4], seed: UInt64 = 1,
    limits: Limits = .nested, strides: [Int] = [0]
  ) throws {
    a = NestedNode(hops: hops, seed: seed, endpoint: NestedPair.network(1), limits: limits)
    b = NestedNode(hops: hops, seed: seed &+ 1_000, endpoint: NestedPair.network(2), limits: limits)
    a.setCiphers(strides)
    b.setCiphers(strides.reversed())
    for hop in 0..<hops {
      let family = families[min(hop, families.count - 1)]
      let isOutermost = hop == hops - 1
      let endpoint = { (host: UInt8) in
        isOutermost
          ? NestedPair.network(host)
          : Endpoint(address: NestedPair.address(hop + 1, host, family), port: 51_820)
      }
      try a.hops[hop].addPeer(
        b.hops[hop].publicKey, allowed: NestedPair.prefixes(hop, 2), endpoint: endpoint(2))
      try b.hops[hop].addPeer(
        a.hops[hop].publicKey, allowed: NestedPair.prefixes(hop, 1), endpoint: endpoint(1))
    }
    for hop in 0..<hops - 1 {
      for family: IPAddress.Family in [.ipv4, .ipv6] {
        a.channels[hop].channel.setAddress(NestedPair.address(hop + 1, 1, family))
        b.channels[hop].channel.setAddress(NestedPair.address(hop + 1, 2, family))
      }
    }
  }

  // MARK: Addresses

  /// Of a host inside the tunnel of a hop.
  static func address(_ hop: Int, _ host: UInt8, _ family: IPAddress.Family) -> IPAddress {
    family == .ipv4
      ? ipv4(10, UInt8(hop), 0, host) : ipv6(0xfd00 << 48 | UInt64(hop) << 32, UInt64(host))
  }

  static func prefixes(_ hop: Int, _ host: UInt8) -> [IPPrefix] {
    [
      IPPrefix(address(hop, host, .ipv4), length: 32)!,
      IPPrefix(address(hop, host, .ipv6), length: 128)!,
    ]
  }

  static func network(_ host: UInt8) -> Endpoint {
    Endpoint(address: ipv4(192, 0, 2, host), port: 51_820)
  }

  /// A packet for the innermost tunnel, from a to b or back.
  static func packet(
    _ payload: [UInt8], _ family: IPAddress.Family = .ipv4, fromA: Bool = true,
    trafficClass: UInt8 = 0
  ) -> [UInt8] {
    let (source, target) = (
      address(0, fromA ? 1 : 2, family), address(0, fromA ? 2 : 1, family)
    )
    return family == .ipv4
      ? TestPacket.ipv4(from: source, to: target, payload: payload, trafficClass: trafficClass)
      : TestPacket.ipv6(from: source, to: target, payload: payload, trafficClass: trafficClass)
  }

  // MARK: Network

  @discardableResult
  func carryToB(_ emissions: [Emission]) -> [[UInt8]] {
    sentByA += emissions
    let packets = b.receive(arrivals(emissions, from: a, to: b), at: now)
    deliveredToB += packets
    return packets
  }

  @discardableResult
  func carryToA(_ emissions: [Emission]) -> [[UInt8]] {
    sentByB += emissions
    let packets = a.receive(arrivals(emissions, from: b, to: a), at: now)
    deliveredToA += packets
    return packets
  }

  private func arrivals(
    _ emissions: [Emission], from source: NestedNode, to target: NestedNode
  ) -> [Arrival] {
    emissions
      .filter { $0.path.endpoint == target.endpoint && !loses($0) }
      .map { Arrival($0.bytes, from: source.endpoint, trafficClass: $0.trafficClass) }
  }

  @discardableResult
  func sendFromA(_ packets: [[UInt8]]) -> [[UInt8]] { carryToB(a.send(packets, at: now)) }

  @discardableResult
  func sendFromB(_ packets: [[UInt8]]) -> [[UInt8]] { carryToA(b.send(packets, at: now)) }

  /// Runs all control paths, and carries what they send, until everything is at rest.
  func exchange() {
    for _ in 0..<64 {
      let fromA = a.settle(at: now, wall: wall)
      carryToB(fromA)
      let fromB = b.settle(at: now, wall: wall)
      carryToA(fromB)
      if fromA.isEmpty, fromB.isEmpty { return }
    }
    Issue.record("the two processes do not come to rest")
  }

  // MARK: Time

  func skip(_ duration: UInt64) {
    now = now.advanced(by: duration)
    let nanoseconds = UInt64(wall.nanoseconds) + duration
    wall.seconds += nanoseconds / nanosecondsPerSecond
    wall.nanoseconds = UInt32(nanoseconds % nanosecondsPerSecond)
  }

  /// Time passes, and every timer fires when it is due.
  func wait(seconds: UInt64) {
    let end = now.advanced(by: seconds * nanosecondsPerSecond)
    for _ in 0..<10_000 {
      exchange()
      let next = min(a.nextDeadline(at: now), b.nextDeadline(at: now))
      guard let due = next.instant, due <= end else {
        skip(end.since(now))
        return
      }
      skip(due.since(now))
    }
    Issue.record("timers fire for ever")
  }

  /// Sessions of every hop; all is at rest.
  func connect() {
    let packet = NestedPair.packet([0xaa])
    sendFromA([packet])
    exchange()
    #expect(deliveredToB == [packet])
    forget()
  }

  func forget() {
    deliveredToA = []
    deliveredToB = []
    sentByA = []
    sentByB = []
    a.replies = []
    b.replies = []
  }
}
