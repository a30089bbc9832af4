import Testing

@testable import Culvert

/// flags, type, header bytes, segment bytes, start, offset; as `struct virtio_net_hdr` lies.
private func header(_ flags: UInt8, _ type: UInt8, _ numbers: [UInt16]) -> [UInt8] {
  [flags, type] + numbers.flatMap { number in withUnsafeBytes(of: number) { Array($0) } }
}

private func read(_ bytes: [UInt8]) -> PacketOffload? {
  bytes.withUnsafeBytes { PacketOffload(virtioHeader: $0.baseAddress!) }
}

@Suite struct PacketOffloadTests {
  @Test func wholePackets() throws {
    let none = try #require(read(header(0, 0, [0, 0, 0, 0])))
    #expect(none.segmentation == .none && !none.needsChecksum)
    // VIRTIO_NET_HDR_F_DATA_VALID: nothing to do.
    #expect(try #require(read(header(2, 0, [0, 0, 20, 16]))).needsChecksum == false)
    let unfinished = try #require(read(header(1, 0, [40, 0, 20, 16])))
    #expect(unfinished.segmentation == .none && unfinished.needsChecksum)
    #expect(unfinished.checksumStart == 20 && unfinished.checksumOffset == 16)
    #expect(unfinished.segmentByteCount == 0)
  }

  @Test(arguments: 0...255) func types(type: Int) {
    let kind = read(header(1, UInt8(type), [66, 1380, 40, 16]))?.segmentation
    switch type {
    case 0: #expect(kind == PacketOffload.Segmentation.none)
    case 1, 0x81: #expect(kind == .tcpIPv4)
    case 4, 0x84: #expect(kind == .tcpIPv6)
    case 5: #expect(kind == .udp)
    default: #expect(kind == nil)
    }
  }

  @Test func segmentsNeedAChecksumAndASize() {
    for type: UInt8 in [1, 0x81, 4, 0x84, 5] {
      #expect(read(header(0, type, [54, 1380, 20, 16])) == nil)
      #expect(read(header(2, type, [54, 1380, 20, 16])) == nil)
      #expect(read(header(1, type, [54, 0, 20, 16])) == nil)
      #expect(read(header(1, type, [54, 65_535, 20, 16]))?.segmentByteCount == 65_535)
    }
  }

  @Test func writtenHeaders() {
    func written(_ offload: PacketOffload, _ headerByteCount: Int) -> [UInt8] {
      var bytes = [UInt8](repeating: 0xaa, count: PacketOffload.virtioHeaderByteCount + 1)
      bytes.withUnsafeMutableBytes {
        offload.write(to: $0.baseAddress!, headerByteCount: headerByteCount)
      }
      #expect(bytes.last == 0xaa)
      return bytes.dropLast()
    }
    #expect(written(.none, 0) == header(0, 0, [0, 0, 0, 0]))
    let kinds: [(PacketOffload.Segmentation, UInt8)] = [(.tcpIPv4, 1), (.tcpIPv6, 4), (.udp, 5)]
    for (kind, type) in kinds {
      let offload = PacketOffload(
        segmentation: kind, needsChecksum: true, checksumStart: 40, checksumOffset: 16,
        segmentByteCount: 1380)
      #expect(written(offload, 72) == header(1, type, [72, 1380, 40, 16]))
    }
  }
}
