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
  func run(from first: Int, isUniform: Bool) -> Int {
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
