/// What a packet turned out to be.
enum FragmentReading: BitwiseCopyable {
  case whole
  /// An IPv6 packet with a fragment header, and yet whole (F5).
  case atomic(IPv6Extensions)
  case fragment(Fragment)
  case refused(FragmentVerdict)

  /// - Parameter maximumByteCount: of the whole packet.
  @inline(__always)
  static func of(
    _ header: IPv4Header, from sender: UInt32, maximumByteCount: Int
  ) -> FragmentReading {
    let field = header.fragmentField
    guard field & 0x3fff != 0 else { return .whole }
    guard header.hasIntactChecksum else { return .refused(.badChecksum) }
    let fragment = Fragment(
      key: FragmentKey(header, sender: sender), packet: header.bytes,
      headerByteCount: header.headerByteCount, byteOffset: Int(field & 0x1fff) &* 8,
      payloadByteCount: header.payloadByteCount,
      isLast: field & IPv4Header.moreFragmentsFlag == 0,
      mark: header.trafficClass & ECN.mask, numberByteOffset: 0)
    // In an `Int` of 32 bits too: three numbers of 16 (F2).
    let byteCount = fragment.headerByteCount &+ fragment.endByteOffset
    return check(
      fragment, byteCount: byteCount, lengthField: byteCount, maximumByteCount: maximumByteCount)
  }

  @inline(__always)
  static func of(
    _ header: IPv6Header, from sender: UInt32, maximumByteCount: Int
  ) -> FragmentReading {
    guard IPv6Extensions.isExtension(header.nextHeader) else { return .whole }
    guard let extensions = IPv6Extensions(of: header) else { return .refused(.brokenHeaderChain) }
    let start = extensions.fragmentHeaderByteOffset
    guard start != 0 else { return .whole }
    let field = header.bytes.loadBig(start &+ 2, as: UInt16.self)
    if field & 0xfff8 == 0 {
      guard extensions.endsInUpperHeader(of: header) else { return .refused(.brokenHeaderChain) }
      guard field & 1 != 0 else { return .atomic(extensions) }
    }
    let fragment = Fragment(
      key: FragmentKey(
        header, identification: header.bytes.loadBig(start &+ 4, as: UInt32.self), sender: sender),
      packet: header.bytes, headerByteCount: start &+ IPv6Extensions.fragmentHeaderByteCount,
      byteOffset: extensions.fragmentByteOffset,
      payloadByteCount: header.totalByteCount &- start &- IPv6Extensions.fragmentHeaderByteCount,
      isLast: field & 1 == 0, mark: header.trafficClass & ECN.mask,
      numberByteOffset: extensions.fragmentNumberByteOffset)
    if fragment.byteOffset == 0, fragment.headerByteCount > Policy.fragmentHeadersByteCount {
      return .refused(.headersTooLong)
    }
    let byteCount = start &+ fragment.endByteOffset
    return check(
      fragment, byteCount: byteCount, lengthField: byteCount &- IPv6Header.byteCount,
      maximumByteCount: maximumByteCount)
  }

  /// - Parameter byteCount: of the whole packet if it ended where this fragment does.
  /// - Parameter lengthField: what its header's length field would then say.
  @inline(__always)
  private static func check(
    _ fragment: Fragment, byteCount: Int, lengthField: Int, maximumByteCount: Int
  ) -> FragmentReading {
    guard fragment.payloadByteCount > 0, fragment.isLast || fragment.payloadByteCount & 7 == 0
    else { return .refused(.badLength) }
    guard lengthField <= 65_535 else { return .refused(.impossibleLength) }
    guard byteCount <= maximumByteCount else { return .refused(.tooLarge) }
    return .fragment(fragment)
  }
}
