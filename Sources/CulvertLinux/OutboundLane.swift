import CLinux
import Culvert

/// From the TUN to the network. A worker carries one batch through all steps, so packets leave in
/// the order they came, and back-pressure is simply not reading.
///
/// The functions are called in this order: `read` by the one worker that leads, `plan` with the
/// tunnel locked, `seal` and `send` by turns until nothing is left (`send` in ticket order), and
/// `emit` with the tunnel locked.
struct OutboundLane: ~Copyable {
  private var batch: OutboundBatch
  /// For sendmmsg.
  private let slices: UnsafeMutablePointer<clinux_slice>

  /// The largest IP packet, with or without segments in it.
  private static let maximumPacket = 65_535

  init(_ batch: consuming OutboundBatch, carvingFrom arena: inout Arena) {
    self.batch = batch
    // All-zero bytes are a valid value of the C type.
    slices = arena.carveBytes(
      UDPSocket.Messages.capacity * MemoryLayout<clinux_slice>.stride, owner: "sent messages"
    ).baseAddress!.assumingMemoryBound(to: clinux_slice.self)
  }

  /// The fastest cipher on this CPU; the batch is empty.
  mutating func measureCipher() -> TransportCipher {
    TransportCipher.measured(scratch: batch.scratch) { Clock.boottime().nanoseconds }
  }

  /// See `OffloadProof`.
  func refutedOffloads(_ offloads: Offloads) -> Offloads {
    OffloadProof.refuted(offloads, memory: batch.scratch)
  }

  // MARK: Steps

  /// Reads what the TUN has, as much as fits.
  mutating func read(_ tun: borrowing TunDevice) -> LaneResult {
    var result = LaneResult(isDrained: false)
    batch.reset()
    // Room for any packet: the MTU may have been raised a moment ago.
    while let room = batch.room(for: OutboundLane.maximumPacket) {
      let packet = tun.read(into: room)
      guard packet.byteCount >= 0 else {
        result.isDrained = true
        if packet.byteCount != -Int(SystemError.EAGAIN.code) {
          result.error = SystemError(code: Int32(truncatingIfNeeded: -packet.byteCount))
        }
        break
      }
      batch.append(byteCount: packet.byteCount, offload: packet.offload)
    }
    return result
  }

  var isEmpty: Bool { batch.count == 0 }

  /// Bytes that were read: how much work the rest of the way is.
  var byteCount: Int { batch.byteCount }

  mutating func plan(_ tunnel: inout Tunnel, at now: Instant) { tunnel.plan(&batch, at: now) }

  /// Takes the tunnel's own messages instead: handshakes, keepalives, staged packets.
  mutating func advance(_ tunnel: inout Tunnel, at now: Instant) {
    batch.reset()
    tunnel.advance(&batch, at: now, wall: Clock.realtime())
  }

  /// False when nothing is left to send.
  mutating func seal() -> Bool { batch.seal() }

  /// Sends what `seal` has made.
  mutating func send(_ interface: UnsafeMutablePointer<Interface>, _ result: inout LaneResult) {
    var index = 0
    while index < batch.outputCount {
      switch batch.output(index) {
      case .datagram(let bytes, let path, let trafficClass):
        index += send(index, bytes, path, trafficClass, interface, &result)
      case .reply(let bytes):
        if interface.pointee.tun.write(bytes) < 0 { result.failedWriteCount += 1 }
        index += 1
      }
    }
  }

  /// Counts, moves the timers, and forgets the keys: none outlives its use.
  mutating func emit(_ tunnel: inout Tunnel, at now: Instant) {
    tunnel.emit(&batch, at: now)
    batch.reset()
  }

  // MARK: Sending

  /// Sends as many datagrams as go in one call; how many that were.
  private mutating func send(
    _ index: Int, _ bytes: UnsafeRawBufferPointer, _ path: Path, _ trafficClass: UInt8,
    _ interface: UnsafeMutablePointer<Interface>, _ result: inout LaneResult
  ) -> Int {
    let ways = interface.pointee.sockets.sending.subtracting(result.lost)
    if ways.contains(.gso) {
      let count = batch.run(from: index, isUniform: true)
      if count > 1 {
        return sendSegments(index, count, bytes, path, trafficClass, interface, &result)
      }
    }
    if ways.contains(.mmsg) {
      let count = batch.run(from: index, isUniform: false)
      if count > 1 { return sendMany(index, count, path, trafficClass, interface, &result) }
    }
    sendOne(index, interface, &result)
    return 1
  }

  @discardableResult
  private mutating func sendOne(
    _ index: Int, _ interface: UnsafeMutablePointer<Interface>, _ result: inout LaneResult
  ) -> UDPSocket.Sent {
    guard case .datagram(let bytes, let path, let trafficClass) = batch.output(index) else {
      return UDPSocket.Sent(result: 0, isSourceGone: false)
    }
    let sent = interface.pointee.sockets.send(bytes, to: path, trafficClass: trafficClass)
    if sent.isSourceGone { batch.didLoseSource(index) }
    if sent.result < 0 {
      batch.didFail(index)
      result.error = SystemError(code: -sent.result)
    }
    return sent
  }

  /// Datagrams that stand back to back, in one call.
  private mutating func sendSegments(
    _ index: Int, _ count: Int, _ first: UnsafeRawBufferPointer, _ path: Path,
    _ trafficClass: UInt8, _ interface: UnsafeMutablePointer<Interface>,
    _ result: inout LaneResult
  ) -> Int {
    guard case .datagram(let last, _, _) = batch.output(index + count - 1) else { return 1 }
    let byteCount = last.baseAddress! + last.count - first.baseAddress!
    let error = -interface.pointee.sockets.sendSegments(
      UnsafeRawBufferPointer(start: first.baseAddress!, count: byteCount),
      segmentByteCount: first.count, to: path, trafficClass: trafficClass)
    switch SystemError(code: error) {
    case SystemError(code: 0): return count
    case .EAGAIN, .ENOBUFS, .EPERM:
      // As it would be for each of them: they are lost, and counted.
      for datagram in index..<index + count { batch.didFail(datagram) }
      result.error = SystemError(code: error)
      return count
    case .EIO, .ENOPROTOOPT, .EOPNOTSUPP:
      // The device cannot compute checksums, or the kernel has no segments: off for good.
      result.lost.insert(.gso)
      for datagram in index..<index + count { sendOne(datagram, interface, &result) }
    default:
      let failures = resend(index, count, interface, &result)
      // One by one they went, and from the same address: it was the segments' size.
      if failures == 0 { batch.didRefuseSegments(index) }
    }
    return count
  }

  /// Sends one by one what was refused together; how many are refused again, or lost their source
  /// address. Where the network cannot be reached, the rest is not tried.
  private mutating func resend(
    _ index: Int, _ count: Int, _ interface: UnsafeMutablePointer<Interface>,
    _ result: inout LaneResult
  ) -> Int {
    var failures = 0
    for datagram in index..<index + count {
      let sent = sendOne(datagram, interface, &result)
      if sent.isSourceGone || sent.result < 0 { failures += 1 }
      let error = SystemError(code: -sent.result)
      if sent.result < 0, error != .EINVAL, error != .EMSGSIZE {
        for rest in datagram + 1..<index + count { batch.didFail(rest) }
        break
      }
    }
    return failures
  }

  /// Datagrams of any sizes on one path, in one call or, where it stops in between, in some more
  /// (R20).
  private mutating func sendMany(
    _ index: Int, _ run: Int, _ path: Path, _ trafficClass: UInt8,
    _ interface: UnsafeMutablePointer<Interface>, _ result: inout LaneResult
  ) -> Int {
    let count = min(run, UDPSocket.Messages.capacity)
    for place in 0..<count {
      guard case .datagram(let bytes, _, _) = batch.output(index + place) else { return 1 }
      slices[place] = clinux_slice(
        bytes: UnsafeMutableRawPointer(mutating: bytes.baseAddress!), byte_count: bytes.count)
    }
    let sent = interface.pointee.sockets.sendMany(
      slices, count: count, to: path, trafficClass: trafficClass)
    if sent > 0 { return Int(sent) }
    if SystemError(code: -sent) == .ENOSYS {
      result.lost.insert(.mmsg)
    }
    // The first is the one that was refused, or only its source address was.
    sendOne(index, interface, &result)
    return 1
  }
}
