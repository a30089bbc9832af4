/// The work of the outbound lane: packets on their way from the TUN to the network, in one fixed
/// buffer.
///
///     batch.reset()
///     while let room = batch.room(for: mtu) { read into room; batch.append(byteCount: n) }
///     tunnel.plan(&batch, at: now)       // tunnel locked: route, reserve counters, copy keys
///     batch.seal()                       // no lock: encrypt
///     for index in 0..<batch.count { switch batch.output(index) { ... } }
///     tunnel.emit(&batch, at: now)       // tunnel locked: timers, counters
///
/// Messages of the tunnel's own (handshakes, keepalives, staged packets, ICMP errors) leave in
/// such a batch too, planned by `Tunnel.advance`.
public struct OutboundBatch: ~Copyable {
  /// Where a planned packet goes.
  public enum Output {
    case none
    /// To the network. The traffic class is the outer one: DSCP and ECN.
    case datagram(UnsafeRawBufferPointer, Path, trafficClass: UInt8)
    /// Back into the TUN: an ICMP error.
    case reply(UnsafeMutableRawBufferPointer)
  }

  struct Packet: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
      /// As read from the TUN.
      case unplanned
      /// Plaintext that `seal` turns into transport data.
      case text
      /// Transport data.
      case sealed
      /// A handshake message, complete.
      case message
      case reply
      /// The kernel refused it.
      case failed
      case dropped
    }
    /// Of the plaintext, message or reply in the batch's bytes.
    var offset: UInt32
    var byteCount: UInt32
    /// Plaintext and padding.
    var paddedByteCount: UInt32
    var session: UInt16
    var kind: Kind
    var trafficClass: UInt8
    var counter: UInt64
  }

  let bytes: UnsafeMutableRawBufferPointer
  let packets: UnsafeMutableBufferPointer<Packet>
  var sessions: BatchSessions
  public private(set) var count = 0
  private var used = 0
  /// Tells one filling of the batch from the next, for the peers' memo of their session here.
  var serial: UInt64 = 0

  init(carvingFrom arena: inout Arena, keys: UnsafeMutableRawPointer, limits: Limits) {
    let owner: StaticString = "outbound batch"
    bytes = arena.carveBytes(limits.batchByteCount, owner: owner)
    packets = arena.carve(Packet.self, count: limits.batchPackets, owner: owner)
    sessions = BatchSessions(
      carvingFrom: &arena, keys: keys, capacity: limits.batchPackets, owner: owner)
  }

  /// Empties the batch and wipes its keys.
  public mutating func reset() {
    sessions.reset()
    count = 0
    used = 0
  }

  /// Room for one more packet of up to `byteCount` bytes; nil when the batch is full.
  public func room(for byteCount: Int) -> UnsafeMutableRawBufferPointer? {
    guard
      count < packets.count, byteCount >= 0,
      byteCount <= bytes.count - used - BatchLayout.headroom - BatchLayout.tailroom
    else { return nil }
    return UnsafeMutableRawBufferPointer(
      start: bytes.baseAddress! + used + BatchLayout.headroom, count: byteCount)
  }

  /// Takes the packet that was written into the room last given.
  public mutating func append(byteCount: Int) {
    _ = append(byteCount: byteCount, kind: .unplanned)
  }

  mutating func append(byteCount: Int, kind: Packet.Kind) -> Int {
    precondition(
      count < packets.count && byteCount >= 0
        && byteCount <= bytes.count - used - BatchLayout.headroom - BatchLayout.tailroom)
    let index = count
    packets[index] = Packet(
      offset: UInt32(used + BatchLayout.headroom), byteCount: UInt32(byteCount),
      paddedByteCount: 0, session: 0, kind: kind, trafficClass: 0, counter: 0)
    used += roundUp(
      BatchLayout.headroom + byteCount + BatchLayout.tailroom, to: BatchLayout.alignment)
    if used > bytes.count { used = bytes.count }
    count += 1
    return index
  }

  func text(_ index: Int) -> UnsafeMutableRawPointer {
    bytes.baseAddress! + Int(packets[index].offset)
  }

  /// Encrypts every planned packet in place. Touches nothing but the batch.
  public mutating func seal() {
    for index in 0..<count where packets[index].kind == .text {
      sealPacket(index)
    }
  }

  private func sealPacket(_ index: Int) {
    let packet = packets.baseAddress! + index
    let text = self.text(index)
    let byteCount = Int(packet.pointee.byteCount)
    let padded = Int(packet.pointee.paddedByteCount)
    if padded > byteCount {
      (text + byteCount).initializeMemory(as: UInt8.self, repeating: 0, count: padded - byteCount)
    }
    TransportDataMessage.writeHeader(
      to: text - WireGuard.transportHeaderByteCount,
      receiver: sessions[packet.pointee.session].pointee.receiver, counter: packet.pointee.counter)
    AEAD.seal(
      text, byteCount: padded, counter: packet.pointee.counter,
      key: sessions.key(packet.pointee.session))
    packet.pointee.kind = .sealed
  }

  /// What the shell does with a packet after `seal`.
  public func output(_ index: Int) -> Output {
    precondition(index >= 0 && index < count)
    let packet = packets.baseAddress! + index
    switch packet.pointee.kind {
    case .sealed:
      let header = WireGuard.transportHeaderByteCount
      return .datagram(
        UnsafeRawBufferPointer(
          start: text(index) - header,
          count: Int(packet.pointee.paddedByteCount) + WireGuard.overheadByteCount),
        sessions[packet.pointee.session].pointee.path, trafficClass: packet.pointee.trafficClass)
    case .message:
      return .datagram(
        UnsafeRawBufferPointer(start: text(index), count: Int(packet.pointee.byteCount)),
        sessions[packet.pointee.session].pointee.path, trafficClass: packet.pointee.trafficClass)
    case .reply:
      return .reply(
        UnsafeMutableRawBufferPointer(start: text(index), count: Int(packet.pointee.byteCount)))
    case .unplanned, .text, .failed, .dropped:
      return .none
    }
  }

  /// Records that a datagram could not be sent; `emit` then does not count it.
  public mutating func didFail(_ index: Int) {
    precondition(index >= 0 && index < count)
    packets[index].kind = .failed
  }

  /// The local address of this datagram's path is gone; `emit` makes the peer forget it.
  public mutating func didLoseSource(_ index: Int) {
    precondition(index >= 0 && index < count)
    let session = sessions[packets[index].session]
    session.pointee.path = Path(to: session.pointee.path.endpoint)
    session.pointee.didLoseSource = true
  }
}
