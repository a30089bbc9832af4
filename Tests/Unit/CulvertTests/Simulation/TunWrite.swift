import Testing

@testable import Culvert

/// What one write brings to the TUN.
struct TunWrite {
  /// As `InboundBatch` says.
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
      if let offload = PacketOffload(virtioHeader: header) {
        self.offload = offload
      } else {
        Issue.record("a joined packet has no offload that can be read")
      }
    }
    var written: [UInt8] = []
    batch.forEachPiece(of: group) { bytes, byteCount in
      written += UnsafeRawBufferPointer(start: bytes, count: byteCount)
    }
    bytes = written
  }

  /// The packets that it is cut into.
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
