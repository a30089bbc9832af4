import Testing

@testable import Culvert

@Suite struct JoinerTests {
  private let world = JoinWorld()

  /// The groups, as numbers of packets.
  private func groups(
    _ packets: [[UInt8]], allowTCP: Bool = true, allowUDP: Bool = true
  ) -> [[Int]] {
    world.run(packets, allowTCP: allowTCP, allowUDP: allowUDP)
    #expect(world.failure == nil)
    var model = JoinModel(allowTCP: allowTCP, allowUDP: allowUDP)
    for packet in packets { model.add(packet) }
    // #expect would take long to show the difference between the two.
    let isAsInModel = world.groups.map(\.packets) == model.groups
    #expect(isAsInModel)
    return world.groups.map(\.packets)
  }

  /// Packets that continue each other, each with 100 bytes of payload.
  private func run(
    _ count: Int, isIPv4: Bool = true, isTCP: Bool = true, payloadByteCount: Int = 100
  ) -> [FlowPacket] {
    (0..<count).map { index in
      var packet = FlowPacket(isIPv4: isIPv4, isTCP: isTCP)
      packet.sequence = UInt32(1 + index * payloadByteCount)
      packet.identification = UInt16(index)
      packet.tcpOptions = FlowPacket.timestamp(5)
      packet.payload = (0..<payloadByteCount).map { UInt8(truncatingIfNeeded: $0 &+ index) }
      return packet
    }
  }

  /// Three packets of which the second is changed.
  private func withSecond(
    isIPv4: Bool = true, isTCP: Bool = true, _ change: (inout FlowPacket) -> Void
  ) -> [[UInt8]] {
    var packets = run(3, isIPv4: isIPv4, isTCP: isTCP)
    change(&packets[1])
    return packets.map(\.bytes)
  }

  // MARK: Against the model

  @Test(arguments: 0..<35) func anyTrafficIsGroupedAsTheModelGroupsIt(seed: UInt64) {
    var traffic = JoinTraffic(seed: seed, flowCount: seed % 5 == 4 ? 12 : 1 + Int(seed % 5))
    var joined = 0
    for round in 0..<4 {
      let packets = traffic.packets(round == 0 ? JoinWorld.capacity : 60)
      let groups = groups(
        packets, allowTCP: seed % 7 != 3, allowUDP: seed % 7 != 4)
      joined += packets.count - groups.count
    }
    // Without this, a joiner that never joins would pass.
    #expect(seed % 7 == 3 || seed % 7 == 4 || joined > 60)
  }

  @Test func whatTheSegmenterCutsIsJoinedAgain() throws {
    var random = SeededGenerator(seed: 43)
    for _ in 0..<200 {
      var packet = FlowPacket.random(
        payloadByteCount: Int.random(in: 200...4000, using: &random), using: &random)
      packet.flags = Bool.random(using: &random) ? 0x10 : 0x18
      packet.networkOptions = []
      let size = Int.random(in: 100...1500, using: &random)
      let segments = try #require(
        cutPacket(packet.unfinishedBytes, packet.offload(segmentByteCount: size)))
      #expect(groups(segments) == [Array(0..<segments.count)])
    }
  }

  // MARK: What is joined

  @Test(arguments: [true, false], [true, false]) func runIsOnePacket(isIPv4: Bool, isTCP: Bool) {
    let packets = run(5, isIPv4: isIPv4, isTCP: isTCP)
    #expect(groups(packets.map(\.bytes)) == [[0, 1, 2, 3, 4]])
    let offload = world.groups[0].offload
    #expect(offload.segmentation == (isTCP ? (isIPv4 ? .tcpIPv4 : .tcpIPv6) : .udp))
    #expect(offload.needsChecksum && offload.segmentByteCount == 100)
    #expect(offload.checksumStart == (isIPv4 ? 20 : 40))
    #expect(offload.checksumOffset == (isTCP ? 16 : 6))
  }

  @Test func whatTheTunDoesNotTakeGoesAlone() {
    let packets = run(2).map(\.bytes) + run(2, isTCP: false).map(\.bytes)
    #expect(groups(packets) == [[0, 1], [2, 3]])
    #expect(groups(packets, allowTCP: false) == [[0], [1], [2, 3]])
    #expect(groups(packets, allowUDP: false) == [[0, 1], [2], [3]])
  }

  @Test func flowsAreJoinedBesideEachOther() {
    var packets: [[UInt8]] = []
    for index in 0..<3 {
      for port in 0..<8 {
        var packet = run(3)[index]
        packet.sourcePort = UInt16(port)
        packets.append(packet.bytes)
      }
    }
    #expect(groups(packets) == (0..<8).map { [$0, $0 + 8, $0 + 16] })
  }

  @Test func ninthFlowEndsTheOldestGroup() {
    var packets = (0..<9).map { port in
      var packet = run(1)[0]
      packet.sourcePort = UInt16(port)
      return packet.bytes
    }
    for port in [0, 8] {
      var packet = run(2)[1]
      packet.sourcePort = UInt16(port)
      packets.append(packet.bytes)
    }
    #expect(groups(packets) == [[0], [1], [2], [3], [4], [5], [6], [7], [8, 10], [9]])
  }

  @Test func shorterPacketIsTheLast() {
    for isTCP in [true, false] {
      var packets = run(4, isTCP: isTCP)
      packets[1].payload.removeLast()
      packets[2].sequence -= 1
      packets[3].sequence -= 1
      #expect(groups(packets.map(\.bytes)) == [[0, 1], [2, 3]])
    }
  }

  @Test func longerPacketBeginsAnew() {
    for isTCP in [true, false] {
      var packets = run(3, isTCP: isTCP)
      packets[1].payload.append(0)
      packets[2].sequence += 1
      packets[2].payload.append(0)
      #expect(groups(packets.map(\.bytes)) == [[0], [1, 2]])
    }
  }

  @Test func pushedPacketIsTheLast() {
    var packets = run(5)
    packets[1].flags = 0x18
    packets[2].flags = 0x18
    #expect(groups(packets.map(\.bytes)) == [[0, 1], [2], [3, 4]])
    // The joined packet has the flag, and so has the last segment.
    #expect(world.groups[0].segments.map { $0[33] } == [0x10, 0x18])
  }

  @Test func atMostSixtyFourPackets() {
    for isTCP in [true, false] {
      let packets = run(130, isTCP: isTCP, payloadByteCount: 3).map(\.bytes)
      #expect(groups(packets).map(\.count) == [64, 64, 2])
    }
  }

  @Test(arguments: [true, false], [true, false])
  func atMostTheLengthThatAHeaderCanSay(isIPv4: Bool, isTCP: Bool) {
    let headerByteCount = (isIPv4 ? 20 : 40) + (isTCP ? 32 : 8)
    var packets = run(40, isIPv4: isIPv4, isTCP: isTCP, payloadByteCount: 1650)
    let rest = 65_535 - headerByteCount - 39 * 1650
    packets[39].payload = [UInt8](repeating: 3, count: rest)
    #expect(groups(packets.map(\.bytes)).map(\.count) == [40])
    packets[39].payload.append(0)
    #expect(groups(packets.map(\.bytes)).map(\.count) == [39, 1])
  }

  @Test func identificationCountsUpOrStays() {
    func groups(_ identifications: [UInt16], _ fragmentField: UInt16) -> [[Int]] {
      var packets = run(identifications.count)
      for index in packets.indices {
        packets[index].identification = identifications[index]
        packets[index].fragmentField = fragmentField
      }
      return self.groups(packets.map(\.bytes))
    }
    for field: UInt16 in [0, 0x4000] {
      #expect(groups([0xfffe, 0xffff, 0, 1], field) == [[0, 1, 2, 3]])
      #expect(groups([7, 8, 8, 9], field) == [[0, 1], [2, 3]])
      #expect(groups([7, 9, 10], field) == [[0], [1, 2]])
      #expect(groups([7, 6], field) == [[0], [1]])
    }
    #expect(groups([7, 7, 7, 7], 0x4000) == [[0, 1, 2, 3]])
    #expect(groups([7, 7, 8, 9], 0x4000) == [[0, 1], [2, 3]])
    #expect(groups([7, 7, 9], 0x4000) == [[0, 1], [2]])
    #expect(groups([7, 7, 7], 0) == [[0], [1], [2]])
  }

  @Test func sequenceWraps() {
    var packets = run(3)
    for index in packets.indices { packets[index].sequence = 0xffff_ff9c &+ UInt32(index * 100) }
    #expect(groups(packets.map(\.bytes)) == [[0, 1, 2]])
  }

  // MARK: What ends a group

  /// The packet is written alone; since the next one does not continue the group either, all three
  /// are.
  @Test func headersThatDiffer() {
    let changes: [(String, (inout FlowPacket) -> Void)] = [
      ("acknowledgement", { $0.acknowledgement += 1 }), ("window", { $0.window += 1 }),
      ("timestamp", { $0.tcpOptions = FlowPacket.timestamp(6) }),
      ("last option", { $0.tcpOptions[11] ^= 1 }), ("no options", { $0.tcpOptions = [] }),
      ("sequence", { $0.sequence += 1 }), ("sequence before", { $0.sequence -= 100 }),
      ("urgent pointer", { $0.urgent = 1 }), ("DSCP", { $0.trafficClass = 4 }),
      ("ECN", { $0.trafficClass = 3 }), ("TTL", { $0.timeToLive = 63 }),
    ]
    for isIPv4 in [true, false] {
      for (name, change) in changes {
        #expect(groups(withSecond(isIPv4: isIPv4, change)) == [[0], [1], [2]], "\(name)")
      }
    }
    #expect(groups(withSecond { $0.fragmentField = 0 }) == [[0], [1], [2]])
    #expect(groups(withSecond(isIPv4: false) { $0.flowLabel = 1 }) == [[0], [1], [2]])
  }

  @Test func flagsThatAreNeverJoined() {
    for flags: UInt8 in [0x11, 0x12, 0x14, 0x30, 0x50, 0x90, 0x19, 0x00, 0x08] {
      #expect(groups(withSecond { $0.flags = flags }) == [[0], [1], [2]])
      var packets = run(3)
      for index in packets.indices { packets[index].flags = flags }
      #expect(groups(packets.map(\.bytes)) == [[0], [1], [2]])
    }
    // The bits before the flags, one of which has become a flag (RFC 9768).
    for bit: UInt8 in [1, 2, 4, 8] {
      var packets = run(2).map(\.bytes)
      for index in packets.indices {
        packets[index][32] |= bit
        var model = PacketModel(packets[index])!
        model.updateChecksums()
        packets[index] = model.bytes
      }
      #expect(groups(packets) == [[0], [1]])
    }
  }

  @Test func pureAcknowledgementKeepsItsPlace() {
    var packets = run(4)
    packets.insert(packets[2], at: 2)
    packets[2].payload = []
    packets[2].acknowledgement += 1
    #expect(groups(packets.map(\.bytes)) == [[0, 1], [2], [3, 4]])
  }

  @Test func retransmissionAndReorderingKeepTheirPlace() {
    let packets = run(6).map(\.bytes)
    #expect(groups([0, 1, 0, 2, 3].map { packets[$0] }) == [[0, 1], [2], [3, 4]])
    #expect(groups([0, 2, 1, 3, 4].map { packets[$0] }) == [[0], [1], [2], [3, 4]])
  }

  @Test(arguments: [true, false], [true, false])
  func corruptedPacketGoesAloneAndUnchanged(isIPv4: Bool, isTCP: Bool) {
    let packets = run(3, isIPv4: isIPv4, isTCP: isTCP).map(\.bytes)
    for place in packets[1].indices where place > 1 {
      var corrupted = packets
      corrupted[1][place] ^= 0x10
      let groups = groups(corrupted)
      #expect(groups.contains([1]), "byte \(place)")
    }
  }

  @Test func udpWithoutAChecksum() {
    for isIPv4 in [true, false] {
      var packets = run(3, isIPv4: isIPv4, isTCP: false).map(\.bytes)
      for index in packets.indices {
        packets[index][isIPv4 ? 26 : 46] = 0
        packets[index][isIPv4 ? 27 : 47] = 0
      }
      #expect(groups(packets) == [[0], [1], [2]])
    }
  }

  /// 0xffff is equivalent to 0, but no sender computes it, and segmentation would not restore it.
  @Test func checksumsWithTheOtherZero() {
    var packets = run(2)
    packets[1].payload = [UInt8](repeating: 0, count: 100)
    let sum = PacketModel(packets[1].bytes)!.word(36)
    packets[1].payload[0] = UInt8(sum >> 8)
    packets[1].payload[1] = UInt8(sum & 0xff)
    var bytes = packets.map(\.bytes)
    #expect(bytes[1][36] == 0 && bytes[1][37] == 0)
    #expect(groups(bytes) == [[0, 1]])
    bytes[1][36] = 0xff
    bytes[1][37] = 0xff
    #expect(PacketModel(bytes[1])!.hasRightChecksums)
    #expect(groups(bytes) == [[0], [1]])
  }

  @Test func networkChecksumWithTheOtherZero() {
    var packets = run(2)
    // If the identification is the checksum of the header with identification 0, the checksum
    // becomes 0.
    packets[1].identification = 0
    packets[1].identification = PacketModel(packets[1].bytes)!.word(10)
    packets[0].identification = packets[1].identification &- 1
    var bytes = packets.map(\.bytes)
    #expect(bytes[1][10] == 0 && bytes[1][11] == 0)
    #expect(groups(bytes) == [[0, 1]])
    bytes[1][10] = 0xff
    bytes[1][11] = 0xff
    #expect(PacketModel(bytes[1])!.hasRightChecksums)
    #expect(groups(bytes) == [[0], [1]])
  }

  /// A UDP checksum of 0 means none, even if it is the sum of the bytes.
  @Test func udpChecksumThatWouldBeZero() {
    var packets = run(2, isTCP: false)
    packets[1].payload = [UInt8](repeating: 0, count: 100)
    let sum = PacketModel(packets[1].bytes)!.word(26)
    packets[1].payload[0] = UInt8(sum >> 8)
    packets[1].payload[1] = UInt8(sum & 0xff)
    var bytes = packets.map(\.bytes)
    #expect(bytes[1][26] == 0xff && bytes[1][27] == 0xff)
    #expect(groups(bytes) == [[0, 1]])
    bytes[1][26] = 0
    bytes[1][27] = 0
    #expect(groups(bytes) == [[0], [1]])
  }

  @Test func emptyDatagrams() {
    #expect(groups(run(3, isTCP: false, payloadByteCount: 0).map(\.bytes)) == [[0], [1], [2]])
  }

  @Test func udpLengthShorterThanThePacket() {
    var packets = run(3, isTCP: false).map(\.bytes)
    for index in packets.indices {
      packets[index][25] -= 1
      // The checksum is right for the whole packet, so that only the length is wrong.
      var model = PacketModel(packets[index])!
      model.updateChecksums()
      packets[index] = model.bytes
    }
    #expect(groups(packets) == [[0], [1], [2]])
  }

  @Test func trailingBytes() {
    let packets = run(3).map { $0.bytes + [0] }
    #expect(groups(packets) == [[0], [1], [2]])
  }

  /// Fragments, options and other protocols end the groups between the same hosts, and no others.
  @Test func packetWhoseFlowCannotBeTold() {
    for isIPv4 in [true, false] {
      for kind in 0..<3 {
        var strange = run(1, isIPv4: isIPv4)[0]
        if kind == 0 { strange.networkOptions = isIPv4 ? [1, 1, 1, 1] : [0, 1, 4, 0, 0, 0, 0] }
        if kind == 1 { strange.fragmentField = 0x2000 }
        var bytes = strange.bytes
        if kind == 2 || (kind == 1 && !isIPv4) {
          // An IPv6 fragment header, or IGMP.
          bytes[isIPv4 ? 9 : 6] = isIPv4 ? 2 : IPProtocol.fragment
          var model = PacketModel(bytes)!
          model.updateNetworkChecksum()
          bytes = model.bytes
        }
        var other = run(2, isIPv4: isIPv4)
        for index in other.indices { other[index].source = 9 }
        let packets = run(3, isIPv4: isIPv4).map(\.bytes)
        let groups = groups([
          packets[0], other[0].bytes, packets[1], bytes, packets[2], other[1].bytes,
        ])
        #expect(groups == [[0, 2], [1, 5], [3], [4]])
      }
    }
  }

  @Test func unreadablePacketEndsEveryGroup() {
    let packets = run(3).map(\.bytes)
    let unreadable: [[UInt8]] = [
      [], [0x45], [UInt8](repeating: 0, count: 60), packets[1].dropLast(),
    ]
    for bytes in unreadable {
      #expect(
        groups([packets[0], packets[1], bytes, packets[2]]) == [[0, 1], [2], [3]])
    }
  }

  @Test func resetForgetsEverything() {
    let packets = run(2).map(\.bytes)
    #expect(groups([packets[0]]) == [[0]])
    #expect(groups([packets[1]]) == [[0]])
    let offload = world.groups[0].offload
    #expect(offload.segmentation == .none && !offload.needsChecksum)
  }
}
