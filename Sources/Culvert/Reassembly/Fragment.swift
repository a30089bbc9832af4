/// The door for fragments: one fragment of an IPv4 or IPv6 datagram, everything about it checked
/// that can be checked without the others.
struct Fragment: BitwiseCopyable {
  let key: FragmentKey
  let packet: UnsafeMutableRawPointer
  /// Everything before the data; of IPv6 the fragment header too.
  let headerByteCount: Int
  /// Where the data belongs in the datagram's payload: a multiple of 8.
  let byteOffset: Int
  /// More than zero, and a multiple of 8 where more fragments follow (F7).
  let payloadByteCount: Int
  let isLast: Bool
  /// The ECN codepoint.
  let mark: UInt8
  /// Of IPv6: where, from the packet's start, the number of the fragment header stands.
  let numberByteOffset: Int

  @inline(__always)
  var endByteOffset: Int { byteOffset &+ payloadByteCount }

  /// Whether its data is what lies at its place in `payload`.
  func hasData(of payload: UnsafeMutableRawPointer) -> Bool {
    let held = payload + byteOffset
    let data = packet + headerByteCount
    var offset = 0
    while payloadByteCount &- offset >= 8 {
      let word = data.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      guard held.loadUnaligned(fromByteOffset: offset, as: UInt64.self) == word else {
        return false
      }
      offset &+= 8
    }
    while offset < payloadByteCount {
      guard held.byte(offset) == data.byte(offset) else { return false }
      offset &+= 1
    }
    return true
  }
}
