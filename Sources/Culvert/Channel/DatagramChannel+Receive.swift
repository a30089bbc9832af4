/// Receiving: from the tunnel to the channel's user.
extension DatagramChannel {
  public enum Received {
    /// The payload of a datagram to one of the local ports. It is in the packet, or if the datagram
    /// was fragmented, in the reassembler's memory until `release`.
    case datagram(
      UnsafeMutableRawBufferPointer, from: Endpoint, port: UInt16, trafficClass: UInt8)
    /// An ICMP error: datagrams from this local port do not reach this endpoint. If
    /// `isPortClosed`, they reach the host, but nothing listens there.
    case unreachable(Endpoint, port: UInt16, isPortClosed: Bool)
    /// There is nothing for the user. The packet has been counted.
    case nothing
  }

  /// Receives a packet that the tunnel has delivered.
  ///
  /// - Parameters:
  ///   - packet: the packet, which is not trusted. It is modified, and the returned payload may be
  ///     in it.
  ///   - sender: the peer that sent the packet (`InboundBatch.sender`). Fragments from different
  ///     peers are never combined (F8).
  ///   - expects: whether the user takes datagrams from this source; only asked about fragments, so
  ///     that others take no memory.
  public mutating func receive(
    _ packet: UnsafeMutableRawBufferPointer, from sender: UInt32, at now: Instant,
    expects: (IPAddress) -> Bool = { _ in true }
  ) -> Received {
    guard isOpen else { return drop(.closed) }
    guard let start = packet.baseAddress,
      let outline = InnerPacket(at: start, byteCount: packet.count)
    else { return drop(.malformed) }
    // Checked before reassembly, so that fragments to other addresses take no memory.
    guard outline.destination == address(outline.family) else { return drop(.notOurs) }
    guard outline.source.isSingleHost else { return drop(.badSource) }
    // Fragments that can never become a datagram for the user take no slot (R53).
    switch outline.fragmentedProtocol(at: start) {
    case nil: break
    case IPProtocol.udp: guard expects(outline.source) else { return drop(.notOurs) }
    // A router may have sent the error.
    case IPProtocol.icmp where outline.family == .ipv4,
      IPProtocol.icmpv6 where outline.family == .ipv6:
      break
    default: return drop(.notOurs)
    }
    let trimmed = UnsafeMutableRawBufferPointer(start: start, count: outline.byteCount)
    switch reassembler.add(trimmed, from: sender, at: now) {
    case .whole(let whole):
      // The reassembler has already checked this for fragments. The check is necessary, because the
      // UDP checksum is optional and the ICMP checksum does not cover the addresses (RFC 1122
      // section 3.2.1.2).
      guard outline.family == .ipv6 || IPv4Header(writtenAt: start).hasIntactChecksum else {
        return drop(.badChecksum)
      }
      return receiveWhole(whole, at: now)
    case .complete(let whole, let slot):
      let received = receiveWhole(whole, at: now)
      // If the user gets no datagram, nobody will call `release` for the slot.
      if case .datagram = received { lend(slot) } else { reassembler.release(slot) }
      return received
    case .held, .dropped: return drop(.fragment)
    }
  }

  private func drop(_ verdict: DatagramVerdict) -> Received {
    counters.add(verdict)
    return .nothing
  }

  private mutating func receiveWhole(
    _ packet: UnsafeMutableRawBufferPointer, at now: Instant
  ) -> Received {
    let start = packet.baseAddress!
    guard let content = TransportContent(at: start, byteCount: packet.count) else {
      return drop(.malformed)
    }
    switch content.protocolNumber {
    case IPProtocol.udp: return receiveUDP(content)
    case IPProtocol.icmp where content.source.family == .ipv4,
      IPProtocol.icmpv6 where content.source.family == .ipv6:
      return receiveICMP(content, at: now)
    default: return drop(.notOurs)
    }
  }

  // Inlined, because a call would copy the channel.
  @inline(__always)
  private func receiveUDP(_ content: TransportContent) -> Received {
    guard let header = UDPHeader(at: content.bytes, byteCount: content.byteCount) else {
      return drop(.malformed)
    }
    guard isOwn(header.destination) else { return drop(.notOurs) }
    guard header.hasIntactChecksum(source: content.source, destination: content.destination)
    else { return drop(.badChecksum) }
    counters.add(.received)
    return .datagram(
      UnsafeMutableRawBufferPointer(start: header.payload, count: header.payloadByteCount),
      from: Endpoint(address: content.source, port: header.source), port: header.destination,
      trafficClass: content.trafficClass)
  }

  /// Accepts only errors that quote one of our datagrams. An attacker who has not seen the datagram
  /// has to guess its ports to forge an error (RFC 5927).
  private mutating func receiveICMP(_ content: TransportContent, at now: Instant) -> Received {
    guard let message = ICMPMessage(content) else { return drop(.badChecksum) }
    guard let effect = message.effect, let quoted = message.quotedDatagram,
      quoted.source == address(quoted.source.family), isOwn(quoted.sourcePort)
    else { return drop(.notOurs) }
    switch effect {
    case .tooBig(let mtu):
      // An IPv4 router has no reason to send this for a datagram without DF.
      guard quoted.destination.family == .ipv6 || forbidsFragmentation else {
        return drop(.notOurs)
      }
      guard paths.lower(to: quoted.destination, mtu: mtu, at: now) else { return drop(.notOurs) }
      return drop(.tooLargeForPath)
    case .unreachable(let isPortClosed):
      counters.add(.unreachable)
      return .unreachable(
        Endpoint(address: quoted.destination, port: quoted.destinationPort),
        port: quoted.sourcePort, isPortClosed: isPortClosed)
    }
  }
}
