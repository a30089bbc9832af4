import CLinux
import Culvert

/// From the TUN to the network. A worker carries one batch through all steps, so packets leave in
/// the order they came, and back-pressure is simply not reading.
///
/// The functions are called in this order: `read` by the one worker that leads, `plan` with the
/// tunnel locked, `seal` and `send` by turns until nothing is left (`send` in ticket order), and
/// `emit` with the tunnel locked.
///
/// Where tunnels are nested, `send` takes what the inner one has sealed through the outer ones,
/// each with a batch of its own; it locks the tunnels itself for that.
struct OutboundLane: ~Copyable {
  /// One for each hop, the innermost first.
  private let batches: UnsafeMutablePointer<OutboundBatch>
  private let hopCount: Int
  private let sender: DatagramSender

  /// The largest IP packet, with or without segments in it.
  private static let maximumPacket = 65_535

  /// Carves the lane; `setBatch` completes it.
  init(carvingFrom arena: inout Arena, hops: Int) {
    hopCount = hops
    // A batch is no plain value to the compiler, but its zero bytes are never looked at.
    batches = arena.carveBytes(
      hops * MemoryLayout<OutboundBatch>.stride, owner: "workers: state"
    ).baseAddress!.assumingMemoryBound(to: OutboundBatch.self)
    sender = DatagramSender(carvingFrom: &arena)
  }

  /// The batch for one hop. Not on a measuring arena.
  func setBatch(_ batch: consuming OutboundBatch, of hop: Int) {
    (batches + hop).initialize(to: batch)
    if hop + 1 < hopCount {
      (batches + hop).pointee.leaveRoom(forHeaders: DatagramChannel.headroom)
    }
  }

  /// The fastest cipher on this CPU; the batch is empty.
  func measureCipher() -> TransportCipher {
    TransportCipher.measured(scratch: batches.pointee.scratch) { Clock.boottime().nanoseconds }
  }

  /// See `OffloadProof`.
  func refutedOffloads(_ offloads: Offloads) -> Offloads {
    OffloadProof.refuted(offloads, memory: batches.pointee.scratch)
  }

  // MARK: Steps

  /// Reads what the TUN has, as much as fits.
  func read(_ tun: borrowing TunDevice) -> LaneResult {
    var result = LaneResult(isDrained: false)
    batches.pointee.reset()
    // Room for any packet: the MTU may have been raised a moment ago.
    while let room = batches.pointee.room(for: OutboundLane.maximumPacket) {
      let packet = tun.read(into: room)
      guard packet.byteCount >= 0 else {
        result.isDrained = true
        if packet.byteCount != -Int(SystemError.EAGAIN.code) {
          result.error = SystemError(code: Int32(truncatingIfNeeded: -packet.byteCount))
        }
        break
      }
      batches.pointee.append(byteCount: packet.byteCount, offload: packet.offload)
    }
    return result
  }

  var isEmpty: Bool { batches.pointee.count == 0 }

  /// Bytes that were read: how much work the rest of the way is.
  var byteCount: Int { batches.pointee.byteCount }

  func plan(_ tunnel: inout Tunnel, at now: Instant) {
    tunnel.plan(&batches.pointee, at: now)
  }

  /// Takes a tunnel's own messages instead: handshakes, keepalives, staged packets.
  func advance(_ tunnel: inout Tunnel, of hop: Int, at now: Instant) {
    (batches + hop).pointee.reset()
    tunnel.runTimers(into: &(batches + hop).pointee, at: now, wall: Clock.realtime())
  }

  /// Takes what a channel has to say into the tunnel of `hop`, which is around it.
  func advance(
    _ channel: UnsafeMutablePointer<DatagramChannel>, _ tunnel: inout Tunnel, of hop: Int,
    at now: Instant
  ) {
    (batches + hop).pointee.reset()
    channel.pointee.expireFragments(into: &(batches + hop).pointee, at: now)
    tunnel.plan(&(batches + hop).pointee, at: now)
  }

  /// Takes what clients have sent, from `index` on, into the innermost tunnel. The index to go on
  /// at.
  func take(
    _ forwarding: Forwarding, from index: Int, _ tunnel: inout Tunnel, at now: Instant
  ) -> Int {
    batches.pointee.reset()
    let next = forwarding.carry(from: index, into: &batches.pointee, at: now)
    tunnel.plan(&batches.pointee, at: now)
    return next
  }

  /// False when nothing is left to send.
  func seal(of hop: Int = 0) -> Bool { (batches + hop).pointee.seal() }

  /// Sends what `seal` has made, the hops around it included.
  func send(
    of hop: Int = 0, _ hops: Hops, _ lock: Lock, _ result: inout LaneResult, at now: Instant
  ) {
    if hop + 1 < hopCount {
      sendThroughTunnel(hop, hops, lock, &result, at: now)
    } else {
      sendThroughSockets(hop, hops, &result)
    }
  }

  /// Counts, moves the timers, and forgets the keys: none outlives its use.
  func emit(of hop: Int = 0, _ tunnel: inout Tunnel, at now: Instant) {
    tunnel.emit(&(batches + hop).pointee, at: now)
    (batches + hop).pointee.reset()
  }

  // MARK: Sending

  private func sendThroughSockets(_ hop: Int, _ hops: Hops, _ result: inout LaneResult) {
    let batch = batches + hop
    var index = 0
    while index < batch.pointee.outputCount {
      if case .reply(let bytes) = batch.pointee.output(index) {
        reply(bytes, hop, hops, &result)
        index += 1
      } else {
        index += sender.send(batch, index, through: hops.outermost, &result)
      }
    }
  }

  /// An ICMP error goes back to the TUN, where the packet came from; a channel needs none.
  private func reply(
    _ bytes: UnsafeMutableRawBufferPointer, _ hop: Int, _ hops: Hops, _ result: inout LaneResult
  ) {
    guard hop == 0, !hops.isForwarding else { return }
    if hops.innermost.pointee.tun.write(bytes) < 0 { result.failedWriteCount += 1 }
  }

  private func sendThroughTunnel(
    _ hop: Int, _ hops: Hops, _ lock: Lock, _ result: inout LaneResult, at now: Instant
  ) {
    let inner = batches + hop
    for index in 0..<inner.pointee.outputCount {
      if case .reply(let bytes) = inner.pointee.output(index) { reply(bytes, hop, hops, &result) }
    }
    let outer = batches + (hop + 1)
    let channel = hops.channels + hop
    let around = hops[hop + 1]
    var next = 0
    while next < inner.pointee.outputCount {
      outer.pointee.reset()
      lock.acquire()
      next = channel.pointee.wrap(
        from: &inner.pointee, at: next, into: &outer.pointee, at: now)
      around.pointee.tunnel.plan(&outer.pointee, at: now)
      lock.release()
      while seal(of: hop + 1) { send(of: hop + 1, hops, lock, &result, at: now) }
      lock.acquire()
      emit(of: hop + 1, &around.pointee.tunnel, at: now)
      lock.release()
    }
  }
}

/// How often a lane's descriptors failed, for the log; the packets themselves are counted by the
/// tunnel.
struct LaneResult {
  /// The descriptor has nothing more; otherwise the batch was full and there may be.
  var isDrained = true
  /// The last error of a send, receive, read or write, if any.
  var error: SystemError?
  /// An offload that the kernel has refused and that is used no more.
  var lost = Offloads.none
  /// Packets that the TUN refused.
  var failedWriteCount = 0
  /// Why the horizon of handshake timestamps could not be stored.
  var stampError: SystemError?

  /// The TUN has refused so many packets, with `code`.
  mutating func didFailToWrite(_ count: Int, _ code: Int) {
    failedWriteCount += count
    error = SystemError(code: Int32(truncatingIfNeeded: code))
  }

  /// False where everything went well.
  var needsReport: Bool {
    error != nil || stampError != nil || failedWriteCount > 0 || !lost.isEmpty
  }
}
