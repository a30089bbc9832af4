/// The parallel step of the outbound lane: it touches nothing but the batch.
extension OutboundBatch {
  /// Where a datagram goes.
  public enum Output {
    /// To the network. The traffic class is the outer one: DSCP and ECN.
    case datagram(UnsafeRawBufferPointer, Path, trafficClass: UInt8)
    /// Back into the TUN: an ICMP error, with `headroom` bytes to use before it.
    case reply(UnsafeMutableRawBufferPointer)
  }

  // MARK: seal

  /// Cuts and encrypts what is planned, as much as there is room for. Returns false when nothing
  /// is left; otherwise the outputs are to be sent, and `seal` is to be called again.
  @inline(never)
  public mutating func seal() -> Bool {
    tally()
    outputs.reset()
    while cursor.packet < count {
      guard seal(packets[cursor.packet]) else { return true }
      cursor.packet += 1
      cursor.segment = 0
    }
    return outputs.count > 0
  }

  /// False where there is no room for (the rest of) the packet.
  private mutating func seal(_ packet: Packet) -> Bool {
    switch packet.kind {
    case .unplanned, .dropped: return true
    case .message, .reply:
      if outputs.isFull { return false }
      outputs.append(
        BatchOutputs.Datagram(
          start: packet.start, byteCount: packet.byteCount, session: packet.session,
          kind: packet.kind == .reply ? .reply : .message, trafficClass: packet.trafficClass))
      return true
    case .text:
      if packet.offload.isNone {
        return sealText(packet.start, byteCount: Int(packet.byteCount), packet)
      }
      return sealSegments(packet)
    }
  }

  private mutating func sealSegments(_ packet: Packet) -> Bool {
    if cursor.segment == 0 { cursor.segmenter = segmenter(cursor.packet) }
    // `plan` has seen that it can be cut.
    guard var segmenter = cursor.segmenter else { return true }
    defer { cursor.segmenter = segmenter }
    while cursor.segment < segmenter.segmentCount {
      let byteCount = segmenter.byteCount(cursor.segment)
      // Cutting overwrites what stood before the segment, so room is made sure of first.
      guard outputs.place(for: sealedByteCount(byteCount)) != nil else { return false }
      _ = sealText(segmenter.cut(cursor.segment), byteCount: byteCount, packet)
      cursor.segment += 1
    }
    return true
  }

  private mutating func sealText(
    _ text: UnsafeMutableRawPointer, byteCount: Int, _ packet: Packet
  ) -> Bool {
    let sealed = sealedByteCount(byteCount)
    guard let place = outputs.place(for: sealed) else { return false }
    let counter = packet.counter &+ UInt64(truncatingIfNeeded: cursor.segment)
    cipher.seal(
      text, byteCount: byteCount, paddedByteCount: sealed - WireGuard.overheadByteCount,
      to: place + WireGuard.transportHeaderByteCount, counter: counter,
      key: sessions.key(packet.session))
    TransportDataMessage.writeHeader(
      to: place, receiver: sessions[packet.session].pointee.receiver, counter: counter)
    outputs.appendSealed(
      byteCount: sealed, session: packet.session, kind: byteCount > 0 ? .data : .keepalive,
      trafficClass: packet.trafficClass)
    return true
  }

  /// Bytes on the wire of a text of `byteCount` bytes: zero-padding to 16, but never beyond the
  /// MTU (R7; whitepaper 5.4.6).
  @inline(__always)
  private func sealedByteCount(_ byteCount: Int) -> Int {
    let padded = roundUp(byteCount, to: WireGuard.paddingByteCount)
    let clamped = mtu > 0 ? max(byteCount, min(padded, mtu)) : padded
    return clamped + WireGuard.overheadByteCount
  }

  // MARK: Outputs

  /// Datagrams that this round of `seal` has made.
  public var outputCount: Int { outputs.count }

  /// What the shell does with one of them.
  public func output(_ index: Int) -> Output {
    precondition(index >= 0 && index < outputs.count)
    let datagram = outputs[index].pointee
    if datagram.kind == .reply {
      return .reply(
        UnsafeMutableRawBufferPointer(start: datagram.start, count: Int(datagram.byteCount)))
    }
    return .datagram(
      UnsafeRawBufferPointer(start: datagram.start, count: Int(datagram.byteCount)),
      sessions[datagram.session].pointee.path, trafficClass: datagram.trafficClass)
  }

  /// How many outputs from `index` on one call can send to one path: datagrams of any size, or
  /// where `isUniform`, one buffer of equal segments whose last may be shorter (UDP_SEGMENT).
  /// At least 1.
  public func run(from index: Int, isUniform: Bool) -> Int {
    precondition(index >= 0 && index < outputs.count)
    guard isUniform else { return outputs.run(from: index, isUniform: false) }
    let limit = sessions[outputs[index].pointee.session].pointee.segmentLimit
    guard outputs[index].pointee.byteCount < UInt32(limit) else { return 1 }
    return outputs.run(from: index, isUniform: true)
  }

  /// Records that a datagram could not be sent; `emit` then does not count it.
  public mutating func didFail(_ index: Int) {
    precondition(index >= 0 && index < outputs.count)
    outputs[index].pointee.kind = .failed
  }

  /// The local address of this datagram's path is gone; `emit` makes the peer forget it.
  public mutating func didLoseSource(_ index: Int) {
    precondition(index >= 0 && index < outputs.count)
    let session = sessions[outputs[index].pointee.session]
    session.pointee.path = Path(to: session.pointee.path.endpoint)
    session.pointee.didLoseSource = true
  }

  /// The kernel does not take segments of this size on this datagram's path (they exceed its MTU);
  /// such datagrams go one by one until the peer roams.
  public mutating func didRefuseSegments(_ index: Int) {
    precondition(index >= 0 && index < outputs.count)
    let session = sessions[outputs[index].pointee.session]
    let byteCount = UInt16(truncatingIfNeeded: min(outputs[index].pointee.byteCount, 65_535))
    session.pointee.segmentLimit = min(session.pointee.segmentLimit, byteCount)
    session.pointee.didRefuseSegments = true
  }

  /// Adds what became of this round's datagrams to their sessions, once.
  mutating func tally() {
    for index in 0..<outputs.count {
      let datagram = outputs[index].pointee
      guard datagram.kind != .reply else { continue }
      let session = sessions[datagram.session]
      session.pointee.didTry = true
      if datagram.kind == .failed {
        session.pointee.failedCount &+= 1
        continue
      }
      session.pointee.sentCount &+= 1
      session.pointee.sentByteCount &+= UInt64(datagram.byteCount)
      if datagram.kind != .message { session.pointee.didSendTransport = true }
      if datagram.kind == .data { session.pointee.didSendData = true }
    }
  }
}
