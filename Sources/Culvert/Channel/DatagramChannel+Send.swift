/// Outward: from the channel's user into the tunnel.
extension DatagramChannel {
  public enum Sent: Sendable, BitwiseCopyable {
    /// It stands in the batch.
    case sent
    /// The batch has no room for it; an empty one has.
    case batchFull
    /// It cannot be sent, and was counted: the verdict says why.
    case refused(DatagramVerdict)
  }

  private static let timeToLive: UInt8 = 64

  /// Makes a datagram a packet of the tunnel.
  ///
  /// - Parameters:
  ///   - payload: `headroom` bytes before it are overwritten. Where it is not fragmented it is not
  ///     copied: it has to stay until `batch` has been sealed, with `TransportCipher.headroom` more
  ///     bytes before it and `TransportCipher.slack` behind it that may be read.
  ///   - port: the local one, among those open.
  ///   - trafficClass: DSCP and ECN of the packet.
  ///   - batch: of the tunnel's outbound lane, before `plan`.
  public mutating func send(
    _ payload: UnsafeMutableRawBufferPointer, from port: UInt16, to endpoint: Endpoint,
    trafficClass: UInt8 = 0, into batch: inout OutboundBatch, at now: Instant
  ) -> Sent {
    guard isOwn(port) else { return refuse(.closed) }
    guard let source = address(endpoint.address.family) else { return refuse(.noAddress) }
    let isIPv4 = source.family == .ipv4
    let limit =
      isIPv4 ? DatagramChannel.maximumIPv4Payload : DatagramChannel.maximumIPv6Payload
    guard payload.count <= limit, let start = payload.baseAddress else { return refuse(.tooLarge) }
    guard batch.freeCount > 0 else { return .batchFull }

    let udpByteCount = UDPHeader.byteCount &+ payload.count
    let headerByteCount = isIPv4 ? IPv4Header.minimumByteCount : IPv6Header.byteCount
    let packet = start - UDPHeader.byteCount - headerByteCount
    let byteCount = headerByteCount &+ udpByteCount
    var mtu = self.mtu
    if let known = paths.mtu(to: endpoint.address, at: now) { mtu = min(mtu, known) }
    let isWhole = byteCount <= mtu
    if !isWhole && isIPv4 && forbidsFragmentation { return refuse(.tooLarge) }

    UDPHeader.write(
      at: start - UDPHeader.byteCount, totalByteCount: udpByteCount, source: port,
      destination: endpoint.port
    ).updateChecksum(source: source, destination: endpoint.address)
    if isIPv4 {
      ipv4Identification &+= 1
      IPv4Header.write(
        at: packet, totalByteCount: byteCount, trafficClass: trafficClass,
        identification: ipv4Identification,
        fragmentField: forbidsFragmentation ? IPv4Header.doNotFragmentFlag : 0,
        timeToLive: DatagramChannel.timeToLive, protocol: IPProtocol.udp, source: source,
        destination: endpoint.address)
    } else {
      IPv6Header.write(
        at: packet, payloadByteCount: udpByteCount, trafficClass: trafficClass,
        flowLabel: flowLabel(from: port, to: endpoint), hopLimit: DatagramChannel.timeToLive,
        nextHeader: IPProtocol.udp, source: source, destination: endpoint.address)
    }
    if isWhole {
      batch.append(at: packet, byteCount: byteCount)
      counters.add(.sent)
      return .sent
    }
    return sendFragments(packet, byteCount: byteCount, mtu: mtu, into: &batch)
  }

  private func refuse(_ verdict: DatagramVerdict) -> Sent {
    counters.add(verdict)
    return .refused(verdict)
  }

  /// All of them or none: a datagram without one of its fragments is lost, and the others with it.
  private mutating func sendFragments(
    _ packet: UnsafeMutableRawPointer, byteCount: Int, mtu: Int, into batch: inout OutboundBatch
  ) -> Sent {
    ipv6Identification &+= 1
    let identification =
      packet.byte(0) >> 4 == 4 ? UInt32(ipv4Identification) : ipv6Identification
    guard
      let fragmenter = Fragmenter(
        at: packet, byteCount: byteCount, mtu: mtu, identification: identification)
    else { return refuse(.tooLarge) }
    guard batch.hasRoom(forPackets: fragmenter.count, of: mtu) else {
      return batch.count == 0 ? refuse(.tooLarge) : .batchFull
    }
    for index in 0..<fragmenter.count {
      let count = fragmenter.byteCount(index)
      guard let room = batch.room(for: count) else { break }
      fragmenter.write(index, to: room.baseAddress!)
      batch.append(byteCount: count)
    }
    counters.add(.sentInFragments)
    return .sent
  }

  /// 20 bits that stay the same for a flow, and tell nothing about it (RFC 6437 section 3).
  private func flowLabel(from port: UInt16, to endpoint: Endpoint) -> UInt32 {
    var mixed = SplitMix64.mix(flowSeed ^ endpoint.address.high)
    mixed = SplitMix64.mix(mixed ^ endpoint.address.low)
    // Apart from the address, or a port could take back what the address has added.
    mixed = SplitMix64.mix(mixed ^ UInt64(port) << 16 ^ UInt64(endpoint.port))
    return UInt32(truncatingIfNeeded: mixed >> 44)
  }
}

/// What ICMP has said about the MTU of the way to a few destinations beyond the tunnel (RFC 1191,
/// RFC 8201), in a fixed table: the oldest is forgotten for a new one.
struct PathMTUs: ~Copyable {
  private struct Entry: BitwiseCopyable {
    var destination: IPAddress
    var mtu: Int
    var end: Instant
  }

  static let capacity = 8
  /// RFC 1191 section 6.3 and RFC 8201 section 5.3: a larger one may be tried again after this.
  static let lifetime = 600 * nanosecondsPerSecond

  private let entries: UnsafeMutablePointer<Entry>
  private var count = 0

  init(carvingFrom arena: inout Arena) {
    entries =
      arena.carve(Entry.self, count: PathMTUs.capacity, owner: "channels").baseAddress!
  }

  /// What is known; nil for nothing.
  @inline(__always)
  mutating func mtu(to destination: IPAddress, at now: Instant) -> Int? {
    if count == 0 { return nil }
    guard let index = find(destination) else { return nil }
    if entries[index].end > now { return entries[index].mtu }
    count &-= 1
    entries[index] = entries[count]
    return nil
  }

  /// A path's MTU is only ever lowered; it comes back with time. Below what the family guarantees
  /// it is not believed: a smaller one would be a way to make us work (RFC 8201 section 6).
  mutating func lower(to destination: IPAddress, mtu: Int, at now: Instant) {
    let least = PathMTUs.least(destination.family)
    let mtu = max(mtu, least)
    let entry = Entry(
      destination: destination, mtu: mtu, end: now.advanced(by: PathMTUs.lifetime))
    if let index = find(destination) {
      if mtu < entries[index].mtu || entries[index].end <= now { entries[index] = entry }
      return
    }
    if count < PathMTUs.capacity {
      entries[count] = entry
      count &+= 1
      return
    }
    var oldest = 0
    for index in 1..<PathMTUs.capacity where entries[index].end < entries[oldest].end {
      oldest = index
    }
    entries[oldest] = entry
  }

  mutating func forgetAll() { count = 0 }

  /// What every path of the family carries (RFC 791 section 3.1 as hosts rely on it, RFC 8200
  /// section 5).
  private static func least(_ family: IPAddress.Family) -> Int {
    family == .ipv4 ? 576 : Policy.ipv6MinimumMTU
  }

  private func find(_ destination: IPAddress) -> Int? {
    for index in 0..<count where entries[index].destination == destination { return index }
    return nil
  }
}
