@testable import Culvert

/// Inner packets for tests.
enum TestPacket {
  /// UDP's number, with a payload that need not be UDP: nothing below looks at it.
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
