/// A stream of fragments, one after the other, from one seed: of a few datagrams of both families
/// at a time, drawn at random, so that duplicates are common, and in turn of very many, a flood
/// that takes all slots. One in sixteen has something wrong with it.
struct SelftestFragments {
  static let count = 8192
  static let maximumPacketByteCount = 2048

  private var random: Entropy
  private var number = 0
  private(set) var now = Instant(nanoseconds: 1 << 32)
  /// The peer that the last fragment came from.
  private(set) var sender: UInt32 = 0

  @_optimize(size)
  init(seed: UInt64) {
    random = .seeded(seed)
  }

  /// Writes the next one to `room`, of `maximumPacketByteCount` bytes; its length.
  @_optimize(size)
  mutating func next(into room: UnsafeMutableRawPointer) -> Int {
    let draw = random.uint64()
    let isIPv4 = draw & 1 == 0
    let isFlood = number & 512 != 0
    number += 1
    // A second takes four draws, so that some datagrams live to the end of their time; of a flood
    // two hundred.
    now = now.advanced(by: draw >> (isFlood ? 41 : 35))
    let identification =
      isFlood
      ? 0x8000 | UInt32(truncatingIfNeeded: draw >> 16 & 511)
      : UInt32(truncatingIfNeeded: draw >> 1 & 3 | (now.nanoseconds >> 35) << 2 & 0x7fff)
    sender = UInt32(truncatingIfNeeded: draw >> 3 & 1)
    let pieceCount = 2 + Int(truncatingIfNeeded: identification & 1)
    var piece = Int(truncatingIfNeeded: draw >> 4 & 3) % pieceCount
    var byteCount = piece + 1 == pieceCount ? 41 : 64
    var isLast = piece + 1 == pieceCount
    var mark: UInt8 = 2
    var content: UInt8 = 0
    switch draw >> 6 & 127 {
    case 0: byteCount += 8
    case 1: isLast = !isLast
    case 2: mark = 0
    case 3: content = 1
    case 4: byteCount = 0
    case 5: piece += 1
    case 6: piece = 1023
    case 7: mark = 3
    default: break
    }
    let headerByteCount = isIPv4 ? 20 : 48
    for index in 0..<byteCount {
      room.storeByte(
        UInt8(truncatingIfNeeded: index &* 7 &+ piece) ^ content, headerByteCount + index)
    }
    if isIPv4 {
      writeIPv4Header(
        at: room, byteCount: headerByteCount + byteCount, trafficClass: mark,
        identification: UInt16(truncatingIfNeeded: identification),
        fragmentField: UInt16(piece * 8) | (isLast ? 0 : IPv4Header.moreFragmentsFlag))
    } else {
      IPv6Header.write(
        at: room, payloadByteCount: 8 + byteCount, trafficClass: mark,
        nextHeader: IPProtocol.fragment, source: IPAddress(ipv6High: 1 << 61, low: 1),
        destination: IPAddress(ipv6High: 1 << 61, low: 2))
      room.storeBig(UInt16(IPProtocol.udp) << 8, 40)
      room.storeBig(UInt16(piece * 64) | (isLast ? 0 : 1), 42)
      room.storeBig(identification, 44)
    }
    return headerByteCount + byteCount
  }
}
