#if !ONE_MODULE
  @testable import Culvert
#endif

/// The rules of joining, over arrays: one packet after the other, every header field by name.
/// Shares no code with `Joiner` or `JoinCandidate`.
struct JoinModel {
  /// Numbers of packets, in order of delivery.
  private(set) var groups: [[Int]] = []
  private var open: [Open] = []
  let allowTCP: Bool
  let allowUDP: Bool
  /// Nil if the packet has no readable flow, so that all groups end.
  private var packets: [PacketModel?] = []

  private struct Open {
    let group: Int
    let addresses: [UInt8]
    /// Addresses, protocol and ports.
    let flow: [UInt8]
    /// Whether its identifications are all the same; nil until there are two.
    var isFixed: Bool?
  }

  init(allowTCP: Bool, allowUDP: Bool) {
    self.allowTCP = allowTCP
    self.allowUDP = allowUDP
  }

  mutating func add(_ bytes: [UInt8]) {
    let number = packets.count
    guard let packet = JoinModel.readable(bytes) else {
      packets.append(nil)
      groups.append([number])
      open = []
      return
    }
    packets.append(packet)
    guard JoinModel.hasPorts(packet), bytes.count == packet.bytes.count else {
      groups.append([number])
      open.removeAll { $0.addresses == packet.addresses }
      return
    }
    let flow = JoinModel.flow(packet)
    let mayJoin = (packet.isTCP ? allowTCP : allowUDP) && JoinModel.isJoinable(packet)
    if let index = open.firstIndex(where: { $0.flow == flow }) {
      if mayJoin, join(packet, number, index) { return }
      open.remove(at: index)
    }
    groups.append([number])
    guard mayJoin, !JoinModel.isPushed(packet) else { return }
    if open.count == 8 { open.removeFirst() }
    open.append(Open(group: groups.count - 1, addresses: packet.addresses, flow: flow))
  }

  private mutating func join(_ packet: PacketModel, _ number: Int, _ index: Int) -> Bool {
    let members = groups[open[index].group].map { packets[$0]! }
    let first = members[0]
    let size = first.payloadByteCount
    let total = members.reduce(packet.bytes.count) { $0 + $1.payloadByteCount }
    guard packet.payloadByteCount <= size, total <= 65_535,
      JoinModel.constantPart(packet) == JoinModel.constantPart(first)
    else { return false }
    if packet.isTCP {
      let expected = JoinModel.sequence(first) &+ UInt32(size * members.count)
      guard JoinModel.sequence(packet) == expected else { return false }
    }
    if packet.isIPv4 {
      let isSame = packet.word(4) == first.word(4)
      let isNext = packet.word(4) == first.word(4) &+ UInt16(members.count)
      let mayBeFixed =
        members.count == 1 ? first.word(6) & 0x4000 != 0 : open[index].isFixed == true
      let mayCount = open[index].isFixed != true
      guard isSame && mayBeFixed || isNext && mayCount else { return false }
      open[index].isFixed = isSame
    }
    groups[open[index].group].append(number)
    if packet.payloadByteCount < size || JoinModel.isPushed(packet) || members.count == 63 {
      open.remove(at: index)
    }
    return true
  }

  // MARK: Packets

  /// A packet that starts with a header, cut to its length field; nil if there is none.
  static func readable(_ bytes: [UInt8]) -> PacketModel? {
    guard bytes.count >= 20 else { return nil }
    let isIPv4 = bytes[0] >> 4 == 4
    guard isIPv4 || bytes.count >= 40 else { return nil }
    let length =
      isIPv4 ? Int(bytes[2]) << 8 | Int(bytes[3]) : 40 + (Int(bytes[4]) << 8 | Int(bytes[5]))
    guard length >= 20, length <= bytes.count, isIPv4 || length != 40 || bytes[6] != 0 else {
      return nil
    }
    return PacketModel(Array(bytes[..<length]))
  }

  /// An intact IP header without anything unusual, and a transport header in it.
  private static func hasPorts(_ packet: PacketModel) -> Bool {
    let bytes = packet.bytes
    let networkByteCount = packet.isIPv4 ? 20 : 40
    guard let transport = packet.transport, transport.offset == networkByteCount else {
      return false
    }
    if packet.isIPv4 {
      guard packet.word(6) & 0xbfff == 0, PacketModel.sum(Array(bytes[..<20])) == 0xffff,
        packet.word(10) != 0xffff
      else { return false }
    }
    let count = bytes.count - networkByteCount
    switch transport.number {
    case 6:
      guard count >= 20 else { return false }
      let header = Int(bytes[networkByteCount + 12] >> 4) * 4
      return header >= 20 && header <= count
    case 17:
      guard count >= 8 else { return false }
      let length = Int(packet.word(networkByteCount + 4))
      return length >= 8 && length <= count
    default: return false
    }
  }

  private static func isJoinable(_ packet: PacketModel) -> Bool {
    guard let start = packet.transport?.offset, packet.payloadByteCount > 0,
      packet.hasRightChecksums
    else { return false }
    if packet.isTCP {
      return packet.bytes[start + 13] | 0x08 == 0x18 && packet.bytes[start + 12] & 0xf == 0
        && packet.word(start + 16) != 0xffff
    }
    return Int(packet.word(start + 4)) == packet.bytes.count - start
  }

  /// Addresses, protocol and ports; only the addresses if there are no ports.
  static func flow(_ packet: PacketModel) -> [UInt8] {
    guard let transport = packet.transport, transport.number == 6 || transport.number == 17,
      transport.offset + 4 <= packet.bytes.count
    else { return packet.addresses }
    return packet.addresses + [transport.number]
      + packet.bytes[transport.offset..<(transport.offset + 4)]
  }

  /// Whether the order of the two may matter.
  static func mayBeOneFlow(_ one: PacketModel?, _ other: PacketModel?) -> Bool {
    guard let one, let other else { return true }
    let (oneFlow, otherFlow) = (flow(one), flow(other))
    guard oneFlow != otherFlow, one.addresses == other.addresses else {
      return oneFlow == otherFlow
    }
    return oneFlow == one.addresses || otherFlow == other.addresses
  }

  private static func isPushed(_ packet: PacketModel) -> Bool {
    packet.isTCP && packet.bytes[packet.transport!.offset + 13] & 0x08 != 0
  }

  private static func sequence(_ packet: PacketModel) -> UInt32 {
    let start = packet.transport!.offset
    return UInt32(packet.word(start + 4)) << 16 | UInt32(packet.word(start + 6))
  }

  /// The headers, with all fields blanked that may differ between joined packets.
  private static func constantPart(_ packet: PacketModel) -> [UInt8] {
    var header = PacketModel(packet.bytes)!
    let start = header.transport!.offset
    // Lengths, identification, checksums; sequence number and PSH.
    let blank = header.isIPv4 ? [2, 4, 10] : [4]
    for offset in blank { header.set(0, at: offset) }
    if header.isTCP {
      for offset in [4, 6, 16] { header.set(0, at: start + offset) }
      header.bytes[start + 13] &= ~0x08
    } else {
      for offset in [4, 6] { header.set(0, at: start + offset) }
    }
    return Array(header.bytes[..<packet.headerByteCount])
  }
}

/// Packets through `Joiner`, as written to the TUN, and back through `Segmenter`. The tests and the
/// fuzzer share it.
final class JoinWorld {
  static let capacity = 256

  private let region: UnsafeMutableRawBufferPointer
  private var joiner: Joiner
  /// One write: numbers of its packets, and the segments that it is cut into again.
  private(set) var groups: [(packets: [Int], offload: PacketOffload, segments: [[UInt8]])] = []
  /// The first promise that was broken.
  private(set) var failure: String?

  init() {
    region = .allocate(byteCount: 1 << 16, alignment: Arena.pageByteCount)
    region.initializeMemory(as: UInt8.self, repeating: 0)
    var arena = Arena(region: region)
    joiner = Joiner(carvingFrom: &arena, packets: JoinWorld.capacity)
  }

  deinit {
    region.deallocate()
  }

  /// Joins at most `capacity` packets, and segments the result.
  func run(_ packets: [[UInt8]], allowTCP: Bool = true, allowUDP: Bool = true) {
    groups = []
    joiner.allowTCP = allowTCP
    joiner.allowUDP = allowUDP
    joiner.reset()
    // Each exactly as long as the packet, so that the address sanitizer sees any access outside.
    let buffers = packets.map { bytes in
      let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: max(bytes.count, 1), alignment: 1)
      buffer.copyBytes(from: bytes)
      return buffer.baseAddress!
    }
    defer { for buffer in buffers { buffer.deallocate() } }
    for (number, bytes) in packets.enumerated() {
      let candidate = JoinCandidate(at: buffers[number], byteCount: bytes.count)
      joiner.add(number, candidate, at: buffers[number], byteCount: bytes.count)
    }
    for group in 0..<joiner.groupCount { write(group, buffers) }
    check(packets)
  }

  private func write(_ group: Int, _ buffers: [UnsafeMutableRawPointer]) {
    let offload = joiner.finish(group)
    var written: [UInt8] = []
    var members: [Int] = []
    let skipped = joiner.headerByteCount(of: group)
    joiner.forEachPiece(of: group) { bytes, byteCount in
      let start = members.isEmpty ? bytes : bytes - skipped
      members.append(buffers.firstIndex(of: start) ?? -1)
      written += UnsafeRawBufferPointer(start: bytes, count: byteCount)
    }
    require(members.count == joiner.packetCount(of: group), "not as many pieces as packets")
    groups.append((members, offload, cut(written, offload, headerByteCount: skipped)))
  }

  /// Cuts a packet after its offload has passed through the TUN's virtio header.
  private func cut(
    _ bytes: [UInt8], _ offload: PacketOffload, headerByteCount: Int
  ) -> [[UInt8]] {
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: max(bytes.count, 1), alignment: 1)
    let scratch = UnsafeMutableRawPointer.allocate(
      byteCount: Segmenter.headersByteCount, alignment: 1)
    defer {
      buffer.deallocate()
      scratch.deallocate()
    }
    UnsafeMutableRawBufferPointer(start: buffer, count: bytes.count).copyBytes(from: bytes)
    offload.write(to: scratch, headerByteCount: headerByteCount)
    guard let read = PacketOffload(virtioHeader: scratch),
      var segmenter = Segmenter(
        at: buffer, byteCount: bytes.count, offload: read, headers: scratch)
    else {
      require(false, "a joined packet is refused")
      return []
    }
    return (0..<segmenter.segmentCount).map { index in
      let start = segmenter.cut(index)
      return Array(UnsafeRawBufferPointer(start: start, count: segmenter.byteCount(index)))
    }
  }

  // MARK: Promises

  /// Checks that every packet is written once, whole, and in order within its flow.
  private func check(_ packets: [[UInt8]]) {
    require(
      groups.flatMap(\.packets).sorted() == Array(0..<packets.count), "a packet is lost or doubled")
    require(
      groups.map { $0.packets.first ?? -1 } == groups.compactMap { $0.packets.first }.sorted(),
      "groups are not in the order of their first packets")
    for group in groups {
      require(group.packets.count == group.segments.count, "not as many segments as packets")
      for (number, segment) in zip(group.packets, group.segments) {
        require(JoinWorld.isSame(segment, packets[number], group.packets.count), "bytes differ")
      }
    }
    checkOrder(packets.map { JoinModel.readable($0) })
  }

  private func checkOrder(_ packets: [PacketModel?]) {
    let order = groups.flatMap(\.packets)
    for (place, number) in order.enumerated() {
      for earlier in order[..<place] where earlier > number {
        require(
          !JoinModel.mayBeOneFlow(packets[earlier], packets[number]),
          "order within a flow has changed")
      }
    }
  }

  /// Byte for byte, except that a packet with DF may have any identification (RFC 6864 section
  /// 4.1), which a segmenter counts up.
  private static func isSame(_ segment: [UInt8], _ packet: [UInt8], _ packetCount: Int) -> Bool {
    if segment == packet { return true }
    guard packetCount > 1, var one = PacketModel(segment), var other = PacketModel(packet),
      one.isIPv4, one.word(6) == 0x4000, other.hasRightChecksums, one.hasRightChecksums
    else { return false }
    one.set(0, at: 4)
    other.set(0, at: 4)
    one.updateNetworkChecksum()
    other.updateNetworkChecksum()
    return one.bytes == other.bytes
  }

  private func require(_ isTrue: Bool, _ promise: String) {
    if !isTrue, failure == nil { failure = promise }
  }
}
