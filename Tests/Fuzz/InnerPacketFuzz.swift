// Inner packets: the views over them, ICMP errors about them, and their path through two tunnels.
// Build and run: Tests/Fuzz/run inner.
//
// The first byte selects the kind of ICMP error, the rest is the packet. Every buffer is an
// allocation of exactly the bytes that its user may touch, so that the address sanitizer sees any
// access outside.

nonisolated(unsafe) private let world: DoorWorld = {
  precondition(Sodium.start())
  return DoorWorld()
}()

func fuzzInnerPackets(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  guard let bytes, count > 0 else { return 0 }
  let packet = UnsafeRawBufferPointer(start: bytes + 1, count: count - 1)
  InnerPacketFuzz.parse(packet)
  InnerPacketFuzz.answer(packet, choice: bytes[0])
  InnerPacketFuzz.plan(packet)
  InnerPacketFuzz.carry(packet)
  return 0
}

enum InnerPacketFuzz {
  // MARK: Views

  /// Reads every field of a packet through all views that accept it.
  static func parse(_ packet: UnsafeRawBufferPointer) {
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: packet.count, alignment: 1)
    defer { copy.deallocate() }
    copy.copyMemory(from: packet)
    guard let start = copy.baseAddress else { return }
    let inner = InnerPacket(at: start, byteCount: copy.count)
    if let inner { require(inner.byteCount > 0 && inner.byteCount <= copy.count) }
    if let header = IPv4Header(at: start, byteCount: copy.count) {
      require(inner?.byteCount == header.totalByteCount)
      _ = header.hasIntactChecksum
      parseTransport(header.payload, header.payloadByteCount, inner)
      header.updateChecksum()
      require(header.hasIntactChecksum)
      header.timeToLive &-= 1
      header.trafficClass = ~header.trafficClass
      header.fragmentField ^= IPv4Header.moreFragmentsFlag
      header.setTotalByteCount(header.totalByteCount)
      require(header.hasIntactChecksum, "an incremental checksum is wrong")
    }
    if let header = IPv6Header(at: start, byteCount: copy.count) {
      require(inner?.byteCount == header.totalByteCount)
      parseTransport(header.payload, header.payloadByteCount, inner)
      guard let extensions = IPv6Extensions(of: header) else { return }
      require(
        extensions.byteOffset >= IPv6Header.byteCount
          && extensions.byteOffset <= header.totalByteCount)
      parseTransport(
        start + extensions.byteOffset, header.totalByteCount - extensions.byteOffset, inner)
    }
  }

  private static func parseTransport(
    _ bytes: UnsafeMutableRawPointer, _ byteCount: Int, _ inner: InnerPacket?
  ) {
    if let header = UDPHeader(at: bytes, byteCount: byteCount) {
      require(header.totalByteCount <= byteCount && header.payloadByteCount >= 0)
      if let inner {
        _ = header.hasIntactChecksum(source: inner.source, destination: inner.destination)
      }
    }
    if let header = TCPHeader(at: bytes, byteCount: byteCount) {
      require(header.headerByteCount <= byteCount)
      header.sequence &+= 1
      _ = header.flags
    }
  }

  // MARK: ICMP

  /// Builds an error about the packet. The error must be a valid packet, and must not itself be
  /// answered with an error.
  static func answer(_ packet: UnsafeRawBufferPointer, choice: UInt8) {
    let headroom = ICMPError.headroomByteCount
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: headroom + packet.count, alignment: 1)
    defer { buffer.deallocate() }
    let start = buffer.baseAddress!
    UnsafeMutableRawBufferPointer(rebasing: buffer[headroom...]).copyMemory(from: packet)
    let kind: ICMPErrorKind =
      switch choice & 7 {
      case 0: .noRoute
      case 1: .administrativelyProhibited
      case 2: .packetTooBig(mtu: UInt32(choice) << 3)
      case 3: .reassemblyTimeExceeded
      default: .hostUnreachable
      }
    guard
      let error = ICMPError.write(
        kind, in: start, packetByteOffset: headroom, packetByteCount: packet.count)
    else { return }
    require(error.byteOffset >= 0 && error.byteCount > 0)
    require(error.byteOffset + error.byteCount <= buffer.count)
    let written = start + error.byteOffset
    guard let inner = InnerPacket(at: written, byteCount: error.byteCount) else {
      preconditionFailure("an ICMP error is no packet")
    }
    require(inner.byteCount == error.byteCount)
    if let header = IPv4Header(at: written, byteCount: error.byteCount) {
      require(error.byteCount <= 576 && header.hasIntactChecksum)
      checkSum(header.payload, header.payloadByteCount, nil)
    } else {
      require(error.byteCount <= Policy.ipv6MinimumMTU)
      checkSum(
        written + IPv6Header.byteCount, error.byteCount - IPv6Header.byteCount, inner)
    }
    // RFC 1122 section 3.2.2: no errors about errors.
    let again = UnsafeMutableRawBufferPointer.allocate(
      byteCount: headroom + error.byteCount, alignment: 1)
    defer { again.deallocate() }
    (again.baseAddress! + headroom).copyMemory(from: written, byteCount: error.byteCount)
    require(
      ICMPError.write(
        .hostUnreachable, in: again.baseAddress!, packetByteOffset: headroom,
        packetByteCount: error.byteCount) == nil, "an ICMP error is answered with another")
  }

  private static func checkSum(
    _ bytes: UnsafeMutableRawPointer, _ byteCount: Int, _ inner: InnerPacket?
  ) {
    var sum = Checksum()
    if let inner {
      sum.addPseudoHeader(
        source: inner.source, destination: inner.destination, protocol: IPProtocol.icmpv6,
        byteCount: byteCount)
    }
    sum.add(bytes, byteCount: byteCount)
    require(sum.isIntact, "an ICMP error's checksum is wrong")
  }

  // MARK: Through the tunnel

  /// Sends a packet from `near`'s TUN: it is sealed, staged, answered or dropped.
  static func plan(_ packet: UnsafeRawBufferPointer) {
    world.restore()
    let end = world.near
    end.outbound.reset()
    guard let room = end.outbound.room(for: packet.count) else { return }
    if packet.count > 0 { room.copyMemory(from: packet) }
    end.outbound.append(byteCount: packet.count)
    let total = end.total
    end.tunnel.plan(&end.outbound, at: world.now)
    if end.outbound.seal(), case .reply(let bytes) = end.outbound.output(0) {
      require(
        InnerPacket(
          at: UnsafeMutableRawPointer(mutating: bytes.baseAddress!), byteCount: bytes.count) != nil)
    }
    end.tunnel.emit(&end.outbound, at: world.now)
    end.outbound.reset()
    require(end.total == total + 1, "not one verdict per packet")
    world.check()
    if let failure = world.failure { fatalError("\(failure)") }
  }

  /// Seals a packet at `far` and opens it at `near`, which delivers it unchanged or drops it.
  static func carry(_ packet: UnsafeRawBufferPointer) {
    world.restore()
    let far = world.far
    guard let peer = world.firstPeer(far) else { preconditionFailure() }
    far.outbound.reset()
    far.tunnel.stamp(&far.outbound)
    guard let room = far.outbound.room(for: packet.count) else { return }
    if packet.count > 0 { room.copyMemory(from: packet) }
    far.tunnel.planText(
      &far.outbound, far.outbound.append(byteCount: packet.count, kind: .text), for: &peer.pointee,
      trafficClass: 0, at: world.now)
    guard far.outbound.seal(), case .datagram(let datagram, _, _) = far.outbound.output(0) else {
      preconditionFailure("nothing was sealed")
    }
    let near = world.near
    near.inbound.reset()
    near.inbound.room!.copyMemory(from: datagram)
    near.inbound.append(
      byteCount: datagram.count, from: world.path(0), trafficClass: 0, isTruncated: false)
    near.fenceInbound(true)
    near.tunnel.accept(&near.inbound, at: world.now)
    // The cipher may read beyond the end of a datagram.
    near.fenceInbound(false)
    near.inbound.open()
    near.tunnel.deliver(&near.inbound, at: world.now)
    if let delivered = near.inbound.delivered(0) {
      // If the packet's length field covers some of the padding, the padding is delivered too: the
      // receiver cannot tell the two apart.
      let padded = roundUp(packet.count, to: WireGuard.paddingByteCount)
      require(delivered.count <= padded, "more was delivered than was sent (R14)")
      let own = min(delivered.count, packet.count)
      require(delivered[..<own].elementsEqual(packet[..<own]), "a packet has changed")
    }
    near.inbound.reset()
    far.outbound.reset()
  }
}
