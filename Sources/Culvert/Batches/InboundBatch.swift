/// A batch of the inbound lane: datagrams from the network and the packets for the TUN that they
/// become, in fixed buffers.
///
///     batch.reset()
///     while let room = batch.room { receive into room; batch.append(...) }
///     tunnel.accept(&batch, at: now)     // tunnel locked: classify, look up, copy keys
///     batch.open()                       // no lock: authenticate, decrypt
///     tunnel.deliver(&batch, at: now)    // tunnel locked: replay window, source, roaming, timers
///     batch.join(tcp: true, udp: true)   // no lock: group what is written in one call
///     for index in 0..<batch.outputCount { write batch.output(index) and its pieces }
///
/// Datagrams are decrypted from the area into which they were received to another one, so that the
/// tag is verified after the same pass of the cipher that decrypts. If the tag is wrong the text is
/// zeroed, and nothing reads it before (R13).
public struct InboundBatch: ~Copyable {
  struct Packet: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
      case received
      case truncated
      /// Transport data of a known session.
      case sealed
      /// The tag is correct, so the plaintext may be used (R13).
      case authentic
      /// To be written to the TUN.
      case delivered
      /// Counted, and ignored from here on.
      case done
    }
    /// The datagram, in the batch's memory or elsewhere (`append(at:)`).
    var start: UnsafeMutableRawPointer
    var byteCount: UInt32
    /// Offset of the inner packet in the batch's texts.
    var textOffset: UInt32
    var innerByteCount: UInt32
    var session: UInt16
    var arrival: UInt16
    var kind: Kind
    var counter: UInt64
    var candidate: JoinCandidate
  }

  /// What all datagrams of one receive call have in common.
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
  /// Set by the tunnel with each filling.
  var cipher = TransportCipher.whole
  /// Whether `open` gathers what `join` needs. Set once by the shell.
  public var preparesJoining = false
  /// Datagrams that exceeded the capacity; `accept` counts them as truncated.
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
  }

  // MARK: Filling

  /// Room for one more datagram of any size; nil when the batch is full.
  public var room: UnsafeMutableRawBufferPointer? {
    room(for: BatchLayout.maximumDatagram, datagrams: 1)
  }

  /// Room for `byteCount` bytes that will hold at most `datagrams` datagrams; nil when the batch is
  /// full. An empty batch has room for any number of datagrams.
  public func room(for byteCount: Int, datagrams: Int) -> UnsafeMutableRawBufferPointer? {
    guard count == 0 || packets.count - count >= datagrams,
      byteCount <= bytes.count - used - BatchLayout.headroom - BatchLayout.slack
    else { return nil }
    return UnsafeMutableRawBufferPointer(
      start: bytes.baseAddress! + used + BatchLayout.headroom, count: byteCount)
  }

  /// Appends what was written into the room last returned.
  ///
  /// - Parameters:
  ///   - byteCount: bytes written.
  ///   - offset: where in that room, if several datagrams were written into it separately.
  ///   - segmentByteCount: if the kernel has put several datagrams into one buffer, the size of
  ///     each but the last, which may be shorter; 0 for a single datagram.
  public mutating func append(
    byteCount: Int, at offset: Int = 0, from path: Path, trafficClass: UInt8, isTruncated: Bool,
    segmentByteCount: Int = 0
  ) {
    // Lengths come from the network: what does not fit is dropped, even if the caller checked.
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
      // The kernel truncates at the end of the buffer, so all segments but the last are complete.
      let isCut = isTruncated && taken + part == byteCount
      append(
        at: bytes.baseAddress! + start + taken, byteCount: part,
        kind: isCut ? .truncated : .received)
      taken += part
    } while taken < byteCount
    arrivalCount += 1
    used = min(bytes.count, roundUp(start + byteCount, to: BatchLayout.alignment))
  }

  /// Appends a datagram that lies outside the batch, where another tunnel delivered it, and stays
  /// there until `open`. The `lead` bytes before it may be read; the `slack` bytes after it may be
  /// read and overwritten.
  ///
  /// - Returns: false when the batch is full.
  mutating func append(
    at start: UnsafeMutableRawPointer, byteCount: Int, from path: Path, trafficClass: UInt8
  ) -> Bool {
    // It counts like one in the batch's own memory, because its text needs the same room.
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

  /// Bytes used, including the space between datagrams: a measure of the work in the batch.
  public var byteCount: Int { used }

  func datagram(_ index: Int) -> UnsafeMutableRawPointer { packets[index].start }

  func text(_ index: Int) -> UnsafeMutableRawPointer {
    texts.baseAddress! + Int(packets[index].textOffset)
  }
}

/// The parallel steps of the inbound lane. They use nothing but the batch.
extension InboundBatch {
  /// Authenticates and decrypts, and finds the packets that could be joined.
  public mutating func open() {
    var used = 0
    // A single packet has nothing to be joined with.
    let joins = preparesJoining && count > 1
    for index in 0..<count where packets[index].kind == .sealed {
      // A text is never longer than its datagram, so the texts cannot exceed their area.
      let offset = roundUp(used + BatchLayout.headroom, to: BatchLayout.alignment)
      if let byteCount = open(&packets[index], textOffset: offset, joins: joins) {
        used = offset + byteCount
      }
    }
  }

  /// - Returns: bytes of the text, padding included; nil if the tag is wrong.
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
    // Padding is removed here, so that the checksum covers the packet alone (R14).
    if let inner = InnerPacket(at: text, byteCount: byteCount) {
      packet.innerByteCount = UInt32(truncatingIfNeeded: inner.byteCount)
      if joins { packet.candidate = JoinCandidate(at: text, byteCount: inner.byteCount) }
    }
    return byteCount
  }

  // MARK: Outputs

  /// The inner packet for the TUN; nil if there is none. Only before `join`.
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

  /// Joins delivered packets that continue each other into groups, each of which is written to the
  /// TUN in one call. The order within a flow is kept.
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

  /// Number of groups that `join` has made. They are in the order of their first packets.
  public var outputCount: Int { joiner.groupCount }

  /// Packets in a group, which is also the number of its pieces: up to 64.
  public func packetCount(of group: Int) -> Int { joiner.packetCount(of: group) }

  /// Completes the headers of a group, and writes the virtio header that describes it to the TUN.
  ///
  /// - Parameter virtioHeader: `PacketOffload.virtioHeaderByteCount` bytes.
  /// - Returns: how the kernel would have to segment it.
  public mutating func finish(
    _ group: Int, virtioHeader: UnsafeMutableRawPointer
  ) -> PacketOffload.Segmentation {
    let offload = joiner.finish(group)
    offload.write(to: virtioHeader, headerByteCount: joiner.headerByteCount(of: group))
    return offload.segmentation
  }

  /// Calls `body` with the pieces of a group in order. Before the first one there are `headroom`
  /// free bytes.
  public func forEachPiece(of group: Int, _ body: (UnsafeMutableRawPointer, Int) -> Void) {
    joiner.forEachPiece(of: group, body)
  }

  /// Calls `body` with the packets of a group, to write them one by one after all. Each has
  /// `headroom` free bytes before it. Not after `finish`.
  public func forEachPacket(of group: Int, _ body: (UnsafeMutableRawPointer, Int) -> Void) {
    joiner.forEachPacket(of: group, body)
  }
}
