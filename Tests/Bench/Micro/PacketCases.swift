/// An IPv4 TCP packet as read from a TUN with offloads: `segmentCount` times 1380 bytes of payload
/// after 40 bytes of headers, with an incomplete checksum.
struct LargePacket {
  static let headerByteCount = 40
  static let segmentByteCount = 1380
  static let segmentCount = 32

  let packet = bytes(headerByteCount + segmentCount * segmentByteCount)
  let scratch = bytes(Segmenter.headersByteCount)
  private let headers = bytes(headerByteCount)
  let offload = PacketOffload(
    segmentation: .tcpIPv4, needsChecksum: true, checksumStart: 20, checksumOffset: 16,
    segmentByteCount: segmentByteCount)

  var byteCount: Int {
    LargePacket.headerByteCount + LargePacket.segmentCount * LargePacket.segmentByteCount
  }

  init() {
    headers.storeBig(0x4500 as UInt16, 0)
    headers.storeBig(UInt16(byteCount), 2)
    headers.storeBig(0x4000 as UInt16, 6)
    headers.storeBig(0x4006 as UInt16, 8)
    headers.storeBig(0x0a00_0001 as UInt32, 12)
    headers.storeBig(0x0a00_0002 as UInt32, 16)
    // Ports, a sequence number, ACK, a window.
    headers.storeBig(0xc350_01bb as UInt32, 20)
    headers.storeBig(0x5010_2000 as UInt32, 32)
    var sum = Checksum()
    sum.addPseudoHeader(
      source: IPAddress(ipv4: 0x0a00_0001), destination: IPAddress(ipv4: 0x0a00_0002),
      protocol: IPProtocol.tcp, byteCount: byteCount - 20)
    headers.storeBig(sum.folded, 36)
  }

  /// Restores the packet's headers. Segment headers have overwritten only payload, which does not
  /// matter.
  @inline(__always)
  func restore() {
    packet.copyMemory(from: headers, byteCount: LargePacket.headerByteCount)
  }

  /// Restores and segments it.
  @inline(__always)
  func cut(_ body: (UnsafeMutableRawPointer, Int) -> Void) {
    restore()
    var segmenter = Segmenter(
      at: packet, byteCount: byteCount, offload: offload, headers: scratch)!
    for index in 0..<segmenter.segmentCount {
      body(segmenter.cut(index), segmenter.byteCount(index))
    }
  }
}

private func cutting() -> (Int) -> Void {
  let large = LargePacket()
  return { count in
    for _ in 0..<count { large.cut { _, byteCount in keep(UInt64(byteCount)) } }
  }
}

/// Joins the segments of a large packet, each in separate memory. Restores the first segment's
/// headers before every run, since `finish` overwrites them.
private func joining() -> (Int) -> Void {
  let large = LargePacket()
  var segments: [(bytes: UnsafeMutableRawPointer, byteCount: Int)] = []
  large.cut { segment, byteCount in
    let place = bytes(byteCount)
    place.copyMemory(from: segment, byteCount: byteCount)
    segments.append((place, byteCount))
  }
  let first = bytes(LargePacket.headerByteCount)
  first.copyMemory(from: segments[0].bytes, byteCount: LargePacket.headerByteCount)
  let world = JoinerWorld()
  return { count in
    for _ in 0..<count {
      segments[0].bytes.copyMemory(from: first, byteCount: LargePacket.headerByteCount)
      world.joiner.reset()
      for index in 0..<segments.count {
        let (bytes, byteCount) = segments[index]
        world.joiner.add(
          index, JoinCandidate(at: bytes, byteCount: byteCount), at: bytes, byteCount: byteCount)
      }
      precondition(world.joiner.groupCount == 1)
      _ = world.joiner.finish(0)
      world.joiner.forEachPiece(of: 0) { _, byteCount in keep(UInt64(byteCount)) }
    }
  }
}

private final class JoinerWorld {
  var joiner: Joiner

  init() {
    var memory = arena(byteCount: 1 << 16)
    joiner = Joiner(carvingFrom: &memory, packets: LargePacket.segmentCount)
    joiner.allowTCP = true
  }
}

private func checksum() -> (Int) -> Void {
  let packet = bytes(1420)
  return { count in
    for _ in 0..<count {
      var sum = Checksum()
      sum.add(packet, byteCount: 1420)
      keep(UInt64(sum.value))
    }
  }
}

private func blake2s() -> (Int) -> Void {
  let input = UnsafeRawBufferPointer(start: bytes(64), count: 64)
  let digest = bytes(32)
  return { count in for _ in 0..<count { BLAKE2s.hash(into: digest, input) } }
}

var packetCases: [MicroCase] {
  [
    MicroCase(name: "checksum-1420", count: 1000, prepare: checksum),
    MicroCase(name: "blake2s-64", count: 1000, prepare: blake2s),
    MicroCase(name: "cut-32", count: 20, prepare: cutting),
    MicroCase(name: "join-32", count: 20, prepare: joining),
  ]
}
