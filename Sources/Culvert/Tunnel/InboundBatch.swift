/// The work of the inbound lane: datagrams on their way from the network to the TUN, in one fixed
/// buffer.
///
///     batch.reset()
///     while let room = batch.room { receive into room; batch.append(...) }
///     tunnel.accept(&batch, at: now)     // tunnel locked: classify, look up, copy keys
///     batch.open()                       // no lock: authenticate, decrypt
///     tunnel.deliver(&batch, at: now)    // tunnel locked: replay window, source, roaming, timers
///     for index in 0..<batch.count { if let packet = batch.delivered(index) { write it } }
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
    /// Of the datagram in the batch's bytes.
    var offset: UInt32
    var byteCount: UInt32
    /// Of the inner packet, which stands behind the transport header.
    var innerByteCount: UInt32
    var session: UInt16
    var kind: Kind
    /// The outer one, for its ECN bits.
    var trafficClass: UInt8
    var counter: UInt64
    var path: Path
  }

  let bytes: UnsafeMutableRawBufferPointer
  let packets: UnsafeMutableBufferPointer<Packet>
  var sessions: BatchSessions
  public private(set) var count = 0
  private var used = 0
  var serial: UInt64 = 0

  init(carvingFrom arena: inout Arena, keys: UnsafeMutableRawPointer, limits: Limits) {
    let owner: StaticString = "inbound batch"
    bytes = arena.carveBytes(limits.batchByteCount, owner: owner)
    packets = arena.carve(Packet.self, count: limits.batchPackets, owner: owner)
    sessions = BatchSessions(
      carvingFrom: &arena, keys: keys, capacity: limits.batchPackets, owner: owner)
  }

  public mutating func reset() {
    sessions.reset()
    count = 0
    used = 0
  }

  /// Room for one more datagram of any size; nil when the batch is full.
  public var room: UnsafeMutableRawBufferPointer? {
    guard
      count < packets.count,
      BatchLayout.maximumDatagram <= bytes.count - used - BatchLayout.headroom
    else { return nil }
    return UnsafeMutableRawBufferPointer(
      start: bytes.baseAddress! + used + BatchLayout.headroom, count: BatchLayout.maximumDatagram)
  }

  /// Takes the datagram that was written into the room last given.
  public mutating func append(
    byteCount: Int, from path: Path, trafficClass: UInt8, isTruncated: Bool
  ) {
    precondition(count < packets.count && byteCount >= 0)
    precondition(byteCount <= bytes.count - used - BatchLayout.headroom)
    packets[count] = Packet(
      offset: UInt32(used + BatchLayout.headroom), byteCount: UInt32(byteCount),
      innerByteCount: 0, session: 0, kind: isTruncated ? .truncated : .received,
      trafficClass: trafficClass, counter: 0, path: path)
    used += roundUp(BatchLayout.headroom + byteCount, to: BatchLayout.alignment)
    if used > bytes.count { used = bytes.count }
    count += 1
  }

  func datagram(_ index: Int) -> UnsafeMutableRawPointer {
    bytes.baseAddress! + Int(packets[index].offset)
  }

  /// Authenticates and decrypts in place. Touches nothing but the batch.
  public mutating func open() {
    for index in 0..<count where packets[index].kind == .sealed {
      let packet = packets.baseAddress! + index
      let text = datagram(index) + WireGuard.transportHeaderByteCount
      if AEAD.open(
        text, byteCount: Int(packet.pointee.byteCount) - WireGuard.overheadByteCount,
        counter: packet.pointee.counter, key: sessions.key(packet.pointee.session))
      {
        packet.pointee.kind = .authentic
      }
    }
  }

  /// The inner packet that the shell writes to the TUN; nil where there is none.
  public func delivered(_ index: Int) -> UnsafeMutableRawBufferPointer? {
    precondition(index >= 0 && index < count)
    let packet = packets.baseAddress! + index
    guard packet.pointee.kind == .delivered else { return nil }
    return UnsafeMutableRawBufferPointer(
      start: datagram(index) + WireGuard.transportHeaderByteCount,
      count: Int(packet.pointee.innerByteCount))
  }
}
