/// What reads and writes packets.
extension SelftestRun {
  /// All lengths up to 512 at all alignments, odd ones among them, and the longest.
  @_optimize(size)
  mutating func checksum() {
    let text = randomBytes(520)
    for byteCount in 0...512 {
      var sum = Checksum()
      sum.add(text + byteCount & 7, byteCount: byteCount)
      digest.add(UInt64(sum.value))
      sum = Checksum(folded: sum.folded)
      let high = random.uint64()
      sum.addPseudoHeader(
        source: IPAddress(ipv6High: high, low: ~high), destination: IPAddress(ipv4: 0xffff_ffff),
        protocol: IPProtocol.udp, byteCount: byteCount * 128)
      digest.add(UInt64(sum.udpValue))
    }
    let ones = bytes(65_536)
    ones.initializeMemory(as: UInt8.self, repeating: 0xff, count: 65_535)
    var sum = Checksum()
    sum.add(ones, byteCount: 65_535)
    digest.add(UInt64(sum.folded))
  }

  /// Packets of both families cut for links of all kinds.
  @_optimize(size)
  mutating func fragments() {
    let packet = randomBytes(4096)
    let output = bytes(4096)
    for _ in 0..<128 {
      let isIPv4 = number(below: 2) == 0
      let payloadByteCount = number(below: 4096) % (4096 - 40)
      let byteCount = (isIPv4 ? 20 : 40) + payloadByteCount
      let mtu = (isIPv4 ? 60 : 1270) + number(below: 1024)
      let identification = random.uint32()
      if isIPv4 {
        writeIPv4Header(
          at: packet, byteCount: byteCount, fragmentField: number(below: 8) == 0 ? 0x4000 : 0)
      } else {
        IPv6Header.write(
          at: packet, payloadByteCount: payloadByteCount, nextHeader: IPProtocol.udp,
          source: IPAddress(ipv6High: 1, low: 1), destination: IPAddress(ipv6High: 1, low: 2))
      }
      guard
        let fragmenter = cut(
          packet, byteCount: byteCount, mtu: mtu, identification: identification)
      else {
        digest.add(.max)
        continue
      }
      for index in 0..<fragmenter.count {
        write(index, of: fragmenter, to: output)
        digest.add(output, byteCount: fragmenter.byteCount(index))
      }
    }
  }

  /// Fragments of many datagrams, some of which contradict others; what becomes of each, and the
  /// whole packets.
  @_optimize(size)
  mutating func reassembly() {
    var reassembler = Reassembler(
      carvingFrom: &arena, maximumPacketByteCount: SelftestFragments.maximumPacketByteCount)
    reassembler.start(seed: 1)
    let room = bytes(SelftestFragments.maximumPacketByteCount)
    var stream = SelftestFragments(seed: 1)
    for _ in 0..<SelftestFragments.count {
      let packet = UnsafeMutableRawBufferPointer(start: room, count: stream.next(into: room))
      switch reassembler.add(packet, from: stream.sender, at: stream.now) {
      case .whole(let whole): digest.add(whole.baseAddress!, byteCount: whole.count)
      case .held: digest.add(256)
      case .complete(let whole, let slot):
        digest.add(whole.baseAddress!, byteCount: whole.count)
        reassembler.release(slot)
      case .dropped(let verdict): digest.add(UInt64(verdict.rawValue))
      }
      switch reassembler.expire(at: stream.now) {
      case nil: break
      case .silent: digest.add(257)
      case .timeExceeded(let error): digest.add(error.baseAddress!, byteCount: error.count)
      }
    }
  }
}
