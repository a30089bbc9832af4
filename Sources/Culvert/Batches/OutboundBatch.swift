/// The work of the outbound lane: packets on their way from the TUN to the network, in one fixed
/// buffer.
///
///     batch.reset()
///     while let room = batch.room(for: mtu) { read into room; batch.append(byteCount: n) }
///     tunnel.plan(&batch, at: now)       // tunnel locked: route, reserve counters, copy keys
///     while batch.seal() {               // no lock: cut into segments, encrypt
///       for index in 0..<batch.outputCount { switch batch.output(index) { ... } }
///     }
///     tunnel.emit(&batch, at: now)       // tunnel locked: timers, counters
///
/// A packet with a segmentation offload may make more datagrams than the batch has room for; then
/// `seal` makes them in several rounds.
///
/// Messages of the tunnel's own (handshakes, keepalives, staged packets, ICMP errors) leave in
/// such a batch too, planned by `Tunnel.runTimers`.
public struct OutboundBatch: ~Copyable {
  struct Packet: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
      /// As read from the TUN.
      case unplanned
      /// Plaintext that `seal` turns into transport data.
      case text
      /// A handshake message, complete.
      case message
      /// Back into the TUN: an ICMP error.
      case reply
      case dropped
    }
    /// The plaintext, message or reply: in the input area, or elsewhere (`append(at:)`).
    var start: UnsafeMutableRawPointer
    var byteCount: UInt32
    var session: UInt16
    var kind: Kind
    var trafficClass: UInt8
    /// Of the first segment.
    var counter: UInt64
    /// What the kernel left to us: segments, checksums.
    var offload: PacketOffload
  }

  let bytes: UnsafeMutableRawBufferPointer
  let packets: UnsafeMutableBufferPointer<Packet>
  var sessions: BatchSessions
  public private(set) var count = 0
  private var used = BatchLayout.lead
  /// Tells one filling of the batch from the next, for the peers' memo of their session here.
  var serial: UInt64 = 0
  /// Set by the tunnel with each filling.
  var cipher = TransportCipher.whole
  /// For padding; 0 for none known.
  var mtu = 0
  /// What `seal` has made and the shell sends.
  var outputs: BatchOutputs
  /// Where the next round of `seal` goes on.
  var cursor = Cursor()

  struct Cursor {
    var packet = 0
    var segment = 0
    var segmenter: Segmenter?
  }

  init(carvingFrom arena: inout Arena, keys: UnsafeMutableRawPointer, limits: Limits) {
    let owner: StaticString = "outbound batches"
    bytes = arena.carveBytes(limits.batchByteCount, owner: owner)
    packets = arena.carve(Packet.self, count: limits.batchPackets, owner: owner)
    sessions = BatchSessions(
      carvingFrom: &arena, keys: keys, capacity: limits.batchPackets, owner: owner)
    outputs = BatchOutputs(carvingFrom: &arena, capacity: limits.batchPackets, owner: owner)
  }

  /// Empties the batch and wipes its keys.
  public mutating func reset() {
    sessions.reset()
    outputs.reset()
    cursor = Cursor()
    count = 0
    used = BatchLayout.lead
  }

  /// The memory of an empty batch, to measure ciphers in.
  public var scratch: UnsafeMutableRawBufferPointer { bytes }

  // MARK: Filling

  /// Room for one more packet of up to `byteCount` bytes, with `headroom` bytes to use before it;
  /// nil when the batch is full.
  public func room(for byteCount: Int) -> UnsafeMutableRawBufferPointer? {
    guard count < packets.count, hasRoom(for: byteCount) else { return nil }
    return UnsafeMutableRawBufferPointer(
      start: bytes.baseAddress! + used + BatchLayout.headroom, count: byteCount)
  }

  private func hasRoom(for byteCount: Int) -> Bool {
    byteCount >= 0
      && byteCount <= bytes.count - used - BatchLayout.headroom - BatchLayout.slack
  }

  /// Takes the packet that was written into the room last given.
  public mutating func append(byteCount: Int, offload: PacketOffload = .none) {
    _ = append(byteCount: byteCount, kind: .unplanned, offload: offload)
  }

  mutating func append(
    byteCount: Int, kind: Packet.Kind, offload: PacketOffload = .none
  ) -> Int {
    precondition(count < packets.count && hasRoom(for: byteCount))
    let index = count
    append(
      at: bytes.baseAddress! + used + BatchLayout.headroom, byteCount: byteCount, kind: kind,
      offload: offload)
    used = min(
      bytes.count, roundUp(used + BatchLayout.headroom + byteCount, to: BatchLayout.alignment))
    return index
  }

  /// Takes a packet that stands elsewhere, and stays there until `emit`: what another tunnel has
  /// sealed. Around it there are `lead` bytes before and `slack` bytes behind to be read.
  mutating func append(at start: UnsafeMutableRawPointer, byteCount: Int) {
    precondition(count < packets.count)
    append(at: start, byteCount: byteCount, kind: .unplanned, offload: .none)
  }

  private mutating func append(
    at start: UnsafeMutableRawPointer, byteCount: Int, kind: Packet.Kind, offload: PacketOffload
  ) {
    packets[count] = Packet(
      start: start, byteCount: UInt32(truncatingIfNeeded: byteCount), session: 0, kind: kind,
      trafficClass: 0, counter: 0, offload: offload)
    count += 1
  }

  /// Whether what stands there is in the batch's own memory.
  func holds(_ start: UnsafeMutableRawPointer) -> Bool {
    start >= bytes.baseAddress! && start < bytes.baseAddress! + bytes.count
  }

  /// Whether so many packets of up to `byteCount` bytes each find room.
  func hasRoom(forPackets packetCount: Int, of byteCount: Int) -> Bool {
    let stride = roundUp(BatchLayout.headroom + byteCount, to: BatchLayout.alignment)
    return packetCount <= freeCount
      && packetCount <= (bytes.count - used - BatchLayout.slack) / stride
  }

  /// Packets that still find a place.
  var freeCount: Int { packets.count - count }

  /// Says that what `seal` makes goes into another tunnel: each datagram then has so many bytes
  /// before it for headers. Once, before the batch is used.
  public mutating func leaveRoom(forHeaders byteCount: Int) {
    precondition(byteCount <= BatchLayout.headroom)
    outputs.gap = byteCount
  }

  /// Bytes taken, with what lies between the packets: how much work the batch is.
  public var byteCount: Int { used }

  func text(_ index: Int) -> UnsafeMutableRawPointer { packets[index].start }

  /// Sees to it that a packet can be cut; nil where the kernel's word about it makes no sense.
  func segmenter(_ index: Int) -> Segmenter? {
    Segmenter(
      at: text(index), byteCount: Int(packets[index].byteCount), offload: packets[index].offload,
      headers: outputs.segmentHeaders)
  }
}

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
  public mutating func seal() -> Bool {
    countOutcomes()
    outputs.reset()
    while cursor.packet < count {
      guard encode(packets[cursor.packet]) else { return true }
      cursor.packet += 1
      cursor.segment = 0
    }
    return outputs.count > 0
  }

  /// False where there is no room for (the rest of) the packet.
  private mutating func encode(_ packet: Packet) -> Bool {
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
        return encryptText(packet.start, byteCount: Int(packet.byteCount), packet)
      }
      return encryptSegments(packet)
    }
  }

  private mutating func encryptSegments(_ packet: Packet) -> Bool {
    if cursor.segment == 0 { cursor.segmenter = segmenter(cursor.packet) }
    // `plan` has seen that it can be cut.
    guard var segmenter = cursor.segmenter else { return true }
    defer { cursor.segmenter = segmenter }
    while cursor.segment < segmenter.segmentCount {
      let byteCount = segmenter.byteCount(cursor.segment)
      // Cutting overwrites what stood before the segment, so room is made sure of first.
      guard outputs.place(for: sealedByteCount(byteCount)) != nil else { return false }
      _ = encryptText(segmenter.cut(cursor.segment), byteCount: byteCount, packet)
      cursor.segment += 1
    }
    return true
  }

  private mutating func encryptText(
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
  public func runLength(from index: Int, isUniform: Bool) -> Int {
    precondition(index >= 0 && index < outputs.count)
    guard isUniform else { return outputs.runLength(from: index, isUniform: false) }
    let limit = sessions[outputs[index].pointee.session].pointee.segmentLimit
    guard outputs[index].pointee.byteCount < UInt32(limit) else { return 1 }
    return outputs.runLength(from: index, isUniform: true)
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
  mutating func countOutcomes() {
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
