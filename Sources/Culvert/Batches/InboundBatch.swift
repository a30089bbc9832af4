/// A batch of the inbound lane: datagrams from the network, and the decrypted packets for the TUN,
/// in buffers of fixed size.
///
///     batch.reset()
///     while let room = batch.room { receive into room; batch.append(...) }
///     tunnel.accept(&batch, at: now)     // tunnel locked: classify, look up, copy keys
///     batch.open()                       // no lock: authenticate, decrypt
///     tunnel.deliver(&batch, at: now)    // tunnel locked: replay window, source, roaming, timers
///     batch.join(tcp: true, udp: true)   // no lock: group packets to be written in one call
///     for group in 0..<batch.outputCount { write its pieces (forEachPiece, finish) }
///
/// Datagrams are decrypted to a separate area, so that the cipher decrypts and authenticates in one
/// pass. If the tag is wrong, the text is zeroed before anything reads it (R13).
public struct InboundBatch: ~Copyable {
  struct Packet: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
      case received
      case truncated
      /// Transport data of a known session.
      case sealed
      /// The tag is correct: the plaintext may be used (R13).
      case authentic
      /// To be written to the TUN.
      case delivered
      /// Processed and counted; ignored from here on.
      case done
    }
    /// The datagram, in the batch's memory or outside it (`append(at:)`).
    var start: UnsafeMutableRawPointer
    var byteCount: UInt32
    /// The offset of the inner packet in `texts`.
    var textOffset: UInt32
    var innerByteCount: UInt32
    var session: UInt16
    var arrival: UInt16
    var kind: Kind
    var counter: UInt64
    var candidate: JoinCandidate
  }

  /// Properties shared by all datagrams of one receive call.
  struct Arrival: BitwiseCopyable {
    /// The traffic class of the outer packet, for its ECN bits.
    var trafficClass: UInt8
    var path: Path
  }

  let bytes: UnsafeMutableRawBufferPointer
  let texts: UnsafeMutableRawBufferPointer
  let packets: UnsafeMutableBufferPointer<Packet>
  let arrivals: UnsafeMutableBufferPointer<Arrival>
  var sessions: BatchSessions
  var joiner: Joiner
  public private(set) var count = 0
  private var arrivalCount = 0
  private var used = 0
  var serial: UInt64 = 0
  /// Bytes of the datagrams that `open` will decrypt; set by `accept`.
  public internal(set) var sealedByteCount = 0
  /// Set by `accept`.
  var cipher = TransportCipher.whole
  /// Whether `open` prepares `join`. The shell sets it once.
  public var preparesJoining = false
  /// The number of datagrams that exceeded the capacity; `accept` counts them as truncated.
  var surplusCount: UInt64 = 0

  init(carvingFrom arena: inout Arena, keys: UnsafeMutableRawPointer, limits: Limits) {
    let owner: StaticString = "inbound batches"
    bytes = arena.carveBytes(limits.batchByteCount, owner: owner)
    let textRoom = BatchLayout.headroom + BatchLayout.alignment
    texts = arena.carveBytes(
      limits.batchByteCount + limits.batchPackets * textRoom + BatchLayout.slack, owner: owner)
    packets = arena.carve(Packet.self, count: limits.batchPackets, owner: owner)
    arrivals = arena.carve(Arrival.self, count: limits.batchPackets, owner: owner)
    sessions = BatchSessions(
      carvingFrom: &arena, keys: keys, capacity: limits.batchPackets, owner: owner)
    joiner = Joiner(carvingFrom: &arena, packets: limits.batchPackets)
  }

  /// Empties the batch and wipes its keys.
  public mutating func reset() {
    sessions.reset()
    count = 0
    arrivalCount = 0
    used = 0
    surplusCount = 0
    sealedByteCount = 0
  }

  // MARK: Filling

  /// Room for one more datagram of any size; nil when the batch is full.
  public var room: UnsafeMutableRawBufferPointer? {
    room(for: BatchLayout.maximumDatagram, datagrams: 1)
  }

  /// Room for `byteCount` bytes with at most `datagrams` datagrams; nil when the batch is full. An
  /// empty batch accepts any number of datagrams; `append` drops those beyond the capacity.
  public func room(for byteCount: Int, datagrams: Int) -> UnsafeMutableRawBufferPointer? {
    guard count == 0 || packets.count - count >= datagrams,
      byteCount <= bytes.count - used - BatchLayout.headroom - BatchLayout.slack
    else { return nil }
    return UnsafeMutableRawBufferPointer(
      start: bytes.baseAddress! + used + BatchLayout.headroom, count: byteCount)
  }

  /// Appends what was written to the room last returned.
  ///
  /// - Parameters:
  ///   - byteCount: the number of bytes written.
  ///   - offset: their offset in the room, if several datagrams were received into it separately.
  ///   - segmentByteCount: if the kernel has joined several datagrams in one buffer (UDP_GRO), the
  ///     size of each except the last, which may be shorter; 0 for a single datagram.
  public mutating func append(
    byteCount: Int, at offset: Int = 0, from path: Path, trafficClass: UInt8, isTruncated: Bool,
    segmentByteCount: Int = 0
  ) {
    // The lengths come from the network, so they are checked here even if the caller has checked
    // them.
    guard arrivalCount < arrivals.count, byteCount >= 0, offset >= 0,
      byteCount <= bytes.count - used - BatchLayout.headroom - offset
    else {
      surplusCount &+= 1
      return
    }
    let start = used + BatchLayout.headroom + offset
    arrivals[arrivalCount] = Arrival(trafficClass: trafficClass, path: path)
    var taken = 0
    repeat {
      let remaining = byteCount - taken
      let part = segmentByteCount > 0 ? min(segmentByteCount, remaining) : remaining
      // The kernel truncates at the end of the buffer, so only the last segment can be incomplete.
      let isCut = isTruncated && taken + part == byteCount
      append(
        at: bytes.baseAddress! + start + taken, byteCount: part,
        kind: isCut ? .truncated : .received)
      taken += part
    } while taken < byteCount
    arrivalCount += 1
    used = min(bytes.count, roundUp(start + byteCount, to: BatchLayout.alignment))
  }

  /// Appends a datagram outside the batch's memory, which another tunnel has delivered. It must
  /// stay in place until `open` returns. The `lead` bytes before it may be read. The `slack` bytes
  /// after it may be read and overwritten.
  ///
  /// - Returns: false when the batch is full.
  mutating func append(
    at start: UnsafeMutableRawPointer, byteCount: Int, from path: Path, trafficClass: UInt8
  ) -> Bool {
    // Its bytes are counted as used, as if it were in the batch's memory, because its text needs
    // the same room.
    guard arrivalCount < arrivals.count, count < packets.count,
      byteCount <= bytes.count - used - BatchLayout.headroom - BatchLayout.slack
    else { return false }
    arrivals[arrivalCount] = Arrival(trafficClass: trafficClass, path: path)
    append(at: start, byteCount: byteCount, kind: .received)
    arrivalCount += 1
    used = roundUp(used + BatchLayout.headroom + byteCount, to: BatchLayout.alignment)
    return true
  }

  /// Whether there is room for one more datagram of any size.
  var hasRoomForAny: Bool {
    count < packets.count && arrivalCount < arrivals.count
      && BatchLayout.maximumDatagram
        <= bytes.count - used - BatchLayout.headroom - BatchLayout.slack
  }

  private mutating func append(
    at start: UnsafeMutableRawPointer, byteCount: Int, kind: Packet.Kind
  ) {
    guard count < packets.count else {
      surplusCount &+= 1
      return
    }
    packets[count] = Packet(
      start: start, byteCount: UInt32(truncatingIfNeeded: byteCount), textOffset: 0,
      innerByteCount: 0, session: 0,
      arrival: UInt16(truncatingIfNeeded: arrivalCount), kind: kind, counter: 0,
      candidate: JoinCandidate())
    count += 1
  }

  /// Bytes used, including the space between datagrams.
  public var byteCount: Int { used }

  func datagram(_ index: Int) -> UnsafeMutableRawPointer { packets[index].start }

  func text(_ index: Int) -> UnsafeMutableRawPointer {
    texts.baseAddress! + Int(packets[index].textOffset)
  }
}

/// The parallel steps of the inbound lane. They use only the batch.
extension InboundBatch {
  /// Authenticates and decrypts the packets, and finds those that could be joined.
  public mutating func open() {
    let packets = packets
    var used = 0
    // A single packet cannot be joined.
    let joins = preparesJoining && count > 1
    for index in 0..<count where packets[index].kind == .sealed {
      // A text is shorter than its datagram, so the texts cannot exceed their area.
      let offset = roundUp(used + BatchLayout.headroom, to: BatchLayout.alignment)
      if let byteCount = open(&packets[index], textOffset: offset, joins: joins) {
        used = offset + byteCount
      }
    }
  }

  /// - Returns: the size of the text in bytes, padding included; nil if the tag is wrong.
  private func open(_ packet: inout Packet, textOffset: Int, joins: Bool) -> Int? {
    let byteCount = Int(packet.byteCount) - WireGuard.overheadByteCount
    let text = texts.baseAddress! + textOffset
    guard
      cipher.open(
        packet.start + WireGuard.transportHeaderByteCount, byteCount: byteCount, to: text,
        counter: packet.counter, key: sessions.key(packet.session))
    else { return nil }
    packet.textOffset = UInt32(truncatingIfNeeded: textOffset)
    packet.kind = .authentic
    // The length of the packet excludes the padding, so that checksums do not cover it (R14).
    if let inner = InnerPacket(at: text, byteCount: byteCount) {
      packet.innerByteCount = UInt32(truncatingIfNeeded: inner.byteCount)
      if joins { packet.candidate = JoinCandidate(at: text, byteCount: inner.byteCount) }
    }
    return byteCount
  }

  // MARK: Outputs

  /// The inner packet for the TUN; nil if this datagram has none. Must not be called after `join`.
  public func delivered(_ index: Int) -> UnsafeMutableRawBufferPointer? {
    precondition(index >= 0 && index < count)
    guard packets[index].kind == .delivered else { return nil }
    return UnsafeMutableRawBufferPointer(
      start: text(index), count: Int(packets[index].innerByteCount))
  }

  /// The peer that sent a packet, for a `DatagramChannel`.
  public func sender(_ index: Int) -> UInt32 {
    precondition(index >= 0 && index < count)
    return sessions[packets[index].session].peer.sender
  }

  /// Joins consecutive packets of the same flow into groups, each of which is written to the TUN in
  /// one call. The order within a flow is preserved.
  ///
  /// - Parameters:
  ///   - tcp: whether the TUN accepts joined TCP segments.
  ///   - udp: whether the TUN accepts joined UDP datagrams of one flow.
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

  /// The number of groups that `join` has made, in the order of their first packets.
  public var outputCount: Int { joiner.groupCount }

  /// The number of packets in a group, at most 64. It is also the number of pieces.
  public func packetCount(of group: Int) -> Int { joiner.packetCount(of: group) }

  /// Completes the headers of a group, and writes the virtio header that describes the group to the
  /// TUN.
  ///
  /// - Parameter virtioHeader: room for `PacketOffload.virtioHeaderByteCount` bytes.
  /// - Returns: the kind of segmentation that the virtio header specifies.
  public mutating func finish(
    _ group: Int, virtioHeader: UnsafeMutableRawPointer
  ) -> PacketOffload.Segmentation {
    let offload = joiner.finish(group)
    offload.write(to: virtioHeader, headerByteCount: joiner.headerByteCount(of: group))
    return offload.segmentation
  }

  /// Calls `body` with each piece of a group, in order. There are `headroom` free bytes before the
  /// first piece.
  public func forEachPiece(of group: Int, _ body: (UnsafeMutableRawPointer, Int) -> Void) {
    joiner.forEachPiece(of: group, body)
  }

  /// Calls `body` with each packet of a group, to write the packets one by one instead. There are
  /// `headroom` free bytes before each. Must not be called after `finish`.
  public func forEachPacket(of group: Int, _ body: (UnsafeMutableRawPointer, Int) -> Void) {
    joiner.forEachPacket(of: group, body)
  }
}
