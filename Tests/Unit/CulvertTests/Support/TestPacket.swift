#if !ONE_MODULE
  @testable import Culvert
#endif

/// Inner packets for tests.
enum TestPacket {
  /// A packet with UDP's protocol number and an arbitrary payload, which nothing parses.
  static func ipv4(
    from source: IPAddress, to destination: IPAddress, payload: [UInt8] = [],
    trafficClass: UInt8 = 0, options: [UInt8] = []
  ) -> [UInt8] {
    var packet = [UInt8](repeating: 0, count: 20 + options.count + payload.count)
    let byteCount = packet.count
    packet.withUnsafeMutableBytes { bytes in
      let start = bytes.baseAddress!
      let header = IPv4Header.write(
        at: start, totalByteCount: byteCount, trafficClass: trafficClass, protocol: 17,
        source: source, destination: destination)
      start.storeByte(0x40 | UInt8((20 + options.count) / 4), 0)
      UnsafeMutableRawBufferPointer(rebasing: bytes[20...]).copyBytes(from: options + payload)
      header.updateChecksum()
    }
    return packet
  }

  static func ipv6(
    from source: IPAddress, to destination: IPAddress, payload: [UInt8] = [],
    trafficClass: UInt8 = 0
  ) -> [UInt8] {
    var packet = [UInt8](repeating: 0, count: 40 + payload.count)
    packet.withUnsafeMutableBytes { bytes in
      let start = bytes.baseAddress!
      start.storeBig(UInt32(6) << 28 | UInt32(trafficClass) << 20, 0)
      start.storeBig(UInt16(payload.count), 4)
      start.storeByte(17, 6)
      start.storeByte(64, 7)
      source.write(to: start + 8)
      destination.write(to: start + 24)
      UnsafeMutableRawBufferPointer(rebasing: bytes[40...]).copyBytes(from: payload)
    }
    return packet
  }
}

/// A packet as read from a TUN: complete, or to be segmented.
struct TunPacket {
  var bytes: [UInt8]
  var offload = PacketOffload.none
  /// The packets that the other end must receive.
  var segments: [[UInt8]]

  /// A complete packet.
  init(_ bytes: [UInt8]) {
    self.bytes = bytes
    segments = [bytes]
  }

  /// A TCP or UDP packet that the tunnel has to segment and checksum.
  init(_ flow: FlowPacket, segmentByteCount: Int) {
    self.init(
      PacketModel(flow.unfinishedBytes)!, flow.offload(segmentByteCount: segmentByteCount))
  }

  /// The same, from its bytes.
  init(_ unfinished: PacketModel, _ offload: PacketOffload) {
    bytes = unfinished.bytes
    self.offload = offload
    segments = unfinished.segments(of: offload.segmentByteCount)
  }
}

/// One write to the TUN.
struct TunWrite {
  /// The count that `InboundBatch` reports.
  var packetCount: Int
  var bytes: [UInt8] = []
  var offload = PacketOffload.none

  /// Writes a group as the inbound lane does, with the virtio header in the first piece's headroom.
  init(_ group: Int, of batch: inout InboundBatch) {
    packetCount = batch.packetCount(of: group)
    var header: UnsafeMutableRawPointer?
    batch.forEachPiece(of: group) { bytes, _ in
      if header == nil { header = bytes - BatchLayout.headroom }
    }
    guard let header else { return }
    if packetCount > 1 {
      _ = batch.finish(group, virtioHeader: header)
      guard let offload = PacketOffload(virtioHeader: header) else {
        preconditionFailure("a joined packet has no offload that can be read")
      }
      self.offload = offload
    }
    var written: [UInt8] = []
    batch.forEachPiece(of: group) { bytes, byteCount in
      written += UnsafeRawBufferPointer(start: bytes, count: byteCount)
    }
    bytes = written
  }

  /// The packets that the kernel would make from it.
  var packets: [[UInt8]] {
    var copy = bytes
    var scratch = [UInt8](repeating: 0, count: Segmenter.headersByteCount)
    return copy.withUnsafeMutableBytes { bytes in
      scratch.withUnsafeMutableBytes { headers in
        guard
          var segmenter = Segmenter(
            at: bytes.baseAddress!, byteCount: bytes.count, offload: offload,
            headers: headers.baseAddress!)
        else { return [] }
        return (0..<segmenter.segmentCount).map { index in
          let start = segmenter.cut(index)
          return [UInt8](
            UnsafeRawBufferPointer(start: start, count: segmenter.byteCount(index)))
        }
      }
    }
  }
}

/// Bytes at a fixed address, for views. Exactly as long as requested, so that the address sanitizer
/// sees any read beyond the end.
final class PacketBuffer {
  let start: UnsafeMutableRawPointer
  let byteCount: Int

  init(_ bytes: [UInt8]) {
    byteCount = bytes.count
    start = .allocate(byteCount: max(bytes.count, 1), alignment: 1)
    UnsafeMutableRawBufferPointer(start: start, count: byteCount).copyBytes(from: bytes)
  }

  convenience init(byteCount: Int) {
    self.init([UInt8](repeating: 0, count: byteCount))
  }

  deinit {
    start.deallocate()
  }

  var bytes: [UInt8] {
    Array(UnsafeRawBufferPointer(start: start, count: byteCount))
  }

  subscript(offset: Int) -> UInt8 {
    get { start.byte(offset) }
    set { start.storeByte(newValue, offset) }
  }
}
