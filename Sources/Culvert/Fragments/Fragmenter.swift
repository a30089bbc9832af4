/// Cuts a packet into fragments (RFC 791 section 3.2, RFC 8200 section 4.5), the counterpart of
/// `Reassembler`. Each fragment is written to separate memory; the packet must not change or move
/// until the last one is written.
public struct Fragmenter: BitwiseCopyable {
  private let packet: UnsafeMutableRawPointer
  private let isIPv4: Bool
  /// The datagram's identification; in IPv4 the low 16 bits.
  private let identification: UInt32
  /// Headers of the packet, without a fragment header.
  private let headerByteCount: Int
  private let payloadByteCount: Int
  /// Headers of the first fragment and of each later one. Later ones lack the options that are not
  /// copied.
  private let firstHeaderByteCount: Int
  private let laterHeaderByteCount: Int
  /// Data of the first fragment, and of each later one except the last: multiples of 8.
  private let firstPayloadByteCount: Int
  private let laterPayloadByteCount: Int

  /// The number of fragments. 1 for a packet that fits and is written unchanged.
  public let count: Int

  /// Nil if the bytes do not start with a valid packet, or if `mtu` is below the minimum of a link:
  /// 68 for IPv4, 1280 for IPv6. Also nil if the packet is larger than `mtu` but cannot be cut:
  /// IPv4 with DF, a fragment, or with broken options; IPv6 with extension headers.
  ///
  /// - Parameter mtu: bytes of the largest fragment, headers included.
  /// - Parameter identification: not used between this source and destination for as long as
  ///   fragments may wait. IPv4 uses its low 16 bits.
  public init?(
    at packet: UnsafeMutableRawPointer, byteCount: Int, mtu: Int, identification: UInt32
  ) {
    self.packet = packet
    self.identification = identification
    let isCut: Bool
    if let header = IPv4Header(at: packet, byteCount: byteCount) {
      guard mtu >= Policy.minimumMTU else { return nil }
      isIPv4 = true
      isCut = header.totalByteCount > mtu
      headerByteCount = header.headerByteCount
      payloadByteCount = header.payloadByteCount
      firstHeaderByteCount = headerByteCount
      if isCut {
        guard !header.mayNotBeFragmented, !header.isFragment,
          let optionsByteCount = IPv4Options.copiedByteCount(of: header)
        else { return nil }
        laterHeaderByteCount = IPv4Header.minimumByteCount + optionsByteCount
      } else {
        laterHeaderByteCount = headerByteCount
      }
    } else if let header = IPv6Header(at: packet, byteCount: byteCount) {
      guard mtu >= Policy.ipv6MinimumMTU else { return nil }
      isIPv4 = false
      isCut = header.totalByteCount > mtu
      guard !isCut || !IPv6Extensions.isExtension(header.nextHeader) else { return nil }
      headerByteCount = IPv6Header.byteCount
      payloadByteCount = header.payloadByteCount
      firstHeaderByteCount =
        IPv6Header.byteCount + (isCut ? IPv6Extensions.fragmentHeaderByteCount : 0)
      laterHeaderByteCount = firstHeaderByteCount
    } else {
      return nil
    }
    guard isCut else {
      firstPayloadByteCount = payloadByteCount
      laterPayloadByteCount = 0
      count = 1
      return
    }
    // The packet is larger than `mtu`, so the subtractions cannot overflow.
    firstPayloadByteCount = (mtu - firstHeaderByteCount) & ~7
    laterPayloadByteCount = (mtu - laterHeaderByteCount) & ~7
    let rest = max(0, payloadByteCount - firstPayloadByteCount)
    count = 1 + (rest + laterPayloadByteCount - 1) / laterPayloadByteCount
  }

  /// Bytes of fragment `index`, headers included: at most the MTU.
  public func byteCount(_ index: Int) -> Int {
    (index == 0 ? firstHeaderByteCount : laterHeaderByteCount) &+ payloadByteCount(of: index)
  }

  /// Writes fragment `index`, `byteCount(index)` bytes, which may not overlap the packet.
  public func write(_ index: Int, to bytes: UnsafeMutableRawPointer) {
    precondition(index >= 0 && index < count)
    guard count > 1 else {
      bytes.copyMemory(from: packet, byteCount: headerByteCount &+ payloadByteCount)
      return
    }
    if isIPv4 { writeIPv4Header(index, bytes) } else { writeIPv6Headers(index, bytes) }
    let headerByteCount = index == 0 ? firstHeaderByteCount : laterHeaderByteCount
    (bytes + headerByteCount).copyMemory(
      from: packet + (self.headerByteCount &+ payloadByteOffset(of: index)),
      byteCount: payloadByteCount(of: index))
  }

  private func payloadByteOffset(of index: Int) -> Int {
    index == 0 ? 0 : firstPayloadByteCount &+ (index &- 1) &* laterPayloadByteCount
  }

  private func payloadByteCount(of index: Int) -> Int {
    let room = index == 0 ? firstPayloadByteCount : laterPayloadByteCount
    return min(room, payloadByteCount &- payloadByteOffset(of: index))
  }

  private func writeIPv4Header(_ index: Int, _ bytes: UnsafeMutableRawPointer) {
    let header = IPv4Header(writtenAt: bytes)
    if index == 0 {
      bytes.copyMemory(from: packet, byteCount: headerByteCount)
    } else {
      bytes.copyMemory(from: packet, byteCount: IPv4Header.minimumByteCount)
      IPv4Options.copy(
        from: IPv4Header(writtenAt: packet), to: bytes + IPv4Header.minimumByteCount,
        byteCount: laterHeaderByteCount &- IPv4Header.minimumByteCount)
      bytes.storeByte(0x40 | UInt8(truncatingIfNeeded: laterHeaderByteCount / 4), 0)
    }
    let isLast = index == count &- 1
    let offset = UInt16(truncatingIfNeeded: payloadByteOffset(of: index) / 8)
    bytes.storeBig(UInt16(truncatingIfNeeded: byteCount(index)), 2)
    bytes.storeBig(UInt16(truncatingIfNeeded: identification), 4)
    bytes.storeBig(isLast ? offset : offset | IPv4Header.moreFragmentsFlag, 6)
    header.updateChecksum()
  }

  private func writeIPv6Headers(_ index: Int, _ bytes: UnsafeMutableRawPointer) {
    bytes.copyMemory(from: packet, byteCount: IPv6Header.byteCount)
    let header = IPv6Header(writtenAt: bytes)
    let number = header.nextHeader
    header.nextHeader = IPProtocol.fragment
    header.setPayloadByteCount(
      IPv6Extensions.fragmentHeaderByteCount &+ payloadByteCount(of: index))
    let isLast = index == count &- 1
    let offset = UInt16(truncatingIfNeeded: payloadByteOffset(of: index))
    let fragment = bytes + IPv6Header.byteCount
    fragment.storeByte(number, 0)
    fragment.storeByte(0, 1)
    fragment.storeBig(isLast ? offset : offset | 1, 2)
    fragment.storeBig(identification, 4)
  }
}

/// The options of an IPv4 header that fragments copy (RFC 791 section 3.1).
private enum IPv4Options {
  private static let end: UInt8 = 0
  private static let noOperation: UInt8 = 1
  /// A flag in an option's type: the option must be copied to every fragment.
  private static let copiedFlag: UInt8 = 0x80

  /// Bytes of the copied options, rounded up to whole words; nil if an option's length is invalid.
  static func copiedByteCount(of header: IPv4Header) -> Int? {
    var byteCount = 0
    let isIntact = forEach(of: header) { option, optionByteCount in
      if option.byte(0) & copiedFlag != 0 { byteCount &+= optionByteCount }
    }
    return isIntact ? (byteCount &+ 3) & ~3 : nil
  }

  /// Writes the copied options, and zeros (the end of the options) up to `byteCount`.
  static func copy(from header: IPv4Header, to bytes: UnsafeMutableRawPointer, byteCount: Int) {
    var offset = 0
    _ = forEach(of: header) { option, optionByteCount in
      guard option.byte(0) & copiedFlag != 0 else { return }
      (bytes + offset).copyMemory(from: option, byteCount: optionByteCount)
      offset &+= optionByteCount
    }
    while offset < byteCount {
      bytes.storeByte(end, offset)
      offset &+= 1
    }
  }

  /// Calls `body` with each option that has a length. False if the options are broken.
  private static func forEach(
    of header: IPv4Header, _ body: (UnsafeMutableRawPointer, Int) -> Void
  ) -> Bool {
    var offset = IPv4Header.minimumByteCount
    while offset < header.headerByteCount {
      let option = header.bytes + offset
      if option.byte(0) == end { return true }
      if option.byte(0) == noOperation {
        offset &+= 1
        continue
      }
      let rest = header.headerByteCount &- offset
      guard rest >= 2, option.byte(1) >= 2, Int(option.byte(1)) <= rest else { return false }
      body(option, Int(option.byte(1)))
      offset &+= Int(option.byte(1))
    }
    return true
  }
}
