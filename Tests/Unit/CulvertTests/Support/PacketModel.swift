#if !ONE_MODULE
  @testable import Culvert
#endif

/// Packets as arrays, parsed and segmented the slow way. Shares no code with the core.
struct PacketModel {
  var bytes: [UInt8]
  /// Offset and protocol of the transport header; nil if there is none.
  let transport: (offset: Int, number: UInt8)?

  var isIPv4: Bool { bytes[0] >> 4 == 4 }
  var isTCP: Bool { transport?.number == 6 }

  /// Nil unless the bytes start with an IP header whose length field matches their count.
  init?(_ bytes: [UInt8]) {
    guard bytes.count >= 20 else { return nil }
    self.bytes = bytes
    let word = { (offset: Int) in Int(bytes[offset]) << 8 | Int(bytes[offset + 1]) }
    if bytes[0] >> 4 == 4 {
      let header = Int(bytes[0] & 0xf) * 4
      guard header >= 20, header <= bytes.count, word(2) == bytes.count else { return nil }
      transport = word(6) & 0x3fff == 0 ? (header, bytes[9]) : nil
    } else {
      guard bytes[0] >> 4 == 6, bytes.count >= 40, word(4) + 40 == bytes.count else { return nil }
      var number = bytes[6]
      var offset = 40
      while number == 0 || number == 43 || number == 60 {
        guard offset + 8 <= bytes.count else { break }
        number = bytes[offset]
        offset += (Int(bytes[offset + 1]) + 1) * 8
      }
      transport = offset <= bytes.count && number != 44 ? (offset, number) : nil
    }
  }

  func word(_ offset: Int) -> UInt16 {
    UInt16(bytes[offset]) << 8 | UInt16(bytes[offset + 1])
  }

  mutating func set(_ value: Int, at offset: Int) {
    bytes[offset] = UInt8(truncatingIfNeeded: value >> 8)
    bytes[offset + 1] = UInt8(truncatingIfNeeded: value)
  }

  /// RFC 1071, word by word.
  static func sum(_ bytes: [UInt8]) -> UInt16 {
    var sum = 0
    for (index, byte) in bytes.enumerated() { sum += Int(byte) << (index % 2 == 0 ? 8 : 0) }
    while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
    return UInt16(sum)
  }

  /// Source and destination.
  var addresses: [UInt8] { Array(isIPv4 ? bytes[12..<20] : bytes[8..<40]) }

  private var ipv4Header: [UInt8] { Array(bytes[..<(Int(bytes[0] & 0xf) * 4)]) }

  /// The pseudo-header of TCP or UDP.
  var pseudoHeader: [UInt8] {
    guard let transport else { return [] }
    let count = bytes.count - transport.offset
    return addresses + [UInt8(count >> 8), UInt8(count & 0xff), 0, transport.number]
  }

  /// Offset of the transport checksum from the start of the packet.
  var checksumOffset: Int? {
    guard let transport else { return nil }
    return transport.number == 6
      ? transport.offset + 16 : transport.number == 17 ? transport.offset + 6 : nil
  }

  /// Whether both checksums are right. A UDP checksum must be present.
  var hasRightChecksums: Bool {
    if isIPv4, PacketModel.sum(ipv4Header) != 0xffff { return false }
    guard let transport, let checksumOffset, checksumOffset + 2 <= bytes.count else { return false }
    if !isTCP, word(checksumOffset) == 0 { return false }
    return PacketModel.sum(pseudoHeader + bytes[transport.offset...]) == 0xffff
  }

  /// Writes both checksums.
  mutating func updateChecksums() {
    updateNetworkChecksum()
    updateTransportChecksum()
  }

  mutating func updateTransportChecksum() {
    guard let transport, let checksumOffset else { return }
    set(0, at: checksumOffset)
    let value = ~PacketModel.sum(pseudoHeader + bytes[transport.offset...])
    set(Int(value == 0 && !isTCP ? 0xffff : value), at: checksumOffset)
  }

  mutating func updateNetworkChecksum() {
    guard isIPv4 else { return }
    set(0, at: 10)
    set(Int(~PacketModel.sum(ipv4Header)), at: 10)
  }

  /// Writes the pseudo-header's sum into the transport checksum's field.
  mutating func leaveChecksum() {
    guard let checksumOffset, checksumOffset + 2 <= bytes.count else { return }
    set(Int(PacketModel.sum(pseudoHeader)), at: checksumOffset)
  }

  /// Bytes of IP and transport headers.
  var headerByteCount: Int {
    guard let transport else { return 0 }
    return transport.offset + (isTCP ? Int(bytes[transport.offset + 12] >> 4) * 4 : 8)
  }

  var payload: [UInt8] { Array(bytes[headerByteCount...]) }

  var payloadByteCount: Int { bytes.count - headerByteCount }

  /// The packets that this one is segmented into, with `size` bytes of payload each.
  func segments(of size: Int) -> [[UInt8]] {
    let header = Array(bytes[..<headerByteCount])
    var rest = payload[...]
    var segments: [[UInt8]] = []
    repeat {
      let part = rest.prefix(size)
      rest = rest.dropFirst(size)
      var segment = self
      segment.bytes = header + part
      segment.become(segments.count, of: size, isLast: rest.isEmpty)
      segments.append(segment.bytes)
    } while !rest.isEmpty
    return segments
  }

  private mutating func become(_ index: Int, of size: Int, isLast: Bool) {
    guard let start = transport?.offset else { return }
    if isIPv4 {
      set(bytes.count, at: 2)
      set(Int(word(4)) + index, at: 4)
    } else {
      set(bytes.count - 40, at: 4)
    }
    if isTCP {
      let sequence = Int(word(start + 4)) << 16 + Int(word(start + 6)) + index * size
      set(sequence >> 16, at: start + 4)
      set(sequence, at: start + 6)
      // FIN and PSH for the last, CWR for the first.
      if !isLast { bytes[start + 13] &= 0b1111_0110 }
      if index != 0 { bytes[start + 13] &= 0b0111_1111 }
    } else {
      set(bytes.count - start, at: start + 4)
    }
    updateChecksums()
  }
}
