#if !ONE_MODULE
  @testable import Culvert
#endif

/// Packets through `Joiner`, out as the TUN would get them, and through `Segmenter` again. The
/// tests and the fuzzer share it.
final class JoinWorld {
  static let capacity = 256

  private let region: UnsafeMutableRawBufferPointer
  private var joiner: Joiner
  /// What was written: numbers of the packets, and the segments that it is cut into again.
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

  /// Joins at most `capacity` packets and cuts what comes out.
  func run(_ packets: [[UInt8]], allowTCP: Bool = true, allowUDP: Bool = true) {
    groups = []
    joiner.allowTCP = allowTCP
    joiner.allowUDP = allowUDP
    joiner.reset()
    // Each of exactly its own bytes, so that address sanitizer sees the first one outside.
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

  /// Through the header that the TUN would see.
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

  /// Every packet comes out once, whole, and in order within its flow.
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

  /// Byte for byte; but where no packet may be fragmented, the identification may be any (RFC 6864
  /// section 4.1), and a segmenter counts it up.
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
