/// Sending: from the channel's user to the tunnel.
extension DatagramChannel {
  public enum Sent: Sendable, BitwiseCopyable {
    /// The datagram is in the batch.
    case sent
    /// The batch has no room for the datagram. An empty batch would have.
    case batchFull
    /// The datagram cannot be sent, for the given reason. It has been counted.
    case refused(DatagramVerdict)
  }

  private static let timeToLive: UInt8 = 64

  /// Turns a datagram into packets of the tunnel.
  ///
  /// - Parameters:
  ///   - payload: the `headroom` bytes before it are overwritten with headers. Unless the datagram
  ///     is fragmented, it is not copied: it must stay in place until `batch` has been sealed. The
  ///     `TransportCipher.headroom` bytes before the headers and the `TransportCipher.slack` bytes
  ///     after the payload may be read.
  ///   - port: the local port, which must be open.
  ///   - trafficClass: DSCP and ECN of the packet.
  ///   - batch: an outbound batch of the tunnel, before `plan`.
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
    paths.noteSent(to: endpoint.address)
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

  /// Appends either all fragments or none, because an incomplete datagram is useless.
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

  /// 20 bits that are equal for all packets of a flow and reveal nothing about the flow (RFC 6437
  /// section 3).
  private func flowLabel(from port: UInt16, to endpoint: Endpoint) -> UInt32 {
    var mixed = SplitMix64.mix(flowSeed ^ endpoint.address.high)
    mixed = SplitMix64.mix(mixed ^ endpoint.address.low)
    // The ports are mixed in a separate round, otherwise they could cancel out bits of the address.
    mixed = SplitMix64.mix(mixed ^ UInt64(port) << 16 ^ UInt64(endpoint.port))
    return UInt32(truncatingIfNeeded: mixed >> 44)
  }
}

/// The path MTUs to a few destinations behind the tunnel, as reported by ICMP (RFC 1191, RFC 8201).
/// The table has a fixed size. If it is full, a new entry replaces the one that expires first.
struct PathMTUs: ~Copyable {
  private struct Entry: BitwiseCopyable {
    var destination: IPAddress
    var mtu: Int
    var end: Instant
  }

  static let capacity = 8
  /// After this time a larger MTU is tried again (RFC 1191 section 6.3, RFC 8201 section 5.3).
  static let lifetime = 600 * nanosecondsPerSecond

  /// Destinations that were sent to, in sets of two; a hash of the address selects the set, which
  /// holds the last two destinations.
  static let sentCapacity = 64

  private let entries: UnsafeMutablePointer<Entry>
  private var count = 0
  private let sent: UnsafeMutablePointer<IPAddress>
  private var lastSent = IPAddress(ipv4: 0)

  init(carvingFrom arena: inout Arena) {
    entries =
      arena.carve(Entry.self, count: PathMTUs.capacity, owner: "channels").baseAddress!
    sent =
      arena.carve(IPAddress.self, count: PathMTUs.sentCapacity, owner: "channels").baseAddress!
  }

  /// Initializes the carved memory.
  func start() {
    for place in 0..<PathMTUs.sentCapacity {
      (sent + place).initialize(to: IPAddress(ipv4: 0))
    }
  }

  /// Notes that a datagram is sent to `destination`, so that `lower` accepts it.
  @inline(__always)
  mutating func noteSent(to destination: IPAddress) {
    guard destination != lastSent else { return }
    lastSent = destination
    let set = set(destination)
    guard set[0] != destination else { return }
    set[1] = set[0]
    set[0] = destination
  }

  private func set(_ destination: IPAddress) -> UnsafeMutablePointer<IPAddress> {
    let hash = SplitMix64.mix(destination.high ^ SplitMix64.mix(destination.low))
    return sent + 2 * Int(hash % UInt64(PathMTUs.sentCapacity / 2))
  }

  /// The MTU of the path to `destination`; nil if unknown.
  @inline(__always)
  mutating func mtu(to destination: IPAddress, at now: Instant) -> Int? {
    if count == 0 { return nil }
    guard let index = find(destination) else { return nil }
    if entries[index].end > now { return entries[index].mtu }
    count &-= 1
    entries[index] = entries[count]
    return nil
  }

  /// Lowers a path's MTU. It only rises again when the entry expires or all entries are removed.
  ///
  /// A destination that was not sent to is ignored, otherwise forged errors about such destinations
  /// would replace the entries in use (R55). An IPv6 MTU below the minimum is ignored (RFC 8201
  /// section 4), as in Linux. An IPv4 MTU below the minimum is replaced by it, because an attacker
  /// could otherwise cause many tiny fragments.
  ///
  /// - Returns: false if it was ignored.
  mutating func lower(to destination: IPAddress, mtu: Int, at now: Instant) -> Bool {
    let set = set(destination)
    guard set[0] == destination || set[1] == destination else { return false }
    if destination.family == .ipv6, mtu < Policy.ipv6MinimumMTU { return false }
    let mtu = max(mtu, PathMTUs.leastIPv4)
    let entry = Entry(
      destination: destination, mtu: mtu, end: now.advanced(by: PathMTUs.lifetime))
    if let index = find(destination) {
      if mtu < entries[index].mtu || entries[index].end <= now { entries[index] = entry }
      return true
    }
    if count < PathMTUs.capacity {
      entries[count] = entry
      count &+= 1
      return true
    }
    var oldest = 0
    for index in 1..<PathMTUs.capacity where entries[index].end < entries[oldest].end {
      oldest = index
    }
    entries[oldest] = entry
    return true
  }

  mutating func forgetAll() { count = 0 }

  /// The smallest IPv4 path MTU: the size that every host must accept (RFC 791 section 3.1).
  private static let leastIPv4 = 576

  private func find(_ destination: IPAddress) -> Int? {
    for index in 0..<count where entries[index].destination == destination { return index }
    return nil
  }
}
