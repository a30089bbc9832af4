/// Datagrams of a forwarder's clients on their way: fixed tables, and for those that come from
/// clients the memory that they are received into.
///
///     | lead | headroom | datagram | lead | headroom | datagram | ... slack |
///
/// The headroom takes the headers of the packet that the datagram becomes where it stands. The lead
/// and the slack are what the cipher may read, and the lead what an ICMP error in front of the
/// packet may overwrite.
public struct ForwarderBatch: ~Copyable {
  public struct Datagram: BitwiseCopyable {
    /// Where a datagram from a client stands in the batch, or one to a client elsewhere.
    public let bytes: UnsafeMutableRawBufferPointer
    /// From or to whom, and which address of ours he asked.
    public let client: Path
    public let mapping: UInt8
    public let trafficClass: UInt8
  }

  private let bytes: UnsafeMutableRawBufferPointer
  private let datagrams: UnsafeMutableBufferPointer<Datagram>
  private var used = 0
  public private(set) var count = 0

  static let owner: StaticString = "flows: datagrams on their way"
  private static let before = BatchLayout.lead + DatagramChannel.headroom
  /// One datagram of any size.
  private static let leastByteCount =
    before + BatchLayout.maximumDatagram + BatchLayout.slack

  /// - Parameter receives: whether datagrams from clients are received into its own memory.
  public init(carvingFrom arena: inout Arena, limits: Limits, receives: Bool) {
    bytes = arena.carveBytes(
      receives ? max(limits.batchByteCount, ForwarderBatch.leastByteCount) : 0,
      owner: ForwarderBatch.owner)
    let size = limits.batchPackets * MemoryLayout<Datagram>.stride
    datagrams = UnsafeMutableBufferPointer(
      start: arena.carveBytes(size, owner: ForwarderBatch.owner).baseAddress!
        .assumingMemoryBound(to: Datagram.self), count: limits.batchPackets)
  }

  public mutating func reset() {
    used = 0
    count = 0
  }

  /// Room for a datagram of any size; nil where the batch is full.
  public func room() -> UnsafeMutableRawBufferPointer? {
    let start = used + ForwarderBatch.before
    guard hasPlace, start + BatchLayout.maximumDatagram + BatchLayout.slack <= bytes.count else {
      return nil
    }
    return UnsafeMutableRawBufferPointer(
      start: bytes.baseAddress! + start, count: BatchLayout.maximumDatagram)
  }

  /// Takes the datagram that was written into the room last given.
  public mutating func append(
    byteCount: Int, from client: Path, on mapping: Int, trafficClass: UInt8
  ) {
    guard let room = room() else { return }
    precondition(byteCount >= 0 && byteCount <= room.count)
    used = roundUp(
      used + ForwarderBatch.before + byteCount, to: BatchLayout.alignment)
    append(
      UnsafeMutableRawBufferPointer(rebasing: room[..<byteCount]), client, mapping, trafficClass)
  }

  /// Whether another datagram finds a place in the table.
  var hasPlace: Bool { count < datagrams.count }

  /// Takes a datagram that stands elsewhere.
  mutating func append(
    _ bytes: UnsafeMutableRawBufferPointer, _ client: Path, _ mapping: Int, _ trafficClass: UInt8
  ) {
    precondition(hasPlace)
    datagrams.initializeElement(
      at: count,
      to: Datagram(
        bytes: bytes, client: client, mapping: UInt8(truncatingIfNeeded: mapping),
        trafficClass: trafficClass))
    count += 1
  }

  public subscript(index: Int) -> Datagram {
    precondition(index >= 0 && index < count)
    return datagrams[index]
  }
}
