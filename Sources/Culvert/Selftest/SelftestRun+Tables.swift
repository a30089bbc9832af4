/// The tables, with seeded operations. Tests/System/known_answers computes the right answers with a
/// set, a list and a dictionary.
extension SelftestRun {
  /// Tests counters on both sides of 2^32, and the last valid ones.
  mutating func replay() {
    let bits = arena.carve(UInt64.self, count: ReplayWindow.wordCount, owner: "selftest")
    var window = ReplayWindow(bits: bits.baseAddress!)
    var greatest: UInt64 = 0
    // The first counter, random ones, and the last valid ones.
    for index in 0..<16_389 {
      let step = UInt64(number(below: 16_384))
      var counter: UInt64
      switch number(below: 8) {
      case 0...3: counter = greatest &+ 1 &+ step & 3
      case 4: counter = greatest &+ step >> 4
      case 5: counter = greatest &- 8184 &- step & 15
      default: counter = greatest &- step
      }
      if index == 0 { counter = 1 << 32 - 9000 }
      if index > 16_384 {
        counter =
          WireGuard.rejectAfterMessages &- 2 &+ UInt64(truncatingIfNeeded: index - 16_385)
      }
      let isAccepted = window.accept(counter)
      digest.add(isAccepted)
      if isAccepted { greatest = max(greatest, counter) }
    }
  }

  /// Tests prefixes that differ in few bits, so that most of them contain others.
  mutating func routing() {
    let limits = Limits(
      peers: 4, allowedIPs: 48, stagedPacketsPerPeer: 1, stagingSlots: 1, handshakeRing: 1,
      rateLimiterEntries: 1, batchPackets: 1, batchByteCount: 1, maximumMTU: 1)
    var table = AllowedIPs(carvingFrom: &arena, limits: limits)
    table.prepare()
    for _ in 0..<4096 {
      let high = random.uint64() & 0xf000_0003_0000_0001
      let low = random.uint64() & 0x8000_0000_0000_0001
      let isIPv4 = number(below: 2) == 0
      let length = number(below: 256) % (isIPv4 ? 33 : 129)
      let peer = UInt32(number(below: 4))
      let address =
        isIPv4
        ? IPAddress(ipv4: UInt32(truncatingIfNeeded: high >> 32))
        : IPAddress(ipv6High: high, low: low)
      guard let prefix = IPPrefix(address, length: length) else { continue }
      switch number(below: 8) {
      case 0...1: digest.add(table.insert(prefix, peer: peer))
      case 2: digest.add(table.remove(prefix, peer: peer))
      case 3: if length == 0 { table.removeAll(peer: peer) }
      default: digest.add(UInt64(table.route(address) ?? .max))
      }
    }
    digest.add(UInt64(table.count))
  }

  /// Tests which of many deadlines is due first, and what a peer's timers do if nobody answers:
  /// they send initiations until they give up, and then wipe its keys. In the 293rd year of uptime.
  mutating func timers() {
    var schedule = Schedule(carvingFrom: &arena, peers: 32)
    for _ in 0..<4096 {
      let peer = UInt32(number(below: 32))
      // The deadlines of two peers are never equal, so that exactly one is first.
      let deadline = Deadline(nanoseconds: random.uint64() & ~31 | UInt64(peer))
      switch number(below: 4) {
      case 0: schedule.remove(peer)
      case 1:
        if let top = schedule.top {
          schedule.replaceTop(
            Deadline(nanoseconds: deadline.nanoseconds & ~31 | UInt64(top.peer)))
        }
      default: schedule.lower(peer, to: deadline)
      }
      digest.add(schedule.top?.deadline.nanoseconds ?? .max)
    }
    silence()
  }

  private mutating func silence() {
    var loopback = Loopback(carvingFrom: &arena, at: Instant(nanoseconds: 1 << 63 | 1))
    loopback.start(isSeeded: false)
    loopback.stage(byteCount: 64)
    for _ in 0..<48 {
      guard let due = loopback.nextDeadline(of: Loopback.initiator).instant else { break }
      loopback.now = due
      loopback.runTimers(Loopback.initiator)
      loopback.transfer(from: Loopback.initiator)
      digest.add(due.nanoseconds)
      digest.add(UInt64(loopback.inbound.count))
    }
  }

  /// Tests instants, deadlines and stamps at the limits of 32 and 64 bits.
  mutating func time() {
    let stamp = bytes(12)
    for index in 0..<SelftestRun.edgeCount {
      let edge = SelftestRun.edge(index)
      let duration = random.uint64() >> (edge & 63)
      let now = Instant(nanoseconds: edge)
      let later = now.advanced(by: duration)
      digest.add(later.nanoseconds)
      digest.add(later.since(now))
      digest.add(now.since(Instant(nanoseconds: duration)))
      digest.add(Deadline(later).isDue(at: now))
      digest.add(Deadline.after(edge, from: Instant(nanoseconds: duration)).isDue(at: later))
      let wall = WallTime(seconds: edge, nanoseconds: UInt32(truncatingIfNeeded: duration))
      let time = TAI64N(wall)
      time.write(to: stamp)
      digest.add(stamp, byteCount: 12)
      time.next.write(to: stamp)
      digest.add(stamp, byteCount: 12)
      digest.add(time < TAI64N(at: stamp))
    }
  }
}

/// A stream of fragments from one seed. It alternates between two phases: a few datagrams of both
/// families, whose fragments are drawn at random, so that duplicates are common; and a flood of
/// many datagrams, which fills all slots. One fragment in sixteen has a fault.
struct SelftestFragments {
  static let count = 8192
  static let maximumPacketByteCount = 2048

  private var random: Entropy
  private var number = 0
  private(set) var now = Instant(nanoseconds: 1 << 32)
  /// The peer that sent the last fragment.
  private(set) var sender: UInt32 = 0

  init(seed: UInt64) {
    random = .seeded(seed)
  }

  /// Writes the next fragment to `room`, `maximumPacketByteCount` bytes, and returns its length.
  mutating func next(into room: UnsafeMutableRawPointer) -> Int {
    let draw = random.uint64()
    let isIPv4 = draw & 1 == 0
    let isFlood = number & 512 != 0
    number += 1
    // Four fragments per second, so that some datagrams reach their deadline; 200 in a flood.
    now = now.advanced(by: draw >> (isFlood ? 41 : 35))
    let identification =
      isFlood
      ? 0x8000 | UInt32(truncatingIfNeeded: draw >> 16 & 511)
      : UInt32(truncatingIfNeeded: draw >> 1 & 3 | (now.nanoseconds >> 35) << 2 & 0x7fff)
    sender = UInt32(truncatingIfNeeded: draw >> 3 & 1)
    let pieceCount = 2 + Int(truncatingIfNeeded: identification & 1)
    var piece = Int(truncatingIfNeeded: draw >> 4 & 3) % pieceCount
    var byteCount = piece + 1 == pieceCount ? 41 : 64
    var isLast = piece + 1 == pieceCount
    var mark: UInt8 = 2
    var content: UInt8 = 0
    switch draw >> 6 & 127 {
    case 0: byteCount += 8
    case 1: isLast = !isLast
    case 2: mark = 0
    case 3: content = 1
    case 4: byteCount = 0
    case 5: piece += 1
    case 6: piece = 1023
    case 7: mark = 3
    default: break
    }
    let headerByteCount = isIPv4 ? 20 : 48
    for index in 0..<byteCount {
      room.storeByte(
        UInt8(truncatingIfNeeded: index &* 7 &+ piece) ^ content, headerByteCount + index)
    }
    if isIPv4 {
      writeIPv4Header(
        at: room, byteCount: headerByteCount + byteCount, trafficClass: mark,
        identification: UInt16(truncatingIfNeeded: identification),
        fragmentField: UInt16(piece * 8) | (isLast ? 0 : IPv4Header.moreFragmentsFlag))
    } else {
      IPv6Header.write(
        at: room, payloadByteCount: 8 + byteCount, trafficClass: mark,
        nextHeader: IPProtocol.fragment, source: IPAddress(ipv6High: 1 << 61, low: 1),
        destination: IPAddress(ipv6High: 1 << 61, low: 2))
      room.storeBig(UInt16(IPProtocol.udp) << 8, 40)
      room.storeBig(UInt16(piece * 64) | (isLast ? 0 : 1), 42)
      room.storeBig(identification, 44)
    }
    return headerByteCount + byteCount
  }
}

/// The code that reads and writes packets.
extension SelftestRun {
  /// Tests all lengths up to 512, at all alignments, and the longest packet.
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

  /// Tests packets of both families, cut for many MTUs.
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

  /// Tests fragments of many datagrams, some of which contradict others: the verdict on each
  /// fragment, and the completed packets.
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
