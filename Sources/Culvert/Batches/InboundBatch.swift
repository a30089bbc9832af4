/// The work of the inbound lane: datagrams on their way from the network to the TUN, in one fixed
/// buffer.
///
///     batch.reset()
///     while let room = batch.room { receive into room; batch.append(...) }
///     tunnel.accept(&batch, at: now)     // tunnel locked: classify, look up, copy keys
///     batch.open()                       // no lock: authenticate, decrypt
///     tunnel.deliver(&batch, at: now)    // tunnel locked: replay window, source, roaming, timers
///     batch.join(tcp: true, udp: true)   // no lock: what goes to the TUN in one write
///     for index in 0..<batch.outputCount { write batch.output(index) and its pieces }
///
/// Datagrams are decrypted from the area that they were received into to another one, so that the
/// tag can be verified after the one pass of the cipher that gives its key and the text (R13: the
/// text is zeroed where the tag is wrong, and nobody looks before).
public struct InboundBatch: ~Copyable {
  struct Packet: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
      case received
      case truncated
      /// Transport data of a known session.
      case sealed
      /// Its tag is right; the plaintext may be used (R13).
      case authentic
      /// Goes to the TUN.
      case delivered
      case done
    }
    /// The datagram: in the batch's bytes, or elsewhere (`append(at:)`).
    var start: UnsafeMutableRawPointer
    var byteCount: UInt32
    /// Of the inner packet in the batch's texts.
    var textOffset: UInt32
    var innerByteCount: UInt32
    var session: UInt16
    var arrival: UInt16
    var kind: Kind
    var counter: UInt64
    var candidate: JoinCandidate
  }

  /// What datagrams that came in one call have in common.
  struct Arrival: BitwiseCopyable {
    /// The outer one, for its ECN bits.
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
  /// Whether `open` finds out what `join` has to know. Set once by the shell.
  public var preparesJoining = false
  /// Datagrams beyond the capacity, which `accept` counts as truncated.
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

  /// Room for `byteCount` bytes in which at most so many datagrams come; nil when the batch is
  /// full. An empty batch has room for any number of datagrams.
  public func room(for byteCount: Int, datagrams: Int) -> UnsafeMutableRawBufferPointer? {
    guard count == 0 || packets.count - count >= datagrams,
      byteCount <= bytes.count - used - BatchLayout.headroom - BatchLayout.slack
    else { return nil }
    return UnsafeMutableRawBufferPointer(
      start: bytes.baseAddress! + used + BatchLayout.headroom, count: byteCount)
  }

  /// Takes what was written into the room last given.
  ///
  /// - Parameter offset: bytes into that room, where several datagrams were written into it apart.
  /// - Parameter segmentByteCount: where the kernel has put several datagrams into one buffer, the
  ///   size of each but the last, which may be shorter; 0 for a single datagram.
  public mutating func append(
    byteCount: Int, at offset: Int = 0, from path: Path, trafficClass: UInt8, isTruncated: Bool,
    segmentByteCount: Int = 0
  ) {
    // Lengths come from the network: what does not fit is dropped, whatever the caller thought.
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
      // The kernel cuts off the end of the buffer: a whole number of its segments is good.
      let isCut = isTruncated && taken + part == byteCount
      append(
        at: bytes.baseAddress! + start + taken, byteCount: part,
        kind: isCut ? .truncated : .received)
      taken += part
    } while taken < byteCount
    arrivalCount += 1
    used = min(bytes.count, roundUp(start + byteCount, to: BatchLayout.alignment))
  }

  /// Takes a datagram that stands elsewhere, and stays there until `open`: what has come out of
  /// another tunnel. It has `lead` bytes before it and `slack` bytes behind that may be read and,
  /// behind it, overwritten. False when the batch is full.
  mutating func append(
    at start: UnsafeMutableRawPointer, byteCount: Int, from path: Path, trafficClass: UInt8
  ) -> Bool {
    // It counts like one in the batch's own bytes, as its text needs the same room.
    guard arrivalCount < arrivals.count, count < packets.count,
      byteCount <= bytes.count - used - BatchLayout.headroom - BatchLayout.slack
    else { return false }
    arrivals[arrivalCount] = Arrival(trafficClass: trafficClass, path: path)
    append(at: start, byteCount: byteCount, kind: .received)
    arrivalCount += 1
    used = roundUp(used + BatchLayout.headroom + byteCount, to: BatchLayout.alignment)
    return true
  }

  /// Whether the next datagram finds room, however large it is.
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

  /// Bytes taken, with what lies between the datagrams: how much work the batch is.
  public var byteCount: Int { used }

  func datagram(_ index: Int) -> UnsafeMutableRawPointer { packets[index].start }

  func text(_ index: Int) -> UnsafeMutableRawPointer {
    texts.baseAddress! + Int(packets[index].textOffset)
  }
}

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
