import Testing

@testable import Culvert

/// Two nodes whose tunnels know each other hop by hop, a network without delay between them, and
/// virtual time.
final class TunnelPair {
  let a: TunnelNode
  let b: TunnelNode
  /// b as a knows it, and a as b knows it, in their innermost tunnels.
  private(set) var peerOfA = PeerID.none
  private(set) var peerOfB = PeerID.none
  var now = Instant(nanoseconds: 1_000 * nanosecondsPerSecond)
  var wall = WallTime(seconds: 1_800_000_000, nanoseconds: 0)
  /// Whether the network loses a datagram.
  var loses: (Emission) -> Bool = { _ in false }
  /// All datagrams that a or b has sent, including lost ones.
  var sentByA: [Emission] = []
  var sentByB: [Emission] = []

  static let addressOfA = address(0, 1, .ipv4)
  static let addressOfB = address(0, 2, .ipv4)
  static let address6OfA = address(0, 1, .ipv6)
  static let address6OfB = address(0, 2, .ipv6)

  /// - Parameter hops: tunnels of each node, one inside the other.
  /// - Parameter families: the families of the datagrams that each hop but the outermost sends
  ///   through the hop around it; the last one is used for all further hops.
  /// - Parameter strides: of the ciphers, hop by hop; b has them in reverse order.
  init(
    hops: Int = 1, families: [IPAddress.Family] = [.ipv4], seed: UInt64 = 1, limits: Limits? = nil,
    strides: [Int] = [0]
  ) throws {
    a = TunnelNode(hops: hops, seed: seed, endpoint: TunnelPair.network(1), limits: limits)
    b = TunnelNode(
      hops: hops, seed: seed &+ 1_000, endpoint: TunnelPair.network(2), limits: limits)
    if hops > 1 {
      a.setCiphers(strides)
      b.setCiphers(strides.reversed())
    }
    for hop in (0..<hops).reversed() {
      let family = families[min(hop, families.count - 1)]
      let endpoint = { (host: UInt8) in
        hop == hops - 1
          ? TunnelPair.network(host)
          : Endpoint(address: TunnelPair.address(hop + 1, host, family), port: 51_820)
      }
      peerOfA = try a.hops[hop].addPeer(
        b.hops[hop].publicKey, allowed: TunnelPair.prefixes(hop, 2), endpoint: endpoint(2))
      peerOfB = try b.hops[hop].addPeer(
        a.hops[hop].publicKey, allowed: TunnelPair.prefixes(hop, 1), endpoint: endpoint(1))
    }
    for hop in 0..<hops - 1 {
      for family: IPAddress.Family in [.ipv4, .ipv6] {
        a.hops[hop].channel.setAddress(TunnelPair.address(hop + 1, 1, family))
        b.hops[hop].channel.setAddress(TunnelPair.address(hop + 1, 2, family))
      }
    }
  }

  // MARK: Addresses

  /// The address of a host inside the tunnel of a hop.
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

  /// An endpoint that belongs to neither node.
  static var elsewhere: Endpoint { Endpoint(address: ipv4(203, 0, 113, 9), port: 9) }

  // MARK: Packets

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

  func packetFromA(_ payload: [UInt8] = [1], trafficClass: UInt8 = 0) -> [UInt8] {
    TunnelPair.packet(payload, trafficClass: trafficClass)
  }

  func packetFromB(_ payload: [UInt8] = [2], trafficClass: UInt8 = 0) -> [UInt8] {
    TunnelPair.packet(payload, fromA: false, trafficClass: trafficClass)
  }

  // MARK: Network

  /// Carries these datagrams from a to b.
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

  /// Runs both control paths, and carries what they send, until both are idle.
  func exchange() {
    for _ in 0..<64 {
      let fromA = a.settle(at: now, wall: wall)
      carryToB(fromA)
      let fromB = b.settle(at: now, wall: wall)
      carryToA(fromB)
      if fromA.isEmpty, fromB.isEmpty { return }
    }
    Issue.record("the two nodes do not come to rest")
  }

  // MARK: Time

  /// Lets time pass without running timers.
  func skip(_ duration: UInt64) {
    now = now.advanced(by: duration)
    let nanoseconds = UInt64(wall.nanoseconds) + duration
    wall.seconds += nanoseconds / nanosecondsPerSecond
    wall.nanoseconds = UInt32(nanoseconds % nanosecondsPerSecond)
  }

  /// Lets time pass; every timer fires when it is due.
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
    Issue.record("timers fire without end")
  }

  func wait(seconds: UInt64) { wait(seconds * nanosecondsPerSecond) }

  /// Opens a session in every hop, initiated by a and confirmed, until both nodes are idle.
  func connect() {
    sendFromA([packetFromA([0xaa])])
    exchange()
    #expect(b.delivered.last == packetFromA([0xaa]))
  }

  /// Clears the lists of sent and delivered packets.
  func forget() {
    sentByA = []
    sentByB = []
    a.delivered = []
    b.delivered = []
    a.replies = []
    b.replies = []
  }
}

/// Datagrams that no honest tunnel sends, made with a's keys.
extension TunnelPair {
  /// Transport data of a's current session with any plaintext at all, correctly sealed.
  func sealAsA(_ text: [UInt8]) -> Arrival {
    let peer = a.tunnel.peer(peerOfA)!
    let counter = peer.pointee.keypairs.reserveCounters(1)
    var bytes = [UInt8](repeating: 0, count: text.count + WireGuard.overheadByteCount)
    bytes.withUnsafeMutableBytes { bytes in
      let start = bytes.baseAddress!
      TransportDataMessage.writeHeader(
        to: start, receiver: peer.pointee.keypairs.current.remoteIndex, counter: counter)
      for (index, byte) in text.enumerated() { start.storeByte(byte, 16 + index) }
      AEAD.seal(
        start + 16, byteCount: text.count, counter: counter,
        key: peer.pointee.keypairs.current.sendingKey)
    }
    return Arrival(bytes, from: a.endpoint)
  }

  /// An initiation by a, regardless of when it sent the last one.
  func initiationFromA() -> Emission? {
    let peer = a.tunnel.peer(peerOfA)!
    peer.pointee.timers.forgetInitiation()
    peer.pointee.timers.wantInitiation(at: now)
    a.tunnel.reschedule(&peer.pointee)
    return a.settle(at: now, wall: wall).first { $0.type == 1 }
  }

  /// The message with a valid mac1 for a receiver with this public key.
  static func withMAC1(_ message: [UInt8], for receiver: Key) -> [UInt8] {
    var message = message
    var key = [UInt8](repeating: 0, count: 32)
    key.withUnsafeMutableBytes { key in
      Cookie.deriveMAC1Key(into: key.baseAddress!, publicKey: receiver)
      message.withUnsafeMutableBytes { bytes in
        Cookie.computeMAC1(
          into: bytes.baseAddress! + (bytes.count - 32), message: bytes.baseAddress!,
          byteCount: bytes.count, key: key.baseAddress!)
      }
    }
    return message
  }
}
