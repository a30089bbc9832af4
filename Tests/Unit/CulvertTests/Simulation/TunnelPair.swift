import Testing

@testable import Culvert

/// Two tunnels that know each other, a network without delay between them, and virtual time.
final class TunnelPair {
  let a: TunnelNode
  let b: TunnelNode
  /// b as a knows it, and a as b knows it.
  private(set) var peerOfA = PeerID.none
  private(set) var peerOfB = PeerID.none
  var now = Instant(nanoseconds: 1_000 * nanosecondsPerSecond)
  var wall = WallTime(seconds: 1_800_000_000, nanoseconds: 0)
  /// What the network swallows.
  var loses: (Emission) -> Bool = { _ in false }
  /// All that a or b has sent, also what was lost.
  var sentByA: [Emission] = []
  var sentByB: [Emission] = []

  static let addressOfA = ipv4(10, 0, 0, 1)
  static let addressOfB = ipv4(10, 0, 0, 2)
  static let address6OfA = ipv6(0xfd00_0000_0000_0000, 1)
  static let address6OfB = ipv6(0xfd00_0000_0000_0000, 2)

  init(seed: UInt64 = 1, limits: Limits = .roomy) throws {
    a = TunnelNode(
      seed: seed, endpoint: Endpoint(address: ipv4(192, 0, 2, 1), port: 1001), limits: limits)
    b = TunnelNode(
      seed: seed &+ 1_000, endpoint: Endpoint(address: ipv4(192, 0, 2, 2), port: 1002),
      limits: limits)
    peerOfA = try a.addPeer(
      b.publicKey,
      allowed: [
        #require(IPPrefix(TunnelPair.addressOfB, length: 32)),
        #require(IPPrefix(TunnelPair.address6OfB, length: 128)),
      ], endpoint: b.endpoint)
    peerOfB = try b.addPeer(
      a.publicKey,
      allowed: [
        #require(IPPrefix(TunnelPair.addressOfA, length: 32)),
        #require(IPPrefix(TunnelPair.address6OfA, length: 128)),
      ], endpoint: a.endpoint)
  }

  // MARK: Packets

  func packetFromA(_ payload: [UInt8] = [1], trafficClass: UInt8 = 0) -> [UInt8] {
    TestPacket.ipv4(
      from: TunnelPair.addressOfA, to: TunnelPair.addressOfB, payload: payload,
      trafficClass: trafficClass)
  }

  func packetFromB(_ payload: [UInt8] = [2], trafficClass: UInt8 = 0) -> [UInt8] {
    TestPacket.ipv4(
      from: TunnelPair.addressOfB, to: TunnelPair.addressOfA, payload: payload,
      trafficClass: trafficClass)
  }

  // MARK: Network

  /// Carries what a has sent to b.
  @discardableResult
  func carryToB(_ emissions: [Emission]) -> [[UInt8]] {
    sentByA += emissions
    return b.receive(arrivals(emissions, from: a, to: b), at: now)
  }

  @discardableResult
  func carryToA(_ emissions: [Emission]) -> [[UInt8]] {
    sentByB += emissions
    return a.receive(arrivals(emissions, from: b, to: a), at: now)
  }

  private func arrivals(
    _ emissions: [Emission], from source: TunnelNode, to target: TunnelNode
  ) -> [Arrival] {
    emissions
      .filter { $0.path.endpoint == target.endpoint && !loses($0) }
      .map { Arrival($0.bytes, from: source.endpoint, trafficClass: $0.trafficClass) }
  }

  @discardableResult
  func sendFromA(_ packets: [[UInt8]]) -> [[UInt8]] { carryToB(a.send(packets, at: now)) }

  @discardableResult
  func sendFromB(_ packets: [[UInt8]]) -> [[UInt8]] { carryToA(b.send(packets, at: now)) }

  /// Runs both control paths, and carries what they send, until both are at rest.
  func exchange() {
    for _ in 0..<64 {
      let fromA = a.settle(at: now, wall: wall)
      carryToB(fromA)
      let fromB = b.settle(at: now, wall: wall)
      carryToA(fromB)
      if fromA.isEmpty, fromB.isEmpty { return }
    }
    Issue.record("the two tunnels do not come to rest")
  }

  // MARK: Time

  /// Time passes with nothing happening.
  func skip(_ duration: UInt64) {
    now = now.advanced(by: duration)
    let nanoseconds = UInt64(wall.nanoseconds) + duration
    wall.seconds += nanoseconds / nanosecondsPerSecond
    wall.nanoseconds = UInt32(nanoseconds % nanosecondsPerSecond)
  }

  /// Time passes, and every timer fires when it is due.
  func wait(_ duration: UInt64) {
    let end = now.advanced(by: duration)
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

  func wait(seconds: UInt64) { wait(seconds * nanosecondsPerSecond) }

  /// A session that a has opened and b has confirmed; both are at rest.
  func connect() {
    sendFromA([packetFromA([0xaa])])
    exchange()
    #expect(b.delivered.last == packetFromA([0xaa]))
  }

  /// Forgets what has been sent and delivered so far.
  func forget() {
    sentByA = []
    sentByB = []
    a.delivered = []
    b.delivered = []
    a.replies = []
    b.replies = []
  }
}
