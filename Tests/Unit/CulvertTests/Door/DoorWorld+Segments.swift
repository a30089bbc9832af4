#if !ONE_MODULE
  @testable import Culvert
#endif

/// Packets that a kernel leaves to be segmented, and datagrams that it has coalesced: valid ones,
/// and ones with arbitrary headers.
extension DoorWorld {
  /// A packet with a virtio header before it, as read from a TUN. The header is in the headroom.
  func writeSegments(
    into start: UnsafeMutableRawPointer, _ choices: inout Choices
  ) -> (byteCount: Int, offload: PacketOffload) {
    // Usually to `far`.
    let owner = choices.below(4) == 0 ? choices.below(DoorWorld.peerKinds + 1) : 0
    let byteCount = writeFlow(
      into: start, source: IPAddress(ipv4: 0x0a63_0001),
      destination: IPAddress(ipv4: 0x0a00_0002 | UInt32(owner) << 16), &choices)
    let header = start - BatchLayout.headroom
    writeVirtioHeader(header, isTCP: start.byte(9) == 6, &choices)
    if choices.below(4) == 0 {
      let place = choices.below(40 + PacketOffload.virtioHeaderByteCount)
      let isInHeader = place < PacketOffload.virtioHeaderByteCount
      let target = isInHeader ? header : start - PacketOffload.virtioHeaderByteCount
      target.storeByte(choices.byte(), place)
    }
    guard let offload = PacketOffload(virtioHeader: header) else { return (0, .none) }
    return (byteCount - (choices.below(32) == 0 ? 1 : 0), offload)
  }

  private func writeVirtioHeader(
    _ header: UnsafeMutableRawPointer, isTCP: Bool, _ choices: inout Choices
  ) {
    let isWhole = choices.below(8) == 0
    // Most packets have a few segments, some have hundreds.
    let size = choices.below(32) == 0 ? 1 + choices.below(8) : 20 + choices.below(600)
    PacketOffload(
      segmentation: isWhole ? .none : isTCP ? .tcpIPv4 : .udp, needsChecksum: true,
      checksumStart: 20, checksumOffset: isTCP ? 16 : 6, segmentByteCount: isWhole ? 0 : size
    ).write(to: header, headerByteCount: isTCP ? 40 : 28)
  }

  /// TCP or UDP over IPv4, with the pseudo-header's sum in the checksum field.
  private func writeFlow(
    into start: UnsafeMutableRawPointer, source: IPAddress, destination: IPAddress,
    _ choices: inout Choices
  ) -> Int {
    let isTCP = choices.below(2) == 0
    let number = isTCP ? IPProtocol.tcp : IPProtocol.udp
    let headerByteCount = isTCP ? 40 : 28
    let byteCount = headerByteCount + choices.below(1400)
    start.initializeMemory(as: UInt8.self, repeating: 0x5a, count: byteCount)
    let mark = choices.byte() & 3
    IPv4Header.write(
      at: start, totalByteCount: byteCount, trafficClass: mark,
      protocol: number, source: source, destination: destination)
    let transport = start + 20
    transport.initializeMemory(as: UInt8.self, repeating: 0, count: headerByteCount - 20)
    transport.storeByte(choices.byte() & 3, 1)
    if isTCP {
      transport.storeBig(UInt32(truncatingIfNeeded: choices.word()), 4)
      transport.storeByte(0x50, 12)
      transport.storeByte(0x10 | choices.byte() & choices.byte(), 13)
    } else {
      transport.storeBig(UInt16(truncatingIfNeeded: byteCount - 20), 4)
    }
    var sum = Checksum()
    sum.addPseudoHeader(
      source: source, destination: destination, protocol: number, byteCount: byteCount - 20)
    transport.storeBig(sum.folded, isTCP ? TCPHeader.checksumOffset : UDPHeader.checksumOffset)
    return byteCount
  }

  // MARK: Coalesced datagrams

  /// Segments of one packet from `far`, sealed back to back, as they would be sent and received.
  /// Sets `segmentByteCount`.
  func sealSegmentsByFar(into room: UnsafeMutableRawBufferPointer, _ choices: inout Choices) -> Int
  {
    guard let peer = firstPeer(far), peer.pointee.path != nil,
      peer.pointee.keypairs.current.canSend(64, at: now)
    else { return 0 }
    far.outbound.reset()
    far.tunnel.stamp(&far.outbound)
    guard let text = far.outbound.room(for: 1500) else { return 0 }
    let owner = choices.below(8) == 0 ? 1 : 0
    let byteCount = writeFlow(
      into: text.baseAddress!, source: IPAddress(ipv4: 0x0a00_0001 | UInt32(owner) << 16),
      destination: IPAddress(ipv4: 0x0a63_0002), &choices)
    let isTCP = text[9] == IPProtocol.tcp
    // Up to 28 segments, more than a batch of `near` takes.
    let offload = PacketOffload(
      segmentation: isTCP ? .tcpIPv4 : .udp, needsChecksum: true, checksumStart: 20,
      checksumOffset: isTCP ? 16 : 6, segmentByteCount: 50 + choices.below(500))
    let index = far.outbound.append(byteCount: byteCount, kind: .text, offload: offload)
    guard let segmenter = far.outbound.segmenter(index) else {
      expect(false, "a packet that is well formed cannot be cut")
      return 0
    }
    far.tunnel.planText(
      &far.outbound, index, for: &peer.pointee, trafficClass: 0,
      segmentCount: segmenter.segmentCount, at: now)
    return takeRun(into: room.baseAddress!)
  }

  /// The first run of what `far` has sealed; the rest is sealed and discarded.
  private func takeRun(into start: UnsafeMutableRawPointer) -> Int {
    var byteCount = 0
    while far.outbound.seal() {
      guard byteCount == 0 else { continue }
      let count = far.outbound.runLength(from: 0, isUniform: true)
      for index in 0..<count {
        guard case .datagram(let bytes, _, _) = far.outbound.output(index) else { continue }
        if index == 0, count > 1 { segmentByteCount = bytes.count }
        (start + byteCount).copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
        byteCount += bytes.count
      }
    }
    far.tunnel.emit(&far.outbound, at: now)
    far.outbound.reset()
    return byteCount
  }
}
