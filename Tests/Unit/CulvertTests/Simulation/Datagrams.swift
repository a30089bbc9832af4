#if !ONE_MODULE
  @testable import Culvert
#endif

/// A datagram that reaches a tunnel under test.
struct Arrival {
  var bytes: [UInt8]
  var path: Path
  var trafficClass: UInt8 = 0
  var isTruncated = false
  /// If the bytes are several datagrams: the size of each but the last.
  var segmentByteCount = 0

  init(
    _ bytes: [UInt8], from endpoint: Endpoint, trafficClass: UInt8 = 0, isTruncated: Bool = false
  ) {
    self.bytes = bytes
    path = Path(to: endpoint)
    self.trafficClass = trafficClass
    self.isTruncated = isTruncated
  }

  /// Coalesces datagrams as UDP_GRO does: up to 64 from one sender with one class and one size;
  /// only the last may be shorter.
  static func glued(_ arrivals: [Arrival]) -> [Arrival] {
    var glued: [Arrival] = []
    var count = 0
    for arrival in arrivals {
      guard var last = glued.last, !last.isTruncated, !arrival.isTruncated,
        last.path == arrival.path, last.trafficClass == arrival.trafficClass, count < 64,
        last.bytes.count + arrival.bytes.count <= BatchLayout.maximumDatagram
      else {
        glued.append(arrival)
        count = 1
        continue
      }
      let size = count == 1 ? last.bytes.count : last.segmentByteCount
      guard !arrival.bytes.isEmpty, size > 0, arrival.bytes.count <= size,
        last.bytes.count == size * count
      else {
        glued.append(arrival)
        count = 1
        continue
      }
      last.bytes += arrival.bytes
      last.segmentByteCount = size
      glued[glued.count - 1] = last
      count += 1
    }
    return glued
  }
}

/// A datagram that a tunnel under test sends.
struct Emission {
  var bytes: [UInt8]
  var path: Path
  var trafficClass: UInt8

  var type: UInt8 { bytes[0] }
  var isTransportData: Bool { type == 4 }
  var isKeepalive: Bool { isTransportData && bytes.count == WireGuard.keepaliveByteCount }

  /// Counter of a transport data message.
  var counter: UInt64 { little(at: 8, as: UInt64.self) }
  var receiver: UInt32 { little(at: type == 2 ? 8 : 4, as: UInt32.self) }

  private func little<T: FixedWidthInteger & BitwiseCopyable>(at offset: Int, as: T.Type) -> T {
    bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
  }
}

extension [Arrival] {
  /// Appends the datagrams from position `next` on to a batch, as many as it has room for.
  func append(to batch: inout InboundBatch, from next: inout Int) {
    while next < count, let room = batch.room {
      let arrival = self[next]
      room.copyBytes(from: arrival.bytes)
      batch.append(
        byteCount: arrival.bytes.count, from: arrival.path, trafficClass: arrival.trafficClass,
        isTruncated: arrival.isTruncated, segmentByteCount: arrival.segmentByteCount)
      next += 1
    }
  }
}
