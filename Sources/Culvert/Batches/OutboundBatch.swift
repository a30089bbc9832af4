/// A batch of the outbound lane: packets from the TUN, and the encrypted datagrams for the network,
/// in buffers of fixed size.
///
///     batch.reset()
///     while let room = batch.room(for: mtu) { read into room; batch.append(byteCount: n) }
///     tunnel.plan(&batch, at: now)       // tunnel locked: route, reserve counters, copy keys
///     while batch.seal() {               // no lock: cut into segments, encrypt
///       for index in 0..<batch.outputCount { switch batch.output(index) { ... } }
///     }
///     tunnel.emit(&batch, at: now)       // tunnel locked: timers, counters
///
/// A packet with a segmentation offload may become more datagrams than the batch has room for. In
/// that case `seal` makes them in several rounds.
///
/// The tunnel's own messages (handshakes, keepalives, staged packets, ICMP errors) are also sent in
/// such a batch. `Tunnel.runTimers` plans them.
public struct OutboundBatch: ~Copyable {
  struct Packet: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
      /// As read from the TUN.
      case unplanned
      /// Plaintext that `seal` turns into transport data.
      case text
      /// A complete handshake message.
      case message
      /// An ICMP error, to be written back to the TUN.
      case reply
      case dropped
    }
    /// The plaintext, message or reply, in the batch's memory or outside it (`append(at:)`).
    var start: UnsafeMutableRawPointer
    var byteCount: UInt32
    var session: UInt16
    var kind: Kind
    var trafficClass: UInt8
    /// The counter of the first segment.
    var counter: UInt64
    /// The segmentation and checksum that the kernel has left to us.
    var offload: PacketOffload
  }

  let bytes: UnsafeMutableRawBufferPointer
  let packets: UnsafeMutableBufferPointer<Packet>
  var sessions: BatchSessions
  public private(set) var count = 0
  private var used = BatchLayout.lead
  /// Identifies the current contents of the batch (`Peer.outboundSerial`).
  var serial: UInt64 = 0
  /// Set by the tunnel, like `mtu`, when it stamps the batch.
  var cipher = TransportCipher.whole
  /// Limits padding; 0 if unknown.
  var mtu = 0
  /// The output of `seal`, for the shell to send.
  var outputs: BatchOutputs
  /// Where the next round of `seal` continues.
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

  /// The memory of an empty batch, which is used to measure ciphers.
  package var scratch: UnsafeMutableRawBufferPointer { bytes }

  // MARK: Filling

  /// Room for one more packet of up to `byteCount` bytes, with `headroom` free bytes before it. Nil
  /// when the batch is full.
  public func room(for byteCount: Int) -> UnsafeMutableRawBufferPointer? {
    guard count < packets.count, hasRoom(for: byteCount) else { return nil }
    return UnsafeMutableRawBufferPointer(
      start: bytes.baseAddress! + used + BatchLayout.headroom, count: byteCount)
  }

  private func hasRoom(for byteCount: Int) -> Bool {
    byteCount >= 0
      && byteCount <= bytes.count - used - BatchLayout.headroom - BatchLayout.slack
  }

  /// Appends the packet that was written to the room last returned.
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

  /// Appends a packet outside the batch's memory, for example a datagram that another tunnel has
  /// sealed. It must stay in place until `emit`. The `lead` bytes before it and the `slack` bytes
  /// after it may be read.
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

  /// Whether `start` is in the batch's own memory.
  func holds(_ start: UnsafeMutableRawPointer) -> Bool {
    start >= bytes.baseAddress! && start < bytes.baseAddress! + bytes.count
  }

  /// Whether there is room for `packetCount` packets of up to `byteCount` bytes each.
  func hasRoom(forPackets packetCount: Int, of byteCount: Int) -> Bool {
    let stride = roundUp(BatchLayout.headroom + byteCount, to: BatchLayout.alignment)
    return packetCount <= freeCount
      && packetCount <= (bytes.count - used - BatchLayout.slack) / stride
  }

  /// The number of packets that can still be appended.
  var freeCount: Int { packets.count - count }

  /// Leaves `byteCount` free bytes before each datagram that `seal` makes, for the headers that are
  /// needed to send it through another tunnel. Must be called once, before the batch is used.
  public mutating func leaveRoom(forHeaders byteCount: Int) {
    precondition(byteCount <= BatchLayout.headroom)
    outputs.gap = byteCount
  }

  /// Bytes used, including the space between packets; an estimate of the work in the batch.
  public var byteCount: Int { used }

  func text(_ index: Int) -> UnsafeMutableRawPointer { packets[index].start }

  /// The segmenter of a packet; nil if the kernel's description of its segments is inconsistent.
  func segmenter(_ index: Int) -> Segmenter? {
    Segmenter(
      at: text(index), byteCount: Int(packets[index].byteCount), offload: packets[index].offload,
      headers: outputs.segmentHeaders)
  }
}

/// The parallel step of the outbound lane. It uses only the batch.
extension OutboundBatch {
  /// One result of `seal`, and what the shell must do with it.
  public enum Output {
    /// Send it to the network. The traffic class (DSCP and ECN) is for the outer packet.
    case datagram(UnsafeRawBufferPointer, Path, trafficClass: UInt8)
    /// Write it to the TUN. It is an ICMP error, with `headroom` free bytes before it.
    case reply(UnsafeMutableRawBufferPointer)
  }

  // MARK: seal

  /// Segments and encrypts as many planned packets as there is room for.
  ///
  /// - Returns: true if there are outputs to send; `seal` must be called again after that. False
  ///   when nothing is left.
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

  /// - Returns: false if there is no room for the packet or the rest of its segments.
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
    // `plan` has checked that the packet can be segmented.
    guard var segmenter = cursor.segmenter else { return true }
    defer { cursor.segmenter = segmenter }
    while cursor.segment < segmenter.segmentCount {
      let byteCount = segmenter.byteCount(cursor.segment)
      // Cutting overwrites the end of the previous segment, so check first that there is room.
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
      to: place, receiver: sessions[packet.session].receiver, counter: counter)
    outputs.appendSealed(
      byteCount: sealed, session: packet.session, kind: byteCount > 0 ? .data : .keepalive,
      trafficClass: packet.trafficClass)
    return true
  }

  /// The size of the datagram for a text of `byteCount` bytes. The text is zero-padded to a
  /// multiple of 16 bytes, but not beyond the MTU (R7; whitepaper 5.4.6).
  @inline(__always)
  private func sealedByteCount(_ byteCount: Int) -> Int {
    let padded = roundUp(byteCount, to: WireGuard.paddingByteCount)
    let clamped = mtu > 0 ? max(byteCount, min(padded, mtu)) : padded
    return clamped + WireGuard.overheadByteCount
  }

  // MARK: Outputs

  /// The number of outputs of this round of `seal`.
  public var outputCount: Int { outputs.count }

  public func output(_ index: Int) -> Output {
    precondition(index >= 0 && index < outputs.count)
    let datagram = outputs[index]
    if datagram.kind == .reply {
      return .reply(
        UnsafeMutableRawBufferPointer(start: datagram.start, count: Int(datagram.byteCount)))
    }
    return .datagram(
      UnsafeRawBufferPointer(start: datagram.start, count: Int(datagram.byteCount)),
      sessions[datagram.session].path, trafficClass: datagram.trafficClass)
  }

  /// The number of outputs from `index` on that can be sent on one path in one call, at least 1.
  /// They are datagrams of any size. If `isUniform`, they are one buffer of equal segments, of
  /// which the last may be shorter (UDP_SEGMENT).
  public func runLength(from index: Int, isUniform: Bool) -> Int {
    precondition(index >= 0 && index < outputs.count)
    guard isUniform else { return outputs.runLength(from: index, isUniform: false) }
    let limit = sessions[outputs[index].session].segmentLimit
    guard outputs[index].byteCount < UInt32(limit) else { return 1 }
    return outputs.runLength(from: index, isUniform: true)
  }

  /// Records that a datagram could not be sent; `emit` then counts it as failed.
  public mutating func didFail(_ index: Int) {
    precondition(index >= 0 && index < outputs.count)
    outputs[index].kind = .failed
  }

  /// Records that the local address of this datagram's path no longer exists; `emit` removes it
  /// from the peer's path.
  public mutating func didLoseSource(_ index: Int) {
    precondition(index >= 0 && index < outputs.count)
    let session = outputs[index].session
    sessions[session].path = Path(to: sessions[session].path.endpoint)
    sessions[session].didLoseSource = true
  }

  /// Records that the kernel refused segments of this datagram's size because they exceed the MTU
  /// of its path. Datagrams of this size are sent one by one until the peer's endpoint changes, a
  /// new session starts, or a pause of 1 to 8 seconds is over.
  public mutating func didRefuseSegments(_ index: Int) {
    precondition(index >= 0 && index < outputs.count)
    let session = outputs[index].session
    let byteCount = UInt16(truncatingIfNeeded: min(outputs[index].byteCount, 65_535))
    sessions[session].segmentLimit = min(sessions[session].segmentLimit, byteCount)
    sessions[session].didRefuseSegments = true
  }

  /// Adds the results of this round's datagrams to their sessions. Must be called once per round.
  mutating func countOutcomes() {
    for index in 0..<outputs.count where outputs[index].kind != .reply {
      sessions[outputs[index].session].count(outputs[index])
    }
  }
}
