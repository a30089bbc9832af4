/// Datagrams that a batch has ready, and the area that sealed ones stand in, back to back.
struct BatchOutputs: ~Copyable {
  struct Datagram: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
      /// Transport data, with or without text in it.
      case data
      case keepalive
      /// A handshake message.
      case message
      /// Not to the network: an ICMP error for the TUN.
      case reply
      /// The kernel refused it.
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

  subscript(index: Int) -> UnsafeMutablePointer<Datagram> {
    datagrams.baseAddress! + index
  }

  var isFull: Bool { count == datagrams.count }

  /// Where a sealed datagram of `byteCount` bytes will stand; nil where there is no more room.
  @inline(__always)
  func place(for byteCount: Int) -> UnsafeMutableRawPointer? {
    guard !isFull, byteCount <= bytes.count - used - gap - BatchLayout.slack else { return nil }
    return bytes.baseAddress! + used + gap
  }

  /// Takes the datagram that was written to the place last given.
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

  /// Takes a datagram that stands elsewhere.
  mutating func append(_ datagram: Datagram) {
    precondition(!isFull)
    datagrams[count] = datagram
    count += 1
  }

  /// How many datagrams from `first` on one call can send: to the same peer with the same traffic
  /// class, and where `isUniform`, as UDP_SEGMENT wants it, back to back and of one size but for
  /// the last, which may be shorter.
  func runLength(from first: Int, isUniform: Bool) -> Int {
    let head = self[first].pointee
    let isTransport = head.kind == .data || head.kind == .keepalive
    guard isTransport else { return 1 }
    var next = first + 1
    var total = Int(head.byteCount)
    while next < count, next - first < BatchLayout.maximumSegments {
      let datagram = self[next].pointee
      guard datagram.kind == .data || datagram.kind == .keepalive,
        datagram.session == head.session, datagram.trafficClass == head.trafficClass
      else { break }
      if isUniform {
        total += Int(datagram.byteCount)
        guard datagram.byteCount <= head.byteCount, total <= BatchLayout.maximumSend,
          self[next - 1].pointee.byteCount == head.byteCount,
          datagram.start == head.start + Int(head.byteCount) * (next - first)
        else { break }
      }
      next += 1
    }
    return next - first
  }
}

/// What a batch copies from the tunnel about one session, so that the cipher can run without
/// looking at the tunnel. The key itself lies in the batch's part of the locked memory.
struct BatchSession: BitwiseCopyable {
  var peer: PeerID
  /// Outbound: the peer's index, written into each header.
  var receiver: UInt32
  /// Ours, by which `deliver` finds the session again.
  var localIndex: UInt32
  var path: Path
  /// Outbound: whether sending was tried, whether transport data and among it data really went
  /// out, and whether the path's local address turned out to be gone.
  var didTry = false
  var didSendTransport = false
  var didSendData = false
  var didLoseSource = false
  var didRefuseSegments = false
  /// Outbound: datagrams of this size and above go one by one (see `Peer.segmentLimit`).
  var segmentLimit: UInt16 = .max
  /// Outbound: datagrams and their bytes that went out, and datagrams that the kernel refused.
  var sentCount: UInt32 = 0
  var failedCount: UInt32 = 0
  var sentByteCount: UInt64 = 0

  init(peer: PeerID, receiver: UInt32 = 0, localIndex: UInt32 = 0, path: Path) {
    self.peer = peer
    self.receiver = receiver
    self.localIndex = localIndex
    self.path = path
  }
}

/// The sessions of one batch, each with its key, in fixed tables.
struct BatchSessions: ~Copyable {
  private let sessions: UnsafeMutablePointer<BatchSession>
  private let keys: UnsafeMutableRawPointer
  private let capacity: Int
  private(set) var count = 0

  init(
    carvingFrom arena: inout Arena, keys: UnsafeMutableRawPointer, capacity: Int,
    owner: StaticString
  ) {
    sessions = arena.carve(BatchSession.self, count: capacity, owner: owner).baseAddress!
    self.keys = keys
    self.capacity = capacity
  }

  subscript(index: UInt16) -> UnsafeMutablePointer<BatchSession> {
    sessions + Int(index)
  }

  func key(_ index: UInt16) -> UnsafeMutableRawPointer {
    keys + Int(index) * WireGuard.keyByteCount
  }

  /// There is one session per packet at most, so this cannot overflow.
  mutating func append(_ session: BatchSession, key: UnsafeRawPointer?) -> UInt16 {
    precondition(count < capacity)
    let index = UInt16(truncatingIfNeeded: count)
    sessions[count] = session
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

/// How packets lie in a batch's bytes. The cipher works from one area to the other: what it reads
/// keeps its place, so that segments can be cut without a copy and a tag can be verified after the
/// one pass that decrypts; what it writes stands back to back, so that one call sends it all.
///
///     input   | lead | headroom | packet | headroom | packet | ... slack |
///     output  | lead | gap | header, text, tag | gap | header, text, tag | ... slack |
///
/// The gap is nothing where datagrams go to a socket, and room for IP and UDP headers where they
/// go into another tunnel: that one then reads them where they stand.
public enum BatchLayout {
  /// Bytes to use before each packet: enough for the cipher, for an ICMP error in front of an IPv6
  /// packet (48) with a virtio header before it (10-16), and for the transport header.
  public static let headroom = 64
  /// Bytes before all of it, which the cipher may read: what stands first may be given headers.
  static let lead = 64
  /// What the cipher may read or overwrite behind the last packet of an area.
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
  /// From one datagram to the next where several of up to `byteCount` bytes are received in one
  /// call: the batch goes on at multiples of its alignment.
  public static func stride(for byteCount: Int) -> Int {
    roundUp(headroom + byteCount, to: alignment)
  }
  /// Bytes for segment headers that are kept while the packet is cut.
  static let segmentHeaderByteCount = 128
}
