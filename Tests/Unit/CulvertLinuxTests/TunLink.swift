import CLinux
import Glibc
import Testing

@testable import Culvert
@testable import CulvertLinux

/// What carries packets from one TUN to another, in place of a tunnel and a network.
final class TunLink {
  enum Way: CaseIterable {
    /// Each packet is cut, and each segment written alone.
    case cut
    /// What was cut is joined again, with whatever else fits.
    case joined
    /// As it was read, with the virtio header.
    case unchanged
  }

  let way: Way
  /// Packets that were read with segments in them, and those with a checksum left to do.
  private(set) var segmentedCount = 0
  private(set) var uncheckedCount = 0
  /// Writes of several packets as one.
  private(set) var joinedCount = 0
  private let region: MemoryRegion
  private let buffer: UnsafeMutableRawPointer
  private let scratch: UnsafeMutableRawPointer
  private var joiner: Joiner
  private static let capacity = 512

  init(_ way: Way) throws {
    self.way = way
    region = try MemoryRegion(byteCount: 1 << 20)
    var arena = Arena(region: region.bytes)
    buffer = arena.carveBytes(65_535 + 128, owner: "buffer").baseAddress! + 64
    scratch = arena.carveBytes(Segmenter.headersByteCount, owner: "headers").baseAddress!
    joiner = Joiner(carvingFrom: &arena, packets: TunLink.capacity)
  }

  /// Carries what there is.
  func carry(from source: borrowing TunDevice, to target: borrowing TunDevice) {
    var packets: [[UInt8]] = []
    while packets.count < TunLink.capacity - 64 {
      let packet = source.read(
        into: UnsafeMutableRawBufferPointer(start: buffer, count: 65_535))
      guard packet.byteCount >= 0 else { break }
      if packet.offload.segmentation != .none { segmentedCount += 1 }
      if packet.offload.needsChecksum { uncheckedCount += 1 }
      if way == .unchanged {
        write(packet, to: target)
      } else {
        packets += cut(packet)
      }
    }
    if way == .cut { for packet in packets { write(packet, to: target) } }
    if way == .joined { join(packets, to: target) }
  }

  private func cut(_ packet: TunDevice.Packet) -> [[UInt8]] {
    guard
      var segmenter = Segmenter(
        at: buffer, byteCount: packet.byteCount, offload: packet.offload, headers: scratch)
    else {
      Issue.record("a packet from the kernel cannot be cut")
      return []
    }
    return (0..<segmenter.segmentCount).map { index in
      let start = segmenter.cut(index)
      return [UInt8](UnsafeRawBufferPointer(start: start, count: segmenter.byteCount(index)))
    }
  }

  private func write(_ packet: [UInt8], to target: borrowing TunDevice) {
    var bytes = [UInt8](repeating: 0xee, count: TunDevice.headroom) + packet
    let written = bytes.withUnsafeMutableBytes {
      target.write(UnsafeMutableRawBufferPointer(rebasing: $0[TunDevice.headroom...]))
    }
    #expect(written == packet.count)
  }

  private func write(_ packet: TunDevice.Packet, to target: borrowing TunDevice) {
    let header = buffer - target.headerByteCount
    header.initializeMemory(as: UInt8.self, repeating: 0, count: target.headerByteCount)
    packet.offload.write(
      to: header, headerByteCount: packet.offload.checksumStart + packet.offload.checksumOffset)
    var slice = clinux_slice(
      bytes: header, byte_count: packet.byteCount + target.headerByteCount)
    #expect(target.write(pieces: &slice, count: 1) == slice.byte_count)
  }

  /// As the inbound lane does it.
  private func join(_ packets: [[UInt8]], to target: borrowing TunDevice) {
    let buffers = packets.map { packet in
      let bytes = UnsafeMutableRawPointer.allocate(byteCount: 64 + packet.count, alignment: 16)
      UnsafeMutableRawBufferPointer(start: bytes + 64, count: packet.count)
        .copyBytes(from: packet)
      return bytes
    }
    defer { for bytes in buffers { bytes.deallocate() } }
    joiner.reset()
    joiner.allowTCP = true
    joiner.allowUDP = true
    for (index, packet) in packets.enumerated() {
      let bytes = buffers[index] + 64
      joiner.add(
        index, JoinCandidate(at: bytes, byteCount: packet.count), at: bytes,
        byteCount: packet.count)
    }
    for group in 0..<joiner.groupCount {
      var slices: [clinux_slice] = []
      joiner.forEachPiece(of: group) { slices.append(clinux_slice(bytes: $0, byte_count: $1)) }
      let header = slices[0].bytes! - target.headerByteCount
      header.initializeMemory(as: UInt8.self, repeating: 0, count: target.headerByteCount)
      joiner.finish(group).write(to: header, headerByteCount: joiner.headerByteCount(of: group))
      slices[0].bytes = header
      slices[0].byte_count += target.headerByteCount
      if slices.count > 1 { joinedCount += 1 }
      let byteCount = slices.map(\.byte_count).reduce(0, +)
      #expect(target.write(pieces: slices, count: slices.count) == byteCount)
    }
  }
}
