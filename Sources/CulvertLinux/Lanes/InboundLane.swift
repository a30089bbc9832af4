import CLinux
import Culvert

/// The path from the network to the TUN.
///
/// The leader calls `receive` and `accept`. Then `deliver` does the rest, through all inner hops:
/// it opens the datagrams, delivers the packets, and hands them on. The lane acquires the tunnel's
/// lock itself, for one table step at a time.
struct InboundLane: ~Copyable {
  /// One for each hop, the innermost first.
  private let batches: UnsafeMutablePointer<InboundBatch>
  private let hopCount: Int
  /// For recvmmsg.
  private let messages: UDPSocket.Messages
  /// The pieces of a joined packet.
  private let slices: UnsafeMutablePointer<clinux_slice>
  /// Bytes for each datagram of a recvmmsg call. The batch has no room for many datagrams of the
  /// largest size. If one does not fit, it is truncated and lost, and this size is increased.
  private var datagramByteCount = InboundLane.usualByteCount
  private var callsWithoutLarge = 0

  private static let usualByteCount = 2048
  private static let callsToForgetLarge = 4096
  /// How many errors of single datagrams (from ICMP errors about sent ones) one call skips.
  /// Receiving continues after them (R37), but not endlessly in one call.
  private static let errorsPerCall = 64

  /// Carves the lane; `setBatch` completes it.
  init(carvingFrom arena: inout Arena, hops: Int) {
    // The size of `next` below.
    precondition(hops <= 4 && Hops.maximum <= 4)
    hopCount = hops
    batches = arena.carveBytes(
      hops * MemoryLayout<InboundBatch>.stride, owner: "workers: state"
    ).baseAddress!.assumingMemoryBound(to: InboundBatch.self)
    messages = UDPSocket.Messages(carvingFrom: &arena)
    // All-zero bytes are a valid value of the C type.
    slices = arena.carveBytes(
      BatchLayout.maximumSegments * MemoryLayout<clinux_slice>.stride, owner: "pieces to write"
    ).baseAddress!.assumingMemoryBound(to: clinux_slice.self)
  }

  /// Sets the batch of one hop. Not called with a measuring arena.
  func setBatch(_ batch: consuming InboundBatch, of hop: Int) {
    (batches + hop).initialize(to: batch)
  }

  /// Sets whether packets are examined for joining, which depends on the TUN.
  func prepare(for tun: borrowing TunDevice) {
    batches[0].preparesJoining = !tun.joining.isEmpty
  }

  private var outermost: Int { hopCount - 1 }

  // MARK: Accept

  /// Receives queued datagrams into the outermost batch, as many as fit. `accept` is next.
  mutating func receive(
    _ sockets: borrowing UDPSockets, _ family: IPAddress.Family
  ) -> LaneResult {
    batches[outermost].reset()
    if sockets.receiving.contains(.gro) {
      return receiveOneByOne(sockets, family, datagrams: BatchLayout.maximumSegments)
    }
    if sockets.receiving.contains(.mmsg) { return receiveMany(sockets, family) }
    return receiveOneByOne(sockets, family, datagrams: 1)
  }

  var isEmpty: Bool { batches[outermost].count == 0 }

  /// The number of accepted bytes to decrypt: a measure of the remaining work. A flood of other
  /// datagrams must not wake another worker for nothing.
  var byteCount: Int { batches[outermost].sealedByteCount }

  /// Accepts the received datagrams.
  func accept(_ hops: Hops, _ lock: Lock, at now: Instant) {
    lock.acquire()
    accept(&hops.outermost.tunnel, at: now)
    lock.release()
  }

  /// The table step alone. The caller holds the lock.
  func accept(_ tunnel: inout Tunnel, at now: Instant) {
    tunnel.accept(&batches[outermost], at: now)
  }

  /// Unwraps packets that `hop` has delivered, from `index` on, into datagrams of the next inner
  /// hop, and accepts them there. Returns the index at which to continue.
  private func unwrapPackets(
    of hop: Int, from index: Int, _ hops: Hops, _ lock: Lock, at now: Instant
  ) -> Int {
    batches[hop - 1].reset()
    lock.acquire()
    let next = hops.channels[hop - 1].unwrap(
      from: batches[hop], at: index, into: &batches[hop - 1], at: now)
    hops[hop - 1].tunnel.accept(&batches[hop - 1], at: now)
    lock.release()
    return next
  }

  // MARK: Deliver

  /// Opens and delivers the accepted batch through all inner hops, and hands the innermost hop's
  /// packets on to the TUN or to clients.
  ///
  /// The packets that one hop has opened are opened again by the next inner hop, as many at a time
  /// as its batch can hold. They are read in place, so a hop's batch stays unchanged until the next
  /// hop has processed all of it.
  func deliver(
    _ ticket: Ticket, _ hops: Hops, _ lock: Lock, _ result: inout LaneResult, at now: Instant
  ) {
    // For each hop (at most Hops.maximum), the index of its first packet that is not handed on yet.
    var next = InlineArray<4, Int>(repeating: 0)
    var hop = outermost
    while true {
      batches[hop].open()
      ticket.waitForTurn()
      lock.acquire()
      hops[hop].tunnel.deliver(&batches[hop], at: now)
      // Decrypted datagrams are in the batch's own memory, so the channel's can be released.
      if hop < outermost { hops.channels[hop].release() }
      lock.release()
      next[hop] = hop == 0 ? handOn(hops, lock, &result, at: now) : 0
      while next[hop] == batches[hop].count {
        batches[hop].reset()
        if hop == outermost { return }
        hop += 1
      }
      next[hop] = unwrapPackets(of: hop, from: next[hop], hops, lock, at: now)
      hop -= 1
    }
  }

  /// Hands on all packets of the innermost hop. Returns their number.
  private func handOn(
    _ hops: Hops, _ lock: Lock, _ result: inout LaneResult, at now: Instant
  ) -> Int {
    if let forwarding = hops.forwarding {
      answer(forwarding, lock, at: now)
    } else {
      writePackets(hops.innermost.tun, &result)
      if !result.lost.isEmpty { hops.innermost.tun.stopJoining(result.lost) }
    }
    return batches[0].count
  }

  /// Sends the answers among the packets to their clients.
  private func answer(_ forwarding: Forwarding, _ lock: Lock, at now: Instant) {
    var next = 0
    while next < batches[0].count {
      lock.acquire()
      next = forwarding.collectAnswers(in: batches[0], from: next, at: now)
      lock.release()
      let sent = forwarding.sendAnswers()
      lock.acquire()
      forwarding.releaseAnswers(sent, at: now)
      lock.release()
    }
  }

  // MARK: Receiving

  private func receiveOneByOne(
    _ sockets: borrowing UDPSockets, _ family: IPAddress.Family, datagrams: Int
  ) -> LaneResult {
    var result = LaneResult(isDrained: false)
    var errors = 0
    while let room = batches[outermost].room(for: BatchLayout.maximumDatagram, datagrams: datagrams)
    {
      let received = sockets.receive(into: room, family)
      guard received.byteCount >= 0 else {
        if received.byteCount == -Int(SystemError.EAGAIN.code) || errors == Self.errorsPerCall {
          result.isDrained = true
          break
        }
        errors += 1
        result.error = SystemError(code: Int32(truncatingIfNeeded: -received.byteCount))
        continue
      }
      batches[outermost].append(
        byteCount: received.byteCount, from: received.path, trafficClass: received.trafficClass,
        isTruncated: received.isTruncated, segmentByteCount: received.segmentByteCount)
    }
    return result
  }

  private mutating func receiveMany(
    _ sockets: borrowing UDPSockets, _ family: IPAddress.Family
  ) -> LaneResult {
    var result = LaneResult(isDrained: false)
    var errors = 0
    let stride = BatchLayout.stride(for: datagramByteCount)
    var count = UDPSocket.Messages.capacity
    while count > 1, batches[outermost].room(for: count * stride, datagrams: count) == nil {
      count -= 1
    }
    while let room = batches[outermost].room(for: count * stride, datagrams: count) {
      let received = sockets.receive(
        messages, into: room.baseAddress!, stride: stride, capacity: datagramByteCount,
        count: count, family)
      if received < 0 {
        let error = SystemError(code: Int32(truncatingIfNeeded: -received))
        if error == .ENOSYS {
          result.lost.insert(.mmsg)
          break
        }
        if error == .EAGAIN || errors == Self.errorsPerCall {
          result.isDrained = true
          break
        }
        errors += 1
        result.error = error
        continue
      }
      append(messageCount: received, stride: stride)
      if received < count {
        result.isDrained = true
        break
      }
    }
    return result
  }

  /// Appends the messages of one recvmmsg call, which were written `stride` bytes apart.
  private mutating func append(messageCount count: Int, stride: Int) {
    // Offsets are relative to the batch's end, which moves with each message.
    let start = batches[outermost].byteCount
    var isTruncated = false
    var isLarge = false
    for index in 0..<count {
      let message = messages[index]
      batches[outermost].append(
        byteCount: message.byteCount, at: start + index * stride - batches[outermost].byteCount,
        from: message.path, trafficClass: message.trafficClass, isTruncated: message.isTruncated)
      isTruncated = isTruncated || message.isTruncated
      isLarge = isLarge || message.byteCount > Self.usualByteCount
    }
    if isTruncated {
      datagramByteCount = min(datagramByteCount * 4, BatchLayout.maximumDatagram)
      callsWithoutLarge = 0
      return
    }
    // Anybody can send one large datagram. It must not reduce the number of datagrams per call
    // forever.
    callsWithoutLarge = isLarge ? 0 : callsWithoutLarge + 1
    if callsWithoutLarge > Self.callsToForgetLarge { datagramByteCount = Self.usualByteCount }
  }

  // MARK: Writing

  private func writePackets(_ tun: borrowing TunDevice, _ result: inout LaneResult) {
    let joining = tun.joining
    batches[0].join(tcp: joining.contains(.tso), udp: joining.contains(.uso))
    for group in 0..<batches[0].outputCount {
      // After a refusal the rest is written as single packets.
      if batches[0].packetCount(of: group) > 1, result.lost.isEmpty {
        writeJoined(group, tun, &result)
      } else {
        writeSingly(group, tun, &result)
      }
    }
  }

  /// One write for each packet.
  private func writeSingly(
    _ group: Int, _ tun: borrowing TunDevice, _ result: inout LaneResult
  ) {
    batches[0].forEachPacket(of: group) { bytes, byteCount in
      let written = tun.write(UnsafeMutableRawBufferPointer(start: bytes, count: byteCount))
      if written < 0 { result.didFailToWrite(1, -written) }
    }
  }

  /// One write for all packets of a group. If the kernel refuses it, the packets are lost. After
  /// EINVAL, packets of this protocol are not joined again.
  private func writeJoined(
    _ group: Int, _ tun: borrowing TunDevice, _ result: inout LaneResult
  ) {
    let headerByteCount = tun.headerByteCount
    let slices = slices
    var count = 0
    batches[0].forEachPiece(of: group) { bytes, byteCount in
      slices[count] = clinux_slice(bytes: bytes, byte_count: byteCount)
      count += 1
    }
    let header = slices[0].bytes! - headerByteCount
    header.initializeMemory(as: UInt8.self, repeating: 0, count: headerByteCount)
    let isTCP = batches[0].finish(group, virtioHeader: header) != .udp
    slices[0].bytes = header
    slices[0].byte_count += headerByteCount
    let written = tun.write(pieces: slices, count: count)
    guard written < 0 else { return }
    result.didFailToWrite(count, -written)
    if result.error == .EINVAL { result.lost.insert(isTCP ? .tso : .uso) }
  }
}
