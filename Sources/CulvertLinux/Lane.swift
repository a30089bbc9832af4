import Culvert

/// How often a lane's descriptors failed, for the log; the packets themselves are counted by the
/// tunnel.
struct LaneResult {
  /// The descriptor has nothing more; otherwise the batch was full and there may be.
  var isDrained = true
  /// The last error of a send, receive, read or write, if any.
  var error: SystemError?
  /// Why the horizon of handshake timestamps could not be stored.
  var stampError: SystemError?
}

/// From the TUN to the network. A worker carries one batch through all steps, so packets leave in
/// the order they came, and back-pressure is simply not reading.
struct OutboundLane: ~Copyable {
  private var batch: OutboundBatch

  init(_ batch: consuming OutboundBatch) {
    self.batch = batch
  }

  /// One batch: read, plan, seal, send, emit.
  mutating func run(
    _ tunnel: inout Tunnel, tun: borrowing TunDevice, sockets: borrowing UDPSockets,
    at now: Instant
  ) -> LaneResult {
    var result = LaneResult(isDrained: false)
    batch.reset()
    // Room for any packet: the MTU may have been raised a moment ago.
    while let room = batch.room(for: Lane.maximumPacket) {
      let count = tun.read(into: room)
      guard count > 0 else {
        result.isDrained = true
        if count < 0, count != -Int(SystemError.EAGAIN.code) {
          result.error = SystemError(code: Int32(truncatingIfNeeded: -count))
        }
        break
      }
      batch.append(byteCount: count)
    }
    guard batch.count > 0 else { return result }
    tunnel.plan(&batch, at: now)
    finish(&tunnel, tun: tun, sockets: sockets, at: now, &result)
    return result
  }

  /// The tunnel's own messages: handshakes, keepalives, staged packets.
  mutating func advance(
    _ tunnel: inout Tunnel, tun: borrowing TunDevice, sockets: borrowing UDPSockets,
    stamps: TimestampFile, at now: Instant
  ) -> LaneResult {
    var result = LaneResult()
    batch.reset()
    tunnel.advance(&batch, at: now, wall: Clock.realtime())
    guard batch.count > 0 else { return result }
    // Stored before it is sent: a stamp that went out and was forgotten would be refused when it
    // is used again (R28).
    if let stamp = tunnel.timestampToPersist() { result.stampError = stamps.write(stamp) }
    finish(&tunnel, tun: tun, sockets: sockets, at: now, &result)
    return result
  }

  private mutating func finish(
    _ tunnel: inout Tunnel, tun: borrowing TunDevice, sockets: borrowing UDPSockets,
    at now: Instant, _ result: inout LaneResult
  ) {
    batch.seal()
    for index in 0..<batch.count {
      switch batch.output(index) {
      case .none: break
      case .datagram(let bytes, let path, let trafficClass):
        let sent = sockets.send(bytes, to: path, trafficClass: trafficClass)
        if sent.isSourceGone { batch.didLoseSource(index) }
        if sent.result < 0 {
          batch.didFail(index)
          result.error = SystemError(code: -sent.result)
        }
      case .reply(let bytes):
        if tun.write(bytes) < 0 { tunnel.didFailToDeliver() }
      }
    }
    tunnel.emit(&batch, at: now)
    // No key outlives its use.
    batch.reset()
  }
}

/// From the network to the TUN.
struct InboundLane: ~Copyable {
  private var batch: InboundBatch

  init(_ batch: consuming InboundBatch) {
    self.batch = batch
  }

  /// Errors of single datagrams (ICMP answers to what was sent) that one call looks past: receiving
  /// goes on (R37), but not for ever in one call.
  private static let errorsPerCall = 64

  /// One batch: receive, accept, open, deliver, write.
  mutating func run(
    _ tunnel: inout Tunnel, tun: borrowing TunDevice, sockets: borrowing UDPSockets,
    _ family: IPAddress.Family, at now: Instant
  ) -> LaneResult {
    var result = LaneResult(isDrained: false)
    var errors = 0
    batch.reset()
    while let room = batch.room {
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
      batch.append(
        byteCount: received.byteCount, from: received.path, trafficClass: received.trafficClass,
        isTruncated: received.isTruncated)
    }
    guard batch.count > 0 else { return result }
    tunnel.accept(&batch, at: now)
    batch.open()
    tunnel.deliver(&batch, at: now)
    for index in 0..<batch.count {
      guard let packet = batch.delivered(index) else { continue }
      let count = tun.write(packet)
      if count < 0 {
        tunnel.didFailToDeliver()
        result.error = SystemError(code: Int32(truncatingIfNeeded: -count))
      }
    }
    batch.reset()
    return result
  }
}

enum Lane {
  /// The largest IP packet.
  static let maximumPacket = 65_535
}
