@testable import Culvert

/// A datagram that a tunnel under test wants to have sent.
struct Emission {
  var bytes: [UInt8]
  var path: Path
  var trafficClass: UInt8

  var type: UInt8 { bytes[0] }
  var isTransportData: Bool { type == 4 }
  var isKeepalive: Bool { isTransportData && bytes.count == WireGuard.keepaliveByteCount }

  /// Of transport data.
  var counter: UInt64 { little(at: 8, as: UInt64.self) }
  var receiver: UInt32 { little(at: type == 2 ? 8 : 4, as: UInt32.self) }

  private func little<T: FixedWidthInteger & BitwiseCopyable>(at offset: Int, as: T.Type) -> T {
    bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
  }
}
