@testable import Culvert

/// A channel with its own memory, and the tunnel's batch that it sends into.
final class ChannelEnd {
  /// `DatagramChannel.Received` with a copy of the bytes.
  enum Arrived: Equatable {
    case datagram([UInt8], from: Endpoint, port: UInt16, trafficClass: UInt8)
    case unreachable(Endpoint, port: UInt16)
    case nothing

    var payload: [UInt8]? {
      if case .datagram(let payload, _, _, _) = self { return payload }
      return nil
    }
  }

  static let port: UInt16 = 51_820

  let memory: TestArena
  let ipv4: IPAddress
  let ipv6: IPAddress
  var channel: DatagramChannel
  var batch: OutboundBatch
  var now = Instant(nanoseconds: 1_000 * nanosecondsPerSecond)
  /// Kept until the batch is reset.
  private var payloads: [PacketBuffer] = []

  /// - Parameter host: the last byte of both addresses.
  init(host: UInt8, seed: UInt64 = 1, limits: Limits = .channel) {
    memory = TestArena(byteCount: (6 << 20) + limits.batchByteCount)
    channel = DatagramChannel(carvingFrom: &memory.arena, limits: limits)
    let keys = memory.arena.carveBytes(
      limits.batchPackets * WireGuard.keyByteCount, owner: "test keys")
    batch = OutboundBatch(
      carvingFrom: &memory.arena, keys: keys.baseAddress!, limits: limits)
    memory.arena.seal()
    ipv4 = IPAddress(ipv4: 0x0a08_0000 | UInt32(host))
    ipv6 = IPAddress(ipv6High: 0xfd08_0000_0000_0000, low: UInt64(host))
    channel.start(seed: seed)
    channel.setAddress(ipv4)
    channel.setAddress(ipv6)
    channel.open(firstPort: ChannelEnd.port)
    batch.reset()
  }

  func address(_ family: IPAddress.Family) -> IPAddress { family == .ipv4 ? ipv4 : ipv6 }

  func endpoint(_ family: IPAddress.Family, port: UInt16 = ChannelEnd.port) -> Endpoint {
    Endpoint(address: address(family), port: port)
  }

  func count(_ verdict: DatagramVerdict) -> UInt64 { channel.counters[verdict] }

  func fragmentCount(_ verdict: FragmentVerdict) -> UInt64 { channel.reassembler.counters[verdict] }

  /// Sum of the channel's counters.
  var total: UInt64 {
    (0..<DatagramVerdict.count).compactMap { DatagramVerdict(rawValue: $0) }
      .map { channel.counters[$0] }.reduce(0, +)
  }

  // MARK: Outward

  /// Sends a payload that has exactly the headroom that `send` may use, and no room after it.
  func send(
    _ payload: [UInt8], from port: UInt16 = ChannelEnd.port, to endpoint: Endpoint,
    trafficClass: UInt8 = 0
  ) -> DatagramChannel.Sent {
    let room = DatagramChannel.headroom
    let buffer = PacketBuffer([UInt8](repeating: 0xee, count: room) + payload)
    payloads.append(buffer)
    return channel.send(
      UnsafeMutableRawBufferPointer(start: buffer.start + room, count: payload.count), from: port,
      to: endpoint, trafficClass: trafficClass, into: &batch, at: now)
  }

  /// The packets in the batch, in order.
  var packets: [[UInt8]] {
    (0..<batch.count).map {
      [UInt8](
        UnsafeRawBufferPointer(
          start: batch.packets[$0].start, count: Int(batch.packets[$0].byteCount)))
    }
  }

  func reset() {
    batch.reset()
    payloads = []
  }

  /// The packets of one datagram; none if it was not sent.
  func packets(
    of payload: [UInt8], from port: UInt16 = ChannelEnd.port, to endpoint: Endpoint,
    trafficClass: UInt8 = 0
  ) -> [[UInt8]] {
    reset()
    defer { reset() }
    guard case .sent = send(payload, from: port, to: endpoint, trafficClass: trafficClass) else {
      return []
    }
    return packets
  }

  /// Why a datagram is refused; nil if it is not.
  func refusal(
    of payload: [UInt8], from port: UInt16 = ChannelEnd.port, to endpoint: Endpoint
  ) -> DatagramVerdict? {
    defer { reset() }
    guard case .refused(let verdict) = send(payload, from: port, to: endpoint) else { return nil }
    return verdict
  }

  // MARK: Outcomes

  func isSent(_ outcome: DatagramChannel.Sent) -> Bool {
    if case .sent = outcome { return true }
    return false
  }

  func isFull(_ outcome: DatagramChannel.Sent) -> Bool {
    if case .batchFull = outcome { return true }
    return false
  }

  func isRefused(_ outcome: DatagramChannel.Sent, _ verdict: DatagramVerdict) -> Bool {
    if case .refused(verdict) = outcome { return true }
    return false
  }

  // MARK: Inward

  /// The packet is in memory of exactly its size. The result is a copy; the reassembler's memory is
  /// not released.
  func receive(
    _ packet: [UInt8], from sender: UInt32 = 1, expects: (IPAddress) -> Bool = { _ in true }
  ) -> Arrived {
    let buffer = PacketBuffer(packet)
    return withExtendedLifetime(buffer) {
      let received = channel.receive(
        UnsafeMutableRawBufferPointer(start: buffer.start, count: buffer.byteCount), from: sender,
        at: now, expects: expects)
      switch received {
      case .datagram(let payload, let endpoint, let port, let trafficClass):
        return .datagram(
          [UInt8](payload), from: endpoint, port: port, trafficClass: trafficClass)
      case .unreachable(let endpoint, let port, _): return .unreachable(endpoint, port: port)
      case .nothing: return .nothing
      }
    }
  }

  /// Receives all packets, and releases memory as a lane does.
  func receiveAll(_ packets: [[UInt8]], from sender: UInt32 = 1) -> [Arrived] {
    packets.compactMap {
      let arrived = receive($0, from: sender)
      channel.release()
      return arrived == .nothing ? nil : arrived
    }
  }

  /// A packet of another host to this channel.
  func packet(
    _ payload: [UInt8] = [], from source: ChannelEnd, _ family: IPAddress.Family = .ipv4
  ) -> ChannelPacket {
    ChannelPacket(
      source: source.address(family), destination: address(family), payload: payload)
  }
}

extension Limits {
  /// Enough for the largest datagram in fragments.
  static var channel: Limits { channel(batchPackets: 128, batchByteCount: 144 * 1024) }

  static func channel(batchPackets: Int, batchByteCount: Int) -> Limits {
    Limits(
      peers: 1, allowedIPs: 1, stagedPacketsPerPeer: 1, stagingSlots: 1, handshakeRing: 1,
      rateLimiterEntries: 1, batchPackets: batchPackets, batchByteCount: batchByteCount,
      maximumMTU: 65_475)
  }
}
