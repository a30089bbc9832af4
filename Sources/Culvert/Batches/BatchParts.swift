/// How packets lie in a batch's memory. The cipher reads from one area and writes to another. What
/// it reads stays in place, so that segments are cut without a copy, and a tag is verified after
/// the same pass that decrypts. What it writes lies back to back, so that one call sends it all.
///
///     input   | lead | headroom | packet | headroom | packet | ... slack |
///     output  | lead | gap | header, text, tag | gap | header, text, tag | ... slack |
///
/// The gap is empty if datagrams are sent through a socket. If they are sent through another
/// tunnel, it is room for their IP and UDP headers, so that the other tunnel reads them in place.
public enum BatchLayout {
  /// Free bytes before each packet: enough for the cipher, for an ICMP error in front of an IPv6
  /// packet (48) with a virtio header before it (10-16), and for the transport header.
  public static let headroom = 64
  /// Bytes at the start of an area. The cipher may read before a packet, also before one whose
  /// headers fill its headroom.
  static let lead = 64
  /// Bytes after the last packet of an area, which the cipher may read or overwrite.
  static let slack = TransportCipher.slack
  static let alignment = 16
  /// The largest datagram that UDP can carry, over either family.
  public static let maximumDatagram = 65_535
  /// The largest number of bytes for one send with UDP_SEGMENT: an IPv6 packet without extension
  /// headers, counted as the stricter IPv4 does.
  static let maximumSend = 65_487
  /// Segments in one such send: UDP_MAX_SEGMENTS of Linux before 6.9.
  public static let maximumSegments = 64
  /// Bytes of the area that sealed datagrams are written to: what one full read of the TUN makes
  /// at an MTU of 1420 or more (48 datagrams of 1452 bytes), and any single datagram.
  static let outputByteCount = 80 * 1024
  /// The distance between datagrams of up to `byteCount` bytes that are received in one call: each
  /// starts at a multiple of the alignment.
  public static func stride(for byteCount: Int) -> Int {
    roundUp(headroom + byteCount, to: alignment)
  }
  /// Bytes for a copy of a packet's headers while it is cut into segments.
  static let segmentHeaderByteCount = 128
}

/// What a batch copies from the tunnel about one session, so that the cipher can run without the
/// tunnel. The key itself is in the batch's part of the locked memory.
struct BatchSession: BitwiseCopyable {
  var peer: PeerID
  /// Outbound: the peer's index, written into each header.
  var receiver: UInt32
  /// Inbound: our index, by which `deliver` finds the session again.
  var localIndex: UInt32
  var path: Path
  // Outbound: what became of the datagrams.
  var didTry = false
  /// Transport data was sent: data or keepalives.
  var didSendTransport = false
  var didSendData = false
  /// The path's local address no longer exists.
  var didLoseSource = false
  /// The kernel refused segments of `segmentLimit` bytes.
  var didRefuseSegments = false
  /// Datagrams of at least this size are sent one by one (see `Peer.segmentLimit`).
  var segmentLimit: UInt16 = .max
  /// Datagrams sent, their bytes, and datagrams that the kernel refused.
  var sentCount: UInt32 = 0
  var failedCount: UInt32 = 0
  var sentByteCount: UInt64 = 0

  init(peer: PeerID, receiver: UInt32 = 0, localIndex: UInt32 = 0, path: Path) {
    self.peer = peer
    self.receiver = receiver
    self.localIndex = localIndex
    self.path = path
  }

  /// Outbound: adds what became of a datagram.
  mutating func count(_ datagram: BatchOutputs.Datagram) {
    didTry = true
    if datagram.kind == .failed {
      failedCount &+= 1
      return
    }
    sentCount &+= 1
    sentByteCount &+= UInt64(datagram.byteCount)
    if datagram.kind != .message { didSendTransport = true }
    if datagram.kind == .data { didSendData = true }
  }
}

/// The sessions of one batch, each with its key, in fixed tables.
struct BatchSessions: ~Copyable {
  let table: UnsafeMutablePointer<BatchSession>
  private let keys: UnsafeMutableRawPointer
  private let capacity: Int
  private(set) var count = 0

  init(
    carvingFrom arena: inout Arena, keys: UnsafeMutableRawPointer, capacity: Int,
    owner: StaticString
  ) {
    table = arena.carve(BatchSession.self, count: capacity, owner: owner).baseAddress!
    self.keys = keys
    self.capacity = capacity
  }

  subscript(index: UInt16) -> BatchSession {
    @inline(__always) unsafeAddress { UnsafePointer(table + Int(index)) }
    @inline(__always) nonmutating unsafeMutableAddress { table + Int(index) }
  }

  func key(_ index: UInt16) -> UnsafeMutableRawPointer {
    keys + Int(index) * WireGuard.keyByteCount
  }

  /// Appends a session and a copy of its key. There is at most one for each packet, so the table
  /// cannot overflow.
  mutating func append(_ session: BatchSession, key: UnsafeRawPointer?) -> UInt16 {
    precondition(count < capacity)
    let index = UInt16(truncatingIfNeeded: count)
    table[count] = session
    if let key {
      self.key(index).copyMemory(from: key, byteCount: WireGuard.keyByteCount)
    }
    count += 1
    return index
  }

  /// Wipes the keys and forgets the sessions.
  mutating func reset() {
    Secret.wipe(keys, byteCount: count * WireGuard.keyByteCount)
    count = 0
  }
}

/// The datagrams that a batch has ready to send, and the area in which sealed ones lie back to
/// back.
struct BatchOutputs: ~Copyable {
  struct Datagram: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
      /// Transport data with a packet in it.
      case data
      /// Transport data without one.
      case keepalive
      /// A handshake message.
      case message
      /// An ICMP error for the TUN, not for the network.
      case reply
      /// The kernel refused to send it.
      case failed
    }
    let start: UnsafeMutableRawPointer
    var byteCount: UInt32
    var session: UInt16
    var kind: Kind
    var trafficClass: UInt8
  }

  let bytes: UnsafeMutableRawBufferPointer
  let datagrams: UnsafeMutableBufferPointer<Datagram>
  /// `BatchLayout.segmentHeaderByteCount` bytes.
  let segmentHeaders: UnsafeMutableRawPointer
  private(set) var count = 0
  private var used = BatchLayout.lead
  /// Bytes left free before each datagram, for the headers of another tunnel's packet.
  var gap = 0

  init(carvingFrom arena: inout Arena, capacity: Int, owner: StaticString) {
    bytes = arena.carveBytes(BatchLayout.outputByteCount, owner: owner)
    datagrams = arena.carve(Datagram.self, count: capacity, owner: owner)
    segmentHeaders =
      arena.carveBytes(BatchLayout.segmentHeaderByteCount, owner: owner).baseAddress!
  }

  mutating func reset() {
    count = 0
    used = BatchLayout.lead
  }

  subscript(index: Int) -> Datagram {
    @inline(__always) unsafeAddress {
      UnsafePointer(datagrams.baseAddress.unsafelyUnwrapped + index)
    }
    @inline(__always) nonmutating unsafeMutableAddress {
      datagrams.baseAddress.unsafelyUnwrapped + index
    }
  }

  var isFull: Bool { count == datagrams.count }

  /// The place for a sealed datagram of `byteCount` bytes; nil if there is no more room.
  @inline(__always)
  func place(for byteCount: Int) -> UnsafeMutableRawPointer? {
    guard !isFull, byteCount <= bytes.count - used - gap - BatchLayout.slack else { return nil }
    return bytes.baseAddress! + used + gap
  }

  /// Appends the datagram that was written to the place last returned by `place(for:)`.
  mutating func appendSealed(
    byteCount: Int, session: UInt16, kind: Datagram.Kind, trafficClass: UInt8
  ) {
    let start = bytes.baseAddress! + used + gap
    used += gap + byteCount
    append(
      Datagram(
        start: start, byteCount: UInt32(truncatingIfNeeded: byteCount), session: session,
        kind: kind, trafficClass: trafficClass))
  }

  /// Appends a datagram that lies outside the area.
  mutating func append(_ datagram: Datagram) {
    precondition(!isFull)
    datagrams[count] = datagram
    count += 1
  }

  /// How many datagrams from `first` on can be sent in one call: all to the same peer with the same
  /// traffic class. If `isUniform`, they also lie back to back and have one size, except that the
  /// last may be shorter, as UDP_SEGMENT requires.
  func runLength(from first: Int, isUniform: Bool) -> Int {
    let head = self[first]
    let isTransport = head.kind == .data || head.kind == .keepalive
    guard isTransport else { return 1 }
    var next = first + 1
    var total = Int(head.byteCount)
    while next < count, next - first < BatchLayout.maximumSegments {
      let datagram = self[next]
      guard datagram.kind == .data || datagram.kind == .keepalive,
        datagram.session == head.session, datagram.trafficClass == head.trafficClass
      else { break }
      if isUniform {
        total += Int(datagram.byteCount)
        guard datagram.byteCount <= head.byteCount, total <= BatchLayout.maximumSend,
          self[next - 1].byteCount == head.byteCount,
          datagram.start == head.start + Int(head.byteCount) * (next - first)
        else { break }
      }
      next += 1
    }
    return next - first
  }
}
