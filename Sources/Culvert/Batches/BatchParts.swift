/// The layout of packets in a batch's memory. The cipher reads from one area and writes to another.
/// Its input stays unchanged, so that segments can be cut without a copy, and one pass can both
/// decrypt a packet and compute its tag. Its output is contiguous, so that one call can send all of
/// it.
///
///     input   | lead | headroom | packet | headroom | packet | ... slack |
///     output  | lead | gap | header, text, tag | gap | header, text, tag | ... slack |
///
/// If datagrams are sent through a socket, the gap is empty. If they are sent through another
/// tunnel, the gap has room for their IP and UDP headers, so that the other tunnel can encrypt them
/// without a copy.
public enum BatchLayout {
  /// Free bytes before each packet. They are enough for the cipher, and for the headers of an ICMP
  /// error that quotes the packet (48 bytes with IPv6) with a virtio header (10-16) before them.
  public static let headroom = 64
  /// Bytes at the start of an area. The cipher may read bytes before a packet, even if the packet's
  /// headers fill the headroom.
  static let lead = 64
  /// Bytes after the last packet of an area, which the cipher may read or overwrite.
  static let slack = TransportCipher.slack
  static let alignment = 16
  /// No UDP datagram is larger than this, over IPv4 or IPv6.
  public static let maximumDatagram = 65_535
  /// The largest number of bytes in one send with UDP_SEGMENT: 65,535 less the IPv6 and UDP
  /// headers. IPv6 itself would allow more, because it does not count its header.
  static let maximumSend = 65_487
  /// The largest number of segments in one such send: UDP_MAX_SEGMENTS of Linux before 6.9.
  public static let maximumSegments = 64
  /// Bytes of the area for sealed datagrams. It has room for the datagrams of one full read of the
  /// TUN at an MTU of at least 1420 (48 datagrams of 1452 bytes), and for any single datagram.
  static let outputByteCount = 80 * 1024
  /// The distance between datagrams of up to `byteCount` bytes that are received in one call. Each
  /// starts at a multiple of the alignment.
  public static func stride(for byteCount: Int) -> Int {
    roundUp(headroom + byteCount, to: alignment)
  }
  /// Room for a copy of a packet's headers while it is cut into segments.
  static let segmentHeaderByteCount = 128
}

/// A copy of what the batch needs from one of the tunnel's sessions, so that the cipher can run
/// without the tunnel. The key itself is in the batch's part of the locked memory.
struct BatchSession: BitwiseCopyable {
  var peer: PeerID
  /// Outbound: the peer's index, which is written to each header.
  var receiver: UInt32
  /// Inbound: our index, which `deliver` uses to find the session again.
  var localIndex: UInt32
  var path: Path
  // Outbound: the results of sending.
  var didTry = false
  /// Transport data was sent, either data or keepalives.
  var didSendTransport = false
  var didSendData = false
  /// The path's local address no longer exists.
  var didLoseSource = false
  /// The kernel refused segments of `segmentLimit` bytes.
  var didRefuseSegments = false
  /// Datagrams of at least this size are sent one by one (see `Peer.segmentLimit`).
  var segmentLimit: UInt16 = .max
  /// The number of datagrams sent and refused by the kernel, and the bytes sent.
  var sentCount: UInt32 = 0
  var failedCount: UInt32 = 0
  var sentByteCount: UInt64 = 0

  init(peer: PeerID, receiver: UInt32 = 0, localIndex: UInt32 = 0, path: Path) {
    self.peer = peer
    self.receiver = receiver
    self.localIndex = localIndex
    self.path = path
  }

  /// Outbound: adds the result of sending a datagram.
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

/// The sessions of one batch and their keys, in tables of fixed size.
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

  /// Appends a session and a copy of its key. There is at most one session per packet, so the table
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

/// The datagrams that are ready to send, and the area that holds the sealed ones contiguously.
struct BatchOutputs: ~Copyable {
  struct Datagram: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
      /// Transport data with a packet in it.
      case data
      /// Transport data without a packet.
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
  /// Bytes left free before each datagram, for the IP and UDP headers if another tunnel carries it.
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

  /// The place for a sealed datagram of `byteCount` bytes; nil if there is no room.
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

  /// Appends a datagram that is outside the area.
  mutating func append(_ datagram: Datagram) {
    precondition(!isFull)
    datagrams[count] = datagram
    count += 1
  }

  /// The number of datagrams from `first` on that can be sent in one call: all have the same
  /// session and traffic class. If `isUniform`, they are also contiguous and equal in size, except
  /// that the last may be shorter, as UDP_SEGMENT requires.
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
