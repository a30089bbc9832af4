/// The parallel steps of the inbound lane: they touch nothing but the batch.
extension InboundBatch {
  /// Authenticates and decrypts, and sees which packets could be joined.
  public mutating func open() {
    var used = 0
    // A lone packet has nothing to be joined with.
    let joins = preparesJoining && count > 1
    for index in 0..<count where packets[index].kind == .sealed {
      let packet = packets.baseAddress! + index
      let byteCount = Int(packet.pointee.byteCount) - WireGuard.overheadByteCount
      // The text of a packet never is longer than its datagram, so this never runs over.
      let offset = roundUp(used + BatchLayout.headroom, to: BatchLayout.alignment)
      let text = texts.baseAddress! + offset
      guard
        cipher.open(
          datagram(index) + WireGuard.transportHeaderByteCount, byteCount: byteCount, to: text,
          counter: packet.pointee.counter, key: sessions.key(packet.pointee.session))
      else { continue }
      used = offset + byteCount
      packet.pointee.textOffset = UInt32(truncatingIfNeeded: offset)
      packet.pointee.kind = .authentic
      // Padding is cut off here, so that the checksum is over the packet alone (R14).
      if let inner = InnerPacket(at: text, byteCount: byteCount) {
        packet.pointee.innerByteCount = UInt32(truncatingIfNeeded: inner.byteCount)
        if joins {
          packet.pointee.candidate = JoinCandidate(at: text, byteCount: inner.byteCount)
        }
      }
    }
  }

  // MARK: Outputs

  /// The inner packet that goes to the TUN; nil where there is none. Only before `join`.
  public func delivered(_ index: Int) -> UnsafeMutableRawBufferPointer? {
    precondition(index >= 0 && index < count)
    let packet = packets.baseAddress! + index
    guard packet.pointee.kind == .delivered else { return nil }
    return UnsafeMutableRawBufferPointer(
      start: text(index), count: Int(packet.pointee.innerByteCount))
  }

  /// The peer that a packet came from, for a `DatagramChannel`.
  public func sender(_ index: Int) -> UInt32 {
    precondition(index >= 0 && index < count)
    return sessions[packets[index].session].pointee.peer.sender
  }

  /// Puts delivered packets that continue each other together, in groups that the TUN takes in one
  /// write each; the order within a flow stays.
  ///
  /// - Parameters:
  ///   - tcp: the TUN takes TCP segments joined.
  ///   - udp: the TUN takes UDP datagrams of one flow joined.
  public mutating func join(tcp: Bool, udp: Bool) {
    joiner.reset()
    joiner.allowTCP = tcp
    joiner.allowUDP = udp
    for index in 0..<count where packets[index].kind == .delivered {
      joiner.add(
        index, packets[index].candidate, at: text(index),
        byteCount: Int(packets[index].innerByteCount))
    }
  }

  /// Groups that `join` has made, in the order of their first packets.
  public var outputCount: Int { joiner.groupCount }

  /// Packets in a group, and so pieces: up to 64.
  public func packetCount(of group: Int) -> Int { joiner.packetCount(of: group) }

  /// Completes the headers of a group, and writes the virtio header that tells the TUN of it.
  ///
  /// - Parameter virtioHeader: `PacketOffload.virtioHeaderByteCount` bytes.
  /// - Returns: what the kernel would have to cut it into.
  public mutating func finish(
    _ group: Int, virtioHeader: UnsafeMutableRawPointer
  ) -> PacketOffload.Segmentation {
    let offload = joiner.finish(group)
    offload.write(to: virtioHeader, headerByteCount: joiner.headerByteCount(of: group))
    return offload.segmentation
  }

  /// Calls `body` with the pieces of a group in order. Before the first of them there are
  /// `headroom` bytes to use.
  public func forEachPiece(of group: Int, _ body: (UnsafeMutableRawPointer, Int) -> Void) {
    joiner.forEachPiece(of: group, body)
  }

  /// Calls `body` with the packets of a group that is not to be written as one after all. Each has
  /// `headroom` bytes before it to use; not after `finish`.
  public func forEachPacket(of group: Int, _ body: (UnsafeMutableRawPointer, Int) -> Void) {
    joiner.forEachPacket(of: group, body)
  }
}
