#if !ONE_MODULE
  @testable import Culvert
#endif

/// A fragment, or a whole packet, before it is bytes. Addresses are short names: 10.0.0.`source`,
/// or 2001:db8:0:`source`::1.
struct TestFragment {
  var isIPv4 = true
  var source: UInt8 = 1
  var destination: UInt8 = 200
  /// Protocol number of what the datagram carries.
  var number: UInt8 = 17
  var identification: UInt32 = 7
  var byteOffset = 0
  var hasMore = false
  var trafficClass: UInt8 = 0
  /// 1 and more; so that headers differ.
  var timeToLive: UInt8 = 64
  /// Of IPv4, a multiple of 4.
  var options: [UInt8] = []
  /// IPv4's flag; a fragment may have it (F13).
  var mayNotBeFragmented = false
  /// IPv6 headers before the fragment header: each its number and its bytes, of which the first
  /// is for the number that follows.
  var extensions: [(number: UInt8, bytes: [UInt8])] = []
  /// False for an IPv6 packet without a fragment header.
  var hasFragmentHeader = true
  var payload: [UInt8] = []

  var bytes: [UInt8] { isIPv4 ? ipv4Bytes : ipv6Bytes }

  var headerByteCount: Int { bytes.count - payload.count }

  private var ipv4Bytes: [UInt8] {
    let headerByteCount = 20 + options.count
    var field = UInt16(truncatingIfNeeded: byteOffset / 8) & 0x1fff
    if hasMore { field |= 0x2000 }
    if mayNotBeFragmented { field |= 0x4000 }
    var bytes: [UInt8] = [0x40 | UInt8(headerByteCount / 4), trafficClass]
    bytes += big(UInt16(truncatingIfNeeded: headerByteCount + payload.count))
    bytes += big(UInt16(truncatingIfNeeded: identification)) + big(field)
    bytes += [timeToLive, number, 0, 0, 10, 0, 0, source, 10, 0, 0, destination] + options
    TestFragment.writeChecksum(&bytes)
    return bytes + payload
  }

  private var ipv6Bytes: [UInt8] {
    var chain: [UInt8] = []
    let fragmentNumber = hasFragmentHeader ? 44 : number
    for (index, header) in extensions.enumerated() {
      let next = index + 1 < extensions.count ? extensions[index + 1].number : fragmentNumber
      chain += [next] + header.bytes.dropFirst()
    }
    if hasFragmentHeader {
      let field = UInt16(truncatingIfNeeded: byteOffset) & 0xfff8 | (hasMore ? 1 : 0)
      chain += [number, 0] + big(field) + big(UInt16(truncatingIfNeeded: identification >> 16))
      chain += big(UInt16(truncatingIfNeeded: identification))
    }
    var bytes: [UInt8] = [0x60 | trafficClass >> 4, trafficClass << 4, 0, 9]
    bytes += big(UInt16(truncatingIfNeeded: chain.count + payload.count))
    bytes += [extensions.first?.number ?? fragmentNumber, timeToLive]
    bytes += [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, source, 0, 0, 0, 0, 0, 0, 0, 1]
    bytes += [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, destination, 0, 0, 0, 0, 0, 0, 0, 2]
    return bytes + chain + payload
  }

  /// The fragments of this datagram, `size` bytes of its payload each, a multiple of 8.
  func cut(_ size: Int) -> [TestFragment] {
    stride(from: 0, to: payload.count, by: size).map { offset in
      var fragment = self
      fragment.byteOffset = offset
      fragment.payload = Array(payload[offset..<min(offset + size, payload.count)])
      fragment.hasMore = offset + size < payload.count
      return fragment
    }
  }

  /// The packet as it was before it was cut.
  var whole: TestFragment {
    var packet = self
    packet.hasFragmentHeader = false
    packet.mayNotBeFragmented = false
    return packet
  }

  /// Over an IPv4 header alone, as long as the array.
  static func writeChecksum(_ header: inout [UInt8]) {
    header[10] = 0
    header[11] = 0
    var sum = 0
    for index in stride(from: 0, to: header.count, by: 2) {
      sum += Int(header[index]) << 8 | Int(header[index + 1])
    }
    while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
    header[10] = UInt8(~sum >> 8 & 0xff)
    header[11] = UInt8(~sum & 0xff)
  }

  private func big(_ word: UInt16) -> [UInt8] {
    [UInt8(word >> 8), UInt8(word & 0xff)]
  }
}
