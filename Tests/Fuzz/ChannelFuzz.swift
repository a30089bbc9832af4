// Packets of any kind into a datagram channel, while time passes: UDP, fragments, ICMP, raw bytes,
// and packets of another channel. The input is a sequence of steps: a byte that selects the step,
// and the bytes that it needs. Build and run: Tests/Fuzz/run channel.
//
// Every packet is an allocation of exactly its bytes, so that the address sanitizer sees any access
// outside.

nonisolated(unsafe) private let world = ChannelFuzz()

func fuzzChannel(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  world.restart(UnsafeRawBufferPointer(start: bytes, count: count))
  while world.step() {}
  world.release()
  return 0
}

final class ChannelFuzz {
  /// A payload in the channel's memory, and its content when it was handed out.
  private struct Lent {
    var payload: UnsafeMutableRawBufferPointer
    var bytes: [UInt8]
  }

  private static let address4 = IPAddress(ipv4: 0x0a00_0001)
  private static let address6 = IPAddress(ipv6High: 0xfd00_0000_0000_0000, low: 1)
  private static let other4 = IPAddress(ipv4: 0xc000_0209)
  private static let other6 = IPAddress(ipv6High: 0x2001_0db8_0000_0000, low: 9)
  private static let port: UInt16 = 51_820

  private let slots: UnsafeRawBufferPointer
  private var channel: DatagramChannel
  /// The other end, which sends.
  private var far: DatagramChannel
  private var batch: OutboundBatch
  private var input = UnsafeRawBufferPointer(start: nil, count: 0)
  private var offset = 0
  private var now = Instant(nanoseconds: 0)
  private var last: [UInt8] = []
  private var lent: [Lent] = []

  init() {
    _ = Sodium.start()
    let limits = Limits(
      peers: 1, allowedIPs: 1, stagedPacketsPerPeer: 1, stagingSlots: 1, handshakeRing: 1,
      rateLimiterEntries: 1, batchPackets: 16, batchByteCount: 80 * 1024, maximumMTU: 65_475,
      reassembledByteCount: 3000)
    let region = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 << 20, alignment: 4096)
    region.initializeMemory(as: UInt8.self, repeating: 0)
    var arena = Arena(region: region)
    channel = DatagramChannel(carvingFrom: &arena, limits: limits)
    far = DatagramChannel(carvingFrom: &arena, limits: limits)
    let keys = arena.carveBytes(limits.batchPackets * 32, owner: "keys").baseAddress!
    batch = OutboundBatch(carvingFrom: &arena, keys: keys, limits: limits)
    let first = channel.reassembler.payload(of: 0) - Reassembler.payloadByteOffset
    let end = channel.reassembler.payload(of: Reassembler.slots) - Reassembler.payloadByteOffset
    slots = UnsafeRawBufferPointer(start: first, count: end - first)
  }

  func restart(_ input: UnsafeRawBufferPointer) {
    self.input = input
    offset = 0
    now = Instant(nanoseconds: 1_000 * nanosecondsPerSecond)
    last = []
    release()
    channel.close()
    far.close()
    open(&channel, ChannelFuzz.address4, ChannelFuzz.address6)
    open(&far, ChannelFuzz.other4, ChannelFuzz.other6)
  }

  private func open(_ channel: inout DatagramChannel, _ ipv4: IPAddress, _ ipv6: IPAddress) {
    channel.start(seed: 1)
    channel.setMTU(1420)
    channel.forbidsFragmentation = false
    channel.setAddress(ipv4)
    channel.setAddress(ipv6)
    channel.open(firstPort: ChannelFuzz.port, count: 4)
  }

  private func next() -> UInt8 {
    guard offset < input.count else { return 0 }
    offset += 1
    return input[offset - 1]
  }

  /// False at the end of the input.
  func step() -> Bool {
    guard offset < input.count else { return false }
    let choice = next()
    let family: IPAddress.Family = choice & 8 == 0 ? .ipv4 : .ipv6
    switch choice & 7 {
    case 0: receive(datagram(family, next(), byteCount: Int(next()) * 4).bytes, choice)
    case 1: receiveFragment(family, choice)
    case 2: receiveError(family, choice)
    case 3:
      let count = Int(next())
      let raw = (0..<count).map { _ in next() }
      receive(choice & 16 == 0 ? raw : righted(raw), choice)
    case 4:
      let (place, change) = (Int(next()) << (choice & 16 == 0 ? 0 : 3), next())
      if !last.isEmpty { last[place % last.count] ^= change }
      receive(choice & 8 == 0 ? last : righted(last), choice)
    case 5:
      // Move the clock forwards or backwards by up to 71 s.
      let duration = UInt64(next()) * UInt64(choice >> 4) * 18_600_000
      now.nanoseconds =
        choice & 8 == 0
        ? now.nanoseconds + duration : now.nanoseconds - min(now.nanoseconds, duration)
    case 6: advance()
    default: change(family, choice)
    }
    check()
    return true
  }

  // MARK: Packets

  /// A datagram to the channel, with errors selected by `flaws`.
  private func datagram(
    _ family: IPAddress.Family, _ flaws: UInt8, byteCount: Int
  ) -> ChannelPacket {
    let isIPv4 = family == .ipv4
    var packet = ChannelPacket(
      source: isIPv4 ? ChannelFuzz.other4 : ChannelFuzz.other6,
      destination: isIPv4 ? ChannelFuzz.address4 : ChannelFuzz.address6)
    packet.destinationPort = ChannelFuzz.port
    packet.payload = (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ byteCount) }
    if flaws & 1 != 0 { packet.checksumField = UInt16(flaws >> 4) }
    if flaws & 2 != 0 { packet.destinationPort &+= UInt16(flaws >> 5) }
    if flaws & 4 != 0 {
      packet.ipv4Options = [UInt8](repeating: 1, count: 4 * (1 + Int(flaws >> 5)))
      packet.extensions = [.options(8 * (1 + Int(flaws >> 5)))]
    }
    if flaws & 8 != 0 { packet.lengthField = 8 + Int(flaws >> 4) }
    return packet
  }

  /// A fragment of one of a few datagrams, so that datagrams are often completed.
  private func receiveFragment(_ family: IPAddress.Family, _ choice: UInt8) {
    let (which, flaws) = (next(), choice & 16 == 0 ? 0 : next())
    var packet = datagram(family, flaws, byteCount: 40 + 500 * Int(which & 3))
    packet.identification = UInt32(which & 3)
    if which & 4 != 0 { packet = error(family, which, quoting: ours(family).bytes) }
    let fragments = packet.fragments(which & 8 == 0 ? 512 : 64)
    receive(fragments[Int(which >> 4) % fragments.count], choice)
  }

  /// A datagram as the channel sends it.
  private func ours(_ family: IPAddress.Family) -> ChannelPacket {
    let isIPv4 = family == .ipv4
    var packet = ChannelPacket(
      source: isIPv4 ? ChannelFuzz.address4 : ChannelFuzz.address6,
      destination: isIPv4 ? ChannelFuzz.other4 : ChannelFuzz.other6)
    packet.sourcePort = ChannelFuzz.port
    packet.payload = [UInt8](repeating: 3, count: 600)
    return packet
  }

  private func error(
    _ family: IPAddress.Family, _ which: UInt8, quoting quoted: [UInt8]
  ) -> ChannelPacket {
    let isIPv4 = family == .ipv4
    let types: [(UInt8, UInt8)] = isIPv4 ? [(3, 3), (3, 4), (11, 1)] : [(1, 4), (2, 0), (3, 1)]
    let (type, code) = types[Int(which & 3) % 3]
    return ChannelPacket.icmp(
      type, code, word: Int(which) * 8, quoting: quoted,
      from: isIPv4 ? ChannelFuzz.other4 : ChannelFuzz.other6,
      to: isIPv4 ? ChannelFuzz.address4 : ChannelFuzz.address6)
  }

  /// An error about one of the channel's datagrams, or one of its fragments, truncated and changed.
  private func receiveError(_ family: IPAddress.Family, _ choice: UInt8) {
    let (which, length, place, change) = (next(), Int(next()), Int(next()), next())
    let packet = ours(family)
    var quoted = choice & 16 == 0 ? packet.bytes : packet.fragments(256)[Int(which >> 6) % 3]
    quoted = Array(quoted.prefix(length))
    if place < quoted.count { quoted[place] ^= change }
    receive(error(family, which, quoting: quoted).bytes, choice)
  }

  /// The packet readdressed to the channel, with correct lengths and IPv4 header checksum.
  private func righted(_ packet: [UInt8]) -> [UInt8] {
    var packet = packet
    guard packet.count >= 40 else { return packet }
    if packet[0] & 0x10 == 0 {
      packet[0] = 0x45 | packet[0] & 1
      packet.replaceSubrange(2..<4, with: ChannelPacket.big(packet.count, 2))
      packet.replaceSubrange(16..<20, with: ChannelPacket.bytes(of: ChannelFuzz.address4))
      packet.replaceSubrange(10..<12, with: [0, 0])
      let sum = ~PacketModel.sum(Array(packet[..<(Int(packet[0] & 0xf) * 4)]))
      packet.replaceSubrange(10..<12, with: ChannelPacket.big(Int(sum), 2))
    } else {
      packet[0] = 0x60
      packet.replaceSubrange(4..<6, with: ChannelPacket.big(packet.count - 40, 2))
      packet.replaceSubrange(24..<40, with: ChannelPacket.bytes(of: ChannelFuzz.address6))
    }
    return packet
  }

  // MARK: Steps

  private func receive(_ bytes: [UInt8], _ choice: UInt8) {
    last = bytes
    let packet = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
    defer { packet.deallocate() }
    packet.copyBytes(from: bytes)
    let (total, lentCount) = (self.total, channel.lentCount)
    let received = channel.receive(packet, from: UInt32(choice >> 7), at: now)
    require(self.total == total + 1, "not one verdict for a packet")
    switch received {
    case .datagram(let payload, let endpoint, let port, _):
      require(channel.isOwn(port) && endpoint.address.isSingleHost)
      check(payload, from: endpoint, to: port)
      if contains(UnsafeRawBufferPointer(packet), payload) {
        require(channel.lentCount == lentCount, "a slot is lent for nothing")
      } else {
        require(contains(slots, payload), "a payload stands nowhere")
        require(channel.lentCount == lentCount + 1, "a payload in a slot that is not lent")
        lent.append(Lent(payload: payload, bytes: [UInt8](payload)))
      }
    case .unreachable(_, let port, _):
      require(channel.isOwn(port) && channel.lentCount == lentCount)
    case .nothing: require(channel.lentCount == lentCount, "a slot is lent for nothing")
    }
  }

  private func contains(
    _ memory: UnsafeRawBufferPointer, _ payload: UnsafeMutableRawBufferPointer
  ) -> Bool {
    guard let start = memory.baseAddress, let payloadStart = payload.baseAddress else {
      return false
    }
    let place = UnsafeRawPointer(payloadStart)
    return place >= start && place + payload.count <= start + memory.count
  }

  /// Checks the header before the payload: ports, length, and the checksum computed the slow way.
  private func check(
    _ payload: UnsafeMutableRawBufferPointer, from endpoint: Endpoint, to port: UInt16
  ) {
    let header = [UInt8](
      UnsafeRawBufferPointer(start: payload.baseAddress! - 8, count: 8))
    let ports = ChannelPacket.big(Int(endpoint.port), 2) + ChannelPacket.big(Int(port), 2)
    require(Array(header[..<4]) == ports)
    require(Array(header[4..<6]) == ChannelPacket.big(8 + payload.count, 2))
    let isIPv4 = endpoint.address.family == .ipv4
    if isIPv4, header[6] == 0, header[7] == 0 { return }
    let own = isIPv4 ? ChannelFuzz.address4 : ChannelFuzz.address6
    let pseudo =
      ChannelPacket.bytes(of: endpoint.address) + ChannelPacket.bytes(of: own)
      + ChannelPacket.big(8 + payload.count, 4) + [0, 17]
    require(
      PacketModel.sum(pseudo + header + [UInt8](payload)) == 0xffff && header[6...] != [0, 0],
      "a wrong checksum is taken for right")
  }

  /// Expires old datagrams, with errors for their senders.
  private func advance() {
    batch.reset()
    channel.expireFragments(into: &batch, at: now)
    for index in 0..<batch.count {
      let bytes = packet(index)
      require(bytes.count <= 1280 && PacketModel(bytes) != nil, "an error is no packet")
      let isIPv4 = bytes[0] >> 4 == 4
      require(
        Array(bytes[(isIPv4 ? 12 : 8)...].prefix(isIPv4 ? 4 : 16))
          == ChannelPacket.bytes(of: isIPv4 ? ChannelFuzz.address4 : ChannelFuzz.address6))
    }
    if batch.count < 16 {
      require(!channel.nextDeadline.isDue(at: now), "something is still to be forgotten")
    }
  }

  private func packet(_ index: Int) -> [UInt8] {
    let packet = batch.packets[index]
    return [UInt8](UnsafeRawBufferPointer(start: packet.start, count: Int(packet.byteCount)))
  }

  private func change(_ family: IPAddress.Family, _ choice: UInt8) {
    switch choice >> 4 & 7 {
    case 0: release()
    case 1:
      channel.close()
      receive(last, choice)
      channel.open(firstPort: ChannelFuzz.port, count: 4)
    case 2: channel.reassembler.removeAll(from: UInt32(next() & 1))
    case 3: channel.forbidsFragmentation.toggle()
    default:
      send(family, byteCount: Int(next()) << 4 | Int(choice >> 4), mtu: 68 + Int(next()) * 16)
    }
  }

  /// Sends a datagram from the far end: it arrives whole, is refused, or is too large for the
  /// receiver.
  private func send(_ family: IPAddress.Family, byteCount: Int, mtu: Int) {
    let room = DatagramChannel.headroom
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: room + byteCount, alignment: 1)
    defer { buffer.deallocate() }
    for index in 0..<byteCount { buffer[room + index] = UInt8(truncatingIfNeeded: index &* 31) }
    let payload = UnsafeMutableRawBufferPointer(rebasing: buffer[room...])
    far.setMTU(mtu)
    batch.reset()
    let sent = far.send(
      payload, from: ChannelFuzz.port,
      to: Endpoint(
        address: family == .ipv4 ? ChannelFuzz.address4 : ChannelFuzz.address6,
        port: ChannelFuzz.port), into: &batch, at: now)
    guard case .sent = sent else {
      require(batch.count == 0, "a datagram is sent in part")
      return
    }
    release()
    channel.reassembler.removeAll()
    let before = channel.counters[.received]
    let packets = (0..<batch.count).map { packet($0) }
    for packet in packets {
      require(packet.count <= mtu && PacketModel(packet) != nil)
      receive(packet, 0)
    }
    let isTooLarge = byteCount + 48 > 3000
    require(channel.counters[.received] == before + 1 || isTooLarge, "a datagram got lost")
  }

  /// Checks that lent payloads have not changed, and releases them.
  func release() {
    for lent in lent {
      require([UInt8](lent.payload) == lent.bytes, "a payload has changed before its release")
    }
    lent = []
    channel.release()
  }

  // MARK: Invariants

  private var total: UInt64 {
    (0..<DatagramVerdict.count).compactMap { DatagramVerdict(rawValue: $0) }
      .map { channel.counters[$0] }.reduce(0, +)
  }

  private func check() {
    let reassembler = (
      incomplete: channel.reassembler.incompleteCount, completed: channel.reassembler.completedCount
    )
    require(channel.lentCount == lent.count && reassembler.completed == lent.count)
    require(reassembler.incomplete + reassembler.completed <= Reassembler.slots)
    require(channel.nextDeadline.isSet == (reassembler.incomplete > 0))
  }
}
