import Testing

@testable import Culvert

/// The segments of a packet, each copied before the next is cut; nil if it is refused.
func cutPacket(_ bytes: [UInt8], _ offload: PacketOffload) -> [[UInt8]]? {
  let packet = PacketBuffer(bytes)
  let headers = PacketBuffer(byteCount: Segmenter.headersByteCount)
  guard
    var segmenter = Segmenter(
      at: packet.start, byteCount: bytes.count, offload: offload, headers: headers.start)
  else { return nil }
  return (0..<segmenter.segmentCount).map { index in
    let start = segmenter.cut(index)
    return Array(UnsafeRawBufferPointer(start: start, count: segmenter.byteCount(index)))
  }
}

@Suite struct SegmenterTests {
  private func cut(_ packet: FlowPacket, _ size: Int) -> [[UInt8]]? {
    cutPacket(packet.unfinishedBytes, packet.offload(segmentByteCount: size))
  }

  private func packet(
    isIPv4: Bool = true, isTCP: Bool = true, payloadByteCount: Int
  ) -> FlowPacket {
    var packet = FlowPacket(isIPv4: isIPv4, isTCP: isTCP)
    packet.payload = (0..<payloadByteCount).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    return packet
  }

  // MARK: Against the model

  @Test func anyPacketIsCutAsTheModelCutsIt() throws {
    var random = SeededGenerator(seed: 41)
    for _ in 0..<500 {
      let packet = FlowPacket.random(
        payloadByteCount: Int.random(in: 1...4000, using: &random), using: &random)
      let size = Int.random(in: 1...1500, using: &random)
      let segments = try #require(cut(packet, size))
      // #expect would take long to show the difference between the two.
      let isAsInModel = segments == PacketModel(packet.bytes)?.segments(of: size)
      try #require(isAsInModel)
      for segment in segments { try #require(PacketModel(segment)?.hasRightChecksums == true) }
      let isWhole = segments.flatMap { PacketModel($0)?.payload ?? [] } == packet.payload
      try #require(isWhole)
    }
  }

  @Test(arguments: [true, false], [true, false])
  func largestPacket(isIPv4: Bool, isTCP: Bool) throws {
    let headers = (isIPv4 ? 20 : 0) + (isTCP ? 20 : 8)
    let packet = packet(isIPv4: isIPv4, isTCP: isTCP, payloadByteCount: 65_535 - headers)
    let segments = try #require(cut(packet, 1380))
    let isAsInModel = segments == PacketModel(packet.bytes)?.segments(of: 1380)
    #expect(isAsInModel)
  }

  @Test(arguments: [1, 7, 12, 35, 36, 39, 40, 41])
  func segmentsSmallerThanTheirHeaders(size: Int) {
    for isIPv4 in [true, false] {
      for isTCP in [true, false] {
        let packet = packet(isIPv4: isIPv4, isTCP: isTCP, payloadByteCount: 200)
        #expect(cut(packet, size) == PacketModel(packet.bytes)?.segments(of: size))
      }
    }
  }

  // MARK: Named cases

  @Test func sizesOfSegments() {
    #expect(cut(packet(payloadByteCount: 3000), 1000)?.map(\.count) == [1040, 1040, 1040])
    #expect(cut(packet(payloadByteCount: 2001), 1000)?.map(\.count) == [1040, 1040, 41])
    #expect(cut(packet(payloadByteCount: 1000), 1000)?.map(\.count) == [1040])
    #expect(cut(packet(payloadByteCount: 10), 1000)?.map(\.count) == [50])
    #expect(cut(packet(payloadByteCount: 0), 1000)?.map(\.count) == [40])
  }

  @Test func flagsOfTheFirstTheMiddleAndTheLast() throws {
    var packet = packet(payloadByteCount: 30)
    packet.flags = 0xff
    let segments = try #require(cut(packet, 10))
    // CWR on the first, FIN and PSH on the last, all other flags on all.
    #expect(segments.map { $0[33] } == [0b1111_0110, 0b0111_0110, 0b0111_1111])
    #expect(cut(packet, 30)?.map { $0[33] } == [0xff])
  }

  @Test func numbersWrap() throws {
    var packet = packet(payloadByteCount: 3)
    packet.identification = 0xfffe
    packet.sequence = 0xffff_ffff
    let segments = try #require(cut(packet, 1))
    #expect(segments.map { Array($0[4..<6]) } == [[0xff, 0xfe], [0xff, 0xff], [0, 0]])
    #expect(
      segments.map { Array($0[24..<28]) } == [
        [0xff, 0xff, 0xff, 0xff], [0, 0, 0, 0], [0, 0, 0, 1],
      ])
  }

  @Test func udpNeverSendsNoChecksum() throws {
    // Two segments of one word each; the word makes the first sum zero.
    var packet = packet(isTCP: false, payloadByteCount: 4)
    packet.payload = [0, 0, 0, 0]
    let first = try #require(cut(packet, 2))[0]
    packet.payload[0] = first[26]
    packet.payload[1] = first[27]
    let segments = try #require(cut(packet, 2))
    #expect(Array(segments[0][26..<28]) == [0xff, 0xff])
    #expect(PacketModel(segments[0])?.hasRightChecksums == true)
  }

  @Test func wholePacketIsNotTouched() {
    for bytes in [packet(payloadByteCount: 100).unfinishedBytes, [], [1, 2, 3]] {
      #expect(cutPacket(bytes, .none) == [bytes])
    }
  }

  @Test func checksumOfAWholePacketIsFinished() {
    var random = SeededGenerator(seed: 42)
    for _ in 0..<300 {
      let packet = FlowPacket.random(
        payloadByteCount: Int.random(in: 0...1400, using: &random), using: &random)
      var offload = packet.offload(segmentByteCount: 0)
      offload.segmentation = .none
      #expect(cutPacket(packet.unfinishedBytes, offload) == [packet.bytes])
    }
  }

  @Test func checksumFieldMustLieBehindTheAddressesAndInThePacket() {
    let packet = packet(payloadByteCount: 2)
    let bytes = packet.unfinishedBytes
    func isAccepted(_ start: Int, _ offset: Int) -> Bool {
      cutPacket(
        bytes,
        PacketOffload(
          segmentation: .none, needsChecksum: true, checksumStart: start, checksumOffset: offset,
          segmentByteCount: 0)) != nil
    }
    #expect(isAccepted(20, 16) && isAccepted(20, 20) && isAccepted(40, 0))
    #expect(!isAccepted(20, 22) && !isAccepted(41, 0) && !isAccepted(65_535, 65_535))
    #expect(!isAccepted(18, 16) && !isAccepted(0, 10) && !isAccepted(20, 15))
  }

  // MARK: Refused

  @Test func otherProtocolsThanTheOffloadSays() {
    let kinds: [PacketOffload.Segmentation] = [.tcpIPv4, .tcpIPv6, .udp]
    for isIPv4 in [true, false] {
      for isTCP in [true, false] {
        let packet = packet(isIPv4: isIPv4, isTCP: isTCP, payloadByteCount: 100)
        for kind in kinds {
          var offload = packet.offload(segmentByteCount: 10)
          let isRight = offload.segmentation == kind
          offload.segmentation = kind
          for checksumOffset in [6, 16] {
            offload.checksumOffset = checksumOffset
            #expect(
              (cutPacket(packet.unfinishedBytes, offload) != nil)
                == (isRight && checksumOffset == (isTCP ? 16 : 6)))
          }
        }
      }
    }
  }

  @Test(arguments: [true, false], [true, false])
  func lengthsThatDoNotAddUp(isIPv4: Bool, isTCP: Bool) {
    let packet = packet(isIPv4: isIPv4, isTCP: isTCP, payloadByteCount: 100)
    let bytes = packet.unfinishedBytes
    let offload = packet.offload(segmentByteCount: 10)
    #expect(cutPacket(bytes, offload) != nil)
    #expect(cutPacket(bytes + [0], offload) == nil)
    #expect(cutPacket(bytes.dropLast(), offload) == nil)
    let headerByteCount = (isIPv4 ? 20 : 40) + (isTCP ? 20 : 8)
    for count in 0..<headerByteCount {
      #expect(cutPacket(Array(bytes[..<count]), offload) == nil)
    }
    guard !isTCP else { return }
    var shorter = bytes
    shorter[(isIPv4 ? 20 : 40) + 5] -= 1
    #expect(cutPacket(shorter, offload) == nil)
  }

  @Test func dataOffsetOutsideTheSegment() {
    let packet = packet(payloadByteCount: 20)
    for doff: UInt8 in 0...15 {
      var bytes = packet.unfinishedBytes
      bytes[32] = doff << 4
      #expect(
        (cutPacket(bytes, packet.offload(segmentByteCount: 10)) != nil) == (5...10 ~= doff))
    }
  }

  @Test func transportHeaderElsewhere() {
    for isIPv4 in [true, false] {
      for start in [0, 16, 19, 20, 24, 40, 48, 60] {
        let packet = packet(isIPv4: isIPv4, payloadByteCount: 100)
        var offload = packet.offload(segmentByteCount: 10)
        offload.checksumStart = start
        let isAccepted = cutPacket(packet.unfinishedBytes, offload) != nil
        #expect(isAccepted == (start == (isIPv4 ? 20 : 40)))
      }
    }
  }

  @Test func fragments() {
    for field: UInt16 in [0x2000, 0x0001, 0x6000] {
      var packet = packet(payloadByteCount: 100)
      let offload = packet.offload(segmentByteCount: 10)
      let bytes = packet.unfinishedBytes
      packet.fragmentField = field
      var fragment = bytes
      fragment[6] = UInt8(field >> 8)
      fragment[7] = UInt8(field & 0xff)
      #expect(cutPacket(fragment, offload) == nil)
    }
    var packet6 = packet(isIPv4: false, payloadByteCount: 100)
    packet6.networkOptions = [0, 0, 0, 0, 0, 0, 0]
    var bytes = packet6.unfinishedBytes
    #expect(cutPacket(bytes, packet6.offload(segmentByteCount: 10)) != nil)
    bytes[6] = IPProtocol.fragment
    #expect(cutPacket(bytes, packet6.offload(segmentByteCount: 10)) == nil)
  }

  @Test func headersLongerThanTheScratch() {
    var packet = packet(isIPv4: false, payloadByteCount: 300)
    packet.tcpOptions = [UInt8](repeating: 1, count: 40)
    // There is room for 28 bytes of extension headers, whose length is a multiple of 8: 24 fit, 32
    // do not.
    packet.networkOptions = [2] + [UInt8](repeating: 0, count: 22)
    #expect(cut(packet, 50) == PacketModel(packet.bytes)?.segments(of: 50))
    packet.networkOptions = [3] + [UInt8](repeating: 0, count: 30)
    #expect(cut(packet, 50) == nil)
  }

  @Test func segmentsWithoutSizeOrChecksum() {
    let packet = packet(payloadByteCount: 100)
    #expect(cut(packet, 0) == nil)
    var offload = packet.offload(segmentByteCount: 10)
    offload.needsChecksum = false
    #expect(cutPacket(packet.unfinishedBytes, offload) == nil)
  }
}

/// flags, type, header bytes, segment bytes, start, offset: the layout of `struct virtio_net_hdr`.
private func header(_ flags: UInt8, _ type: UInt8, _ numbers: [UInt16]) -> [UInt8] {
  [flags, type] + numbers.flatMap { number in withUnsafeBytes(of: number) { Array($0) } }
}

private func read(_ bytes: [UInt8]) -> PacketOffload? {
  bytes.withUnsafeBytes { PacketOffload(virtioHeader: $0.baseAddress!) }
}

@Suite struct PacketOffloadTests {
  @Test func wholePackets() throws {
    let none = try #require(read(header(0, 0, [0, 0, 0, 0])))
    #expect(none.segmentation == .none && !none.needsChecksum)
    // VIRTIO_NET_HDR_F_DATA_VALID: nothing to do.
    #expect(try #require(read(header(2, 0, [0, 0, 20, 16]))).needsChecksum == false)
    let unfinished = try #require(read(header(1, 0, [40, 0, 20, 16])))
    #expect(unfinished.segmentation == .none && unfinished.needsChecksum)
    #expect(unfinished.checksumStart == 20 && unfinished.checksumOffset == 16)
    #expect(unfinished.segmentByteCount == 0)
  }

  @Test(arguments: 0...255) func types(type: Int) {
    let kind = read(header(1, UInt8(type), [66, 1380, 40, 16]))?.segmentation
    switch type {
    case 0: #expect(kind == PacketOffload.Segmentation.none)
    case 1, 0x81: #expect(kind == .tcpIPv4)
    case 4, 0x84: #expect(kind == .tcpIPv6)
    case 5: #expect(kind == .udp)
    default: #expect(kind == nil)
    }
  }

  @Test func segmentsNeedAChecksumAndASize() {
    for type: UInt8 in [1, 0x81, 4, 0x84, 5] {
      #expect(read(header(0, type, [54, 1380, 20, 16])) == nil)
      #expect(read(header(2, type, [54, 1380, 20, 16])) == nil)
      #expect(read(header(1, type, [54, 0, 20, 16])) == nil)
      #expect(read(header(1, type, [54, 65_535, 20, 16]))?.segmentByteCount == 65_535)
    }
  }

  @Test func writtenHeaders() {
    func written(_ offload: PacketOffload, _ headerByteCount: Int) -> [UInt8] {
      var bytes = [UInt8](repeating: 0xaa, count: PacketOffload.virtioHeaderByteCount + 1)
      bytes.withUnsafeMutableBytes {
        offload.write(to: $0.baseAddress!, headerByteCount: headerByteCount)
      }
      #expect(bytes.last == 0xaa)
      return bytes.dropLast()
    }
    #expect(written(.none, 0) == header(0, 0, [0, 0, 0, 0]))
    let kinds: [(PacketOffload.Segmentation, UInt8)] = [(.tcpIPv4, 1), (.tcpIPv6, 4), (.udp, 5)]
    for (kind, type) in kinds {
      let offload = PacketOffload(
        segmentation: kind, needsChecksum: true, checksumStart: 40, checksumOffset: 16,
        segmentByteCount: 1380)
      #expect(written(offload, 72) == header(1, type, [72, 1380, 40, 16]))
    }
  }
}
