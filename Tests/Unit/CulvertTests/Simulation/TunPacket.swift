@testable import Culvert

/// A packet as a TUN gives it: whole, or to be cut into segments.
struct TunPacket {
  var bytes: [UInt8]
  var offload = PacketOffload.none
  /// What the other end has to get for it.
  var segments: [[UInt8]]

  /// A packet with nothing left to do.
  init(_ bytes: [UInt8]) {
    self.bytes = bytes
    segments = [bytes]
  }

  /// A TCP or UDP packet whose segments and checksums are left to us.
  init(_ flow: FlowPacket, segmentByteCount: Int) {
    self.init(
      PacketModel(flow.unfinishedBytes)!, flow.offload(segmentByteCount: segmentByteCount))
  }

  /// The same from its bytes.
  init(_ unfinished: PacketModel, _ offload: PacketOffload) {
    bytes = unfinished.bytes
    self.offload = offload
    segments = unfinished.segments(of: offload.segmentByteCount)
  }
}
