/// Joins consecutive packets of a flow for the TUN, so that many of them are written as one
/// (`PacketOffload`). The rules are those of the kernel's own receive offload (GRO).
///
///     joiner.reset()
///     joiner.add(index, candidate, at: packet, byteCount: n)   // each, in order of delivery
///     for group in 0..<joiner.groupCount {
///       let offload = joiner.finish(group)
///       joiner.forEachPiece(of: group) { bytes, byteCount in ... }
///     }
///
/// Groups are delivered in the order of their first packets. To keep the packets of a flow in
/// order, a packet that does not fit the group of its flow ends that group, and a packet whose flow
/// is unknown ends every group that it might belong to.
struct Joiner: ~Copyable {
  /// A packet and its successor.
  struct Piece: BitwiseCopyable {
    var bytes: UnsafeMutableRawPointer?
    var byteCount: UInt32
    /// Index + 1; 0 for none.
    var next: UInt32
  }

  /// Packets that are written as one.
  struct Group: BitwiseCopyable {
    var first: UInt32
    var last: UInt32
    /// Payload of all packets.
    var payloadByteCount: UInt32
    /// Payload of each packet but the last.
    var segmentByteCount: UInt16
    var packetCount: UInt16
    var headerByteCount: UInt8
    var kind: JoinCandidate.Kind
    var isPushed: Bool
    /// All packets have the same IPv4 identification; otherwise it counts up.
    var hasFixedIdentification: Bool
  }

  /// A flow whose group accepts more packets.
  struct Flow: BitwiseCopyable {
    var kind: JoinCandidate.Kind
    var addresses: UInt32
    var ports: UInt32
    var group: UInt32
    /// The TCP sequence number that the group's next packet must have.
    var nextSequence: UInt32
  }

  /// The protocols that the TUN accepts as joined packets; others are written one by one.
  var allowTCP = false
  var allowUDP = false

  private let capacity: Int
  private let pieces: UnsafeMutablePointer<Piece>
  private let groups: UnsafeMutablePointer<Group>
  /// The first `flowCount` are open, the oldest first.
  private let flows: UnsafeMutablePointer<Flow>
  private var flowCount = 0
  private(set) var groupCount = 0

  /// Flows with an open group; one more ends the oldest.
  static let maximumFlows = 8
  /// Packets in a group: the kernel's limit for UDP (UDP_MAX_SEGMENTS).
  static let maximumPackets = 64
  /// Bytes of a joined packet, headers included.
  static let maximumByteCount = 65_535

  /// - Parameter packets: the most that can be added between two calls of `reset`.
  init(carvingFrom arena: inout Arena, packets: Int) {
    let owner: StaticString = "joined packets"
    capacity = packets
    pieces = arena.carve(Piece.self, count: packets, owner: owner).baseAddress!
    groups = arena.carve(Group.self, count: packets, owner: owner).baseAddress!
    flows = arena.carve(Flow.self, count: Joiner.maximumFlows, owner: owner).baseAddress!
  }

  mutating func reset() {
    flowCount = 0
    groupCount = 0
  }

  // MARK: Adding

  /// Adds the next packet in order of delivery. Its bytes must not move until `reset`.
  /// - Parameter packet: a number below `packets`; each may be used once between two calls of
  ///   `reset`.
  /// - Parameter candidate: was made from these bytes; only the traffic class may have changed
  ///   since.
  mutating func add(
    _ packet: Int, _ candidate: JoinCandidate, at bytes: UnsafeMutableRawPointer, byteCount: Int
  ) {
    precondition(packet >= 0 && packet < capacity && groupCount < capacity)
    pieces[packet] = Piece(
      bytes: bytes, byteCount: UInt32(truncatingIfNeeded: byteCount), next: 0)
    guard candidate.hasPorts else {
      endFlows(like: candidate)
      addGroup(packet, candidate)
      return
    }
    let mayJoin = candidate.isJoinable && (candidate.isTCP ? allowTCP : allowUDP)
    if let index = flow(of: candidate) {
      if mayJoin, fits(flows[index], candidate, bytes) {
        join(index, packet, candidate, bytes)
        return
      }
      endFlow(index)
    }
    addGroup(packet, candidate)
    if mayJoin, !isPushed(candidate, bytes) { openFlow(candidate, bytes) }
  }

  private mutating func addGroup(_ packet: Int, _ candidate: JoinCandidate) {
    groups[groupCount] = Group(
      first: UInt32(truncatingIfNeeded: packet), last: UInt32(truncatingIfNeeded: packet),
      payloadByteCount: UInt32(candidate.payloadByteCount),
      segmentByteCount: candidate.payloadByteCount, packetCount: 1,
      headerByteCount: candidate.headerByteCount, kind: candidate.kind, isPushed: false,
      hasFixedIdentification: false)
    groupCount &+= 1
  }

  private mutating func join(
    _ index: Int, _ packet: Int, _ candidate: JoinCandidate, _ bytes: UnsafeMutableRawPointer
  ) {
    let group = Int(truncatingIfNeeded: flows[index].group)
    if candidate.isIPv4, groups[group].packetCount == 1 {
      groups[group].hasFixedIdentification =
        bytes.loadBig(4, as: UInt16.self) == firstBytes(of: group).loadBig(4, as: UInt16.self)
    }
    pieces[Int(groups[group].last)].next = UInt32(truncatingIfNeeded: packet &+ 1)
    groups[group].last = UInt32(truncatingIfNeeded: packet)
    // Not `&+=`: Swift 6.3 with the thread sanitizer cannot compile it through the buffer.
    groups[group].packetCount = groups[group].packetCount &+ 1
    groups[group].payloadByteCount =
      groups[group].payloadByteCount &+ UInt32(candidate.payloadByteCount)
    groups[group].isPushed = isPushed(candidate, bytes)
    flows[index].nextSequence =
      flows[index].nextSequence &+ UInt32(candidate.payloadByteCount)
    // All segments but the last must have the same size. As in the kernel, a segment with PSH ends
    // the group.
    if groups[group].isPushed || candidate.payloadByteCount < groups[group].segmentByteCount
      || groups[group].packetCount == UInt16(Joiner.maximumPackets)
    {
      endFlow(index)
    }
  }

  @inline(__always)
  private func isPushed(_ candidate: JoinCandidate, _ bytes: UnsafeMutableRawPointer) -> Bool {
    guard candidate.isTCP else { return false }
    let transportByteOffset =
      candidate.isIPv4 ? IPv4Header.minimumByteCount : IPv6Header.byteCount
    return bytes.byte(transportByteOffset &+ 13) & TCPHeader.pshFlag != 0
  }

  // MARK: Flows

  @inline(__always)
  private func flow(of candidate: JoinCandidate) -> Int? {
    var index = 0
    while index < flowCount {
      if flows[index].ports == candidate.ports, flows[index].addresses == candidate.addresses,
        flows[index].kind == candidate.kind
      {
        return index
      }
      index &+= 1
    }
    return nil
  }

  /// Opens a flow for the newest group.
  private mutating func openFlow(_ candidate: JoinCandidate, _ bytes: UnsafeMutableRawPointer) {
    if flowCount == Joiner.maximumFlows { endFlow(0) }
    var nextSequence: UInt32 = 0
    if candidate.isTCP {
      let offset = candidate.isIPv4 ? IPv4Header.minimumByteCount : IPv6Header.byteCount
      nextSequence =
        bytes.loadBig(offset &+ 4, as: UInt32.self) &+ UInt32(candidate.payloadByteCount)
    }
    flows[flowCount] = Flow(
      kind: candidate.kind, addresses: candidate.addresses, ports: candidate.ports,
      group: UInt32(truncatingIfNeeded: groupCount &- 1), nextSequence: nextSequence)
    flowCount &+= 1
  }

  private mutating func endFlow(_ index: Int) {
    var index = index
    flowCount &-= 1
    while index < flowCount {
      flows[index] = flows[index &+ 1]
      index &+= 1
    }
  }

  /// Ends all flows between the hosts of a packet without ports, or all flows if they are unknown.
  private mutating func endFlows(like candidate: JoinCandidate) {
    guard candidate.kind == .other else {
      flowCount = 0
      return
    }
    var index = flowCount
    while index > 0 {
      index &-= 1
      if flows[index].addresses == candidate.addresses { endFlow(index) }
    }
  }

  // MARK: Fit

  /// Whether a packet continues the group of its flow.
  private func fits(
    _ flow: Flow, _ candidate: JoinCandidate, _ bytes: UnsafeMutableRawPointer
  ) -> Bool {
    let index = Int(truncatingIfNeeded: flow.group)
    let group = groups[index]
    let byteCount =
      Int(group.headerByteCount) &+ Int(group.payloadByteCount) &+ Int(candidate.payloadByteCount)
    guard candidate.headerByteCount == group.headerByteCount,
      candidate.payloadByteCount <= group.segmentByteCount, byteCount <= Joiner.maximumByteCount
    else { return false }
    let first = firstBytes(of: index)
    if candidate.isIPv4 {
      guard hasSameIPv4Header(bytes, first), hasNextIdentification(bytes, first, group)
      else { return false }
    } else {
      guard hasSameIPv6Header(bytes, first) else { return false }
    }
    guard candidate.isTCP else { return true }
    let offset = candidate.isIPv4 ? IPv4Header.minimumByteCount : IPv6Header.byteCount
    return bytes.loadBig(offset &+ 4, as: UInt32.self) == flow.nextSequence
      && hasSameTCPHeader(bytes + offset, first + offset, Int(candidate.headerByteCount) &- offset)
  }

  /// Compares everything except length, identification and checksum.
  @inline(__always)
  private func hasSameIPv4Header(
    _ bytes: UnsafeMutableRawPointer, _ first: UnsafeMutableRawPointer
  ) -> Bool {
    (difference(bytes, first, 0, as: UInt64.self) & 0xffff_0000_0000_ffff)
      | (difference(bytes, first, 8, as: UInt64.self) & 0xffff_0000_ffff_ffff)
      | UInt64(difference(bytes, first, 16, as: UInt32.self)) == 0
  }

  /// The identification must count up. If DF makes it meaningless (RFC 6864 section 4.1), it may
  /// also be the same in all packets.
  @inline(__always)
  private func hasNextIdentification(
    _ bytes: UnsafeMutableRawPointer, _ first: UnsafeMutableRawPointer, _ group: Group
  ) -> Bool {
    let distance = bytes.loadBig(4, as: UInt16.self) &- first.loadBig(4, as: UInt16.self)
    if group.packetCount == 1, distance == 0 {
      return bytes.loadBig(6, as: UInt16.self) & IPv4Header.doNotFragmentFlag != 0
    }
    return distance == (group.hasFixedIdentification ? 0 : group.packetCount)
  }

  /// Compares everything except the length.
  @inline(__always)
  private func hasSameIPv6Header(
    _ bytes: UnsafeMutableRawPointer, _ first: UnsafeMutableRawPointer
  ) -> Bool {
    (difference(bytes, first, 0, as: UInt64.self) & 0xffff_ffff_0000_ffff)
      | difference(bytes, first, 8, as: UInt64.self)
      | difference(bytes, first, 16, as: UInt64.self)
      | difference(bytes, first, 24, as: UInt64.self)
      | difference(bytes, first, 32, as: UInt64.self) == 0
  }

  /// Compares everything except sequence number, PSH and checksum, and thus also acknowledgement,
  /// window and options.
  @inline(__always)
  private func hasSameTCPHeader(
    _ bytes: UnsafeMutableRawPointer, _ first: UnsafeMutableRawPointer, _ byteCount: Int
  ) -> Bool {
    var different =
      difference(bytes, first, 8, as: UInt32.self)
      | (difference(bytes, first, 12, as: UInt32.self) & ~(UInt32(TCPHeader.pshFlag) << 16))
      | UInt32(difference(bytes, first, 18, as: UInt16.self))
    var offset = TCPHeader.minimumByteCount
    while offset < byteCount {
      different |= difference(bytes, first, offset, as: UInt32.self)
      offset &+= 4
    }
    return different == 0
  }

  @inline(__always)
  private func difference<T: FixedWidthInteger & BitwiseCopyable>(
    _ bytes: UnsafeMutableRawPointer, _ first: UnsafeMutableRawPointer, _ offset: Int,
    as type: T.Type
  ) -> T {
    bytes.loadBig(offset, as: type) ^ first.loadBig(offset, as: type)
  }

  // MARK: Output

  /// Turns the first packet's headers into those of the whole group, and leaves the checksum to the
  /// kernel. A single packet is not changed.
  mutating func finish(_ index: Int) -> PacketOffload {
    precondition(index >= 0 && index < groupCount)
    let group = groups[index]
    guard group.packetCount > 1 else { return .none }
    let bytes = firstBytes(of: index)
    let byteCount = Int(group.headerByteCount) &+ Int(group.payloadByteCount)
    let isIPv4 = group.kind == .tcp4 || group.kind == .udp4
    let isTCP = group.kind == .tcp4 || group.kind == .tcp6
    let offset = isIPv4 ? IPv4Header.minimumByteCount : IPv6Header.byteCount
    var sum = Checksum()
    if isIPv4 {
      bytes.storeBig(UInt16(truncatingIfNeeded: byteCount), 2)
      bytes.storeBig(0 as UInt16, 10)
      var headerSum = Checksum()
      headerSum.add(bytes, byteCount: IPv4Header.minimumByteCount)
      bytes.storeBig(headerSum.value, 10)
      sum.add(bytes + 12, byteCount: 8)
    } else {
      bytes.storeBig(UInt16(truncatingIfNeeded: byteCount &- offset), 4)
      sum.add(bytes + 8, byteCount: 32)
    }
    sum.add(UInt16(isTCP ? IPProtocol.tcp : IPProtocol.udp))
    sum.add(UInt16(truncatingIfNeeded: byteCount &- offset))
    let transport = bytes + offset
    let checksumOffset = isTCP ? TCPHeader.checksumOffset : UDPHeader.checksumOffset
    transport.storeBig(sum.folded, checksumOffset)
    if !isTCP {
      transport.storeBig(UInt16(truncatingIfNeeded: byteCount &- offset), 4)
    } else if group.isPushed {
      transport.storeByte(transport.byte(13) | TCPHeader.pshFlag, 13)
    }
    return PacketOffload(
      segmentation: isTCP ? (isIPv4 ? .tcpIPv4 : .tcpIPv6) : .udp, needsChecksum: true,
      checksumStart: offset, checksumOffset: checksumOffset,
      segmentByteCount: Int(group.segmentByteCount))
  }

  /// Bytes of a group's headers, for the virtio header; 0 for a single packet.
  func headerByteCount(of index: Int) -> Int {
    precondition(index >= 0 && index < groupCount)
    return groups[index].packetCount > 1 ? Int(groups[index].headerByteCount) : 0
  }

  /// Packets, and pieces, of a group: at most `maximumPackets`.
  func packetCount(of index: Int) -> Int {
    precondition(index >= 0 && index < groupCount)
    return Int(groups[index].packetCount)
  }

  /// The pieces of the packet to write: the whole first packet, then payloads.
  @inline(__always)
  func forEachPiece(of index: Int, _ body: (UnsafeMutableRawPointer, Int) -> Void) {
    var skipped = 0
    forEachPacket(of: index) { bytes, byteCount in
      body(bytes + skipped, byteCount &- skipped)
      skipped = Int(groups[index].headerByteCount)
    }
  }

  /// The packets of a group as they were added; not after `finish`.
  @inline(__always)
  func forEachPacket(of index: Int, _ body: (UnsafeMutableRawPointer, Int) -> Void) {
    precondition(index >= 0 && index < groupCount)
    var piece = pieces[Int(groups[index].first)]
    body(piece.bytes.unsafelyUnwrapped, Int(piece.byteCount))
    while piece.next != 0 {
      piece = pieces[Int(piece.next &- 1)]
      body(piece.bytes.unsafelyUnwrapped, Int(piece.byteCount))
    }
  }

  @inline(__always)
  private func firstBytes(of group: Int) -> UnsafeMutableRawPointer {
    pieces[Int(groups[group].first)].bytes.unsafelyUnwrapped
  }
}
