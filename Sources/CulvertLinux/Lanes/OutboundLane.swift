import CLinux
import Culvert

/// From the TUN to the network. A worker takes one batch through all steps, so packets leave in the
/// order in which they arrived, and back-pressure is simply not reading.
///
/// First one of the `plan` functions fills the innermost batch and has the tunnel plan it; or
/// `planMessages` does so for the messages of any hop. Then `send` does the rest: it seals, sends
/// and emits, through all hops around. The lane acquires the tunnel's lock itself, for one table
/// step at a time.
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
    // The arena holds plain values only, and a batch is none to the compiler.
    batches = arena.carveBytes(
      hops * MemoryLayout<OutboundBatch>.stride, owner: "workers: state"
    ).baseAddress!.assumingMemoryBound(to: OutboundBatch.self)
    sender = DatagramSender(carvingFrom: &arena)
  }

  /// The batch for one hop. Not on a measuring arena.
  func setBatch(_ batch: consuming OutboundBatch, of hop: Int) {
    (batches + hop).initialize(to: batch)
    if hop + 1 < hopCount { batches[hop].leaveRoom(forHeaders: DatagramChannel.headroom) }
  }

  /// The fastest cipher on this CPU; the batch is empty.
  func measureCipher() -> TransportCipher {
    TransportCipher.measured(scratch: batches[0].scratch) { Clock.boottime().nanoseconds }
  }

  /// See `OffloadProof`; the batch is empty.
  func refutedOffloads(_ offloads: Offloads) -> Offloads {
    OffloadProof.refuted(offloads, memory: batches[0].scratch)
  }

  // MARK: Plan

  /// Reads what the TUN has, as much as fits. `plan` is next.
  func read(_ tun: borrowing TunDevice) -> LaneResult {
    var result = LaneResult(isDrained: false)
    batches[0].reset()
    // Room for any packet: the MTU may have been raised a moment ago.
    while let room = batches[0].room(for: OutboundLane.maximumPacket) {
      let packet = tun.read(into: room)
      guard packet.byteCount >= 0 else {
        result.isDrained = true
        if packet.byteCount != -Int(SystemError.EAGAIN.code) {
          result.error = SystemError(code: Int32(truncatingIfNeeded: -packet.byteCount))
        }
        break
      }
      batches[0].append(byteCount: packet.byteCount, offload: packet.offload)
    }
    return result
  }

  var isEmpty: Bool { batches[0].count == 0 }

  /// Bytes that were read: a measure of the work that is left.
  var byteCount: Int { batches[0].byteCount }

  /// Plans what was read.
  func plan(_ hops: Hops, _ lock: Lock, at now: Instant) {
    lock.acquire()
    hops.innermost.tunnel.plan(&batches[0], at: now)
    lock.release()
  }

  /// Plans datagrams that clients have sent, from `index` on. Returns the index to continue at.
  func planDatagrams(
    of forwarding: Forwarding, from index: Int, _ hops: Hops, _ lock: Lock, at now: Instant
  ) -> Int {
    batches[0].reset()
    lock.acquire()
    let next = forwarding.fill(&batches[0], from: index, at: now)
    hops.innermost.tunnel.plan(&batches[0], at: now)
    lock.release()
    return next
  }

  /// Plans the messages of a hop's tunnel: handshakes, keepalives, staged packets.
  ///
  /// Without the lock, since handshakes take long: no other batch may be in flight.
  func planMessages(of hop: Int, _ hops: Hops, at now: Instant) {
    batches[hop].reset()
    hops[hop].tunnel.runTimers(into: &batches[hop], at: now, wall: Clock.realtime())
  }

  /// Plans the messages of a channel, ICMP errors, in the tunnel of `hop`, which is around it. No
  /// other batch may be in flight.
  func planMessages(
    of channel: inout DatagramChannel, in hop: Int, _ hops: Hops, at now: Instant
  ) {
    batches[hop].reset()
    channel.expireFragments(into: &batches[hop], at: now)
    hops[hop].tunnel.plan(&batches[hop], at: now)
  }

  // MARK: Send

  /// Seals, sends and emits the planned batch of `first`, through the hops around it.
  ///
  /// What one hop has sealed, the next one seals again, as much at a time as its batch has room
  /// for. It is read where it is, so a hop is done with its batch before the hop inside seals more.
  func send(
    from first: Int = 0, _ ticket: Ticket, _ hops: Hops, _ lock: Lock, _ result: inout LaneResult,
    at now: Instant
  ) {
    // Of each hop's outputs, the index of the first that is not sent yet. As many as Hops.maximum.
    var next = InlineArray<4, Int>(repeating: 0)
    var hop = first
    while true {
      if next[hop] < batches[hop].outputCount {
        next[hop] = wrapOutputs(of: hop, from: next[hop], hops, lock, at: now)
        hop += 1
      } else if batches[hop].seal() {
        ticket.waitForTurn()
        next[hop] = sendOutputs(of: hop, hops, &result)
      } else {
        ticket.waitForTurn()
        lock.acquire()
        emit(hop, hops, at: now)
        // Only if needed: the leader reads the sockets at the same time, to receive.
        if hop == first, !result.lost.isEmpty {
          hops.outermost.sockets.stopSending(result.lost)
        }
        lock.release()
        if hop == first { return }
        hop -= 1
      }
    }
  }

  /// Wraps outputs of `hop`, from `index` on, in packets of the hop around, and plans them there.
  /// Returns the index to continue at.
  private func wrapOutputs(
    of hop: Int, from index: Int, _ hops: Hops, _ lock: Lock, at now: Instant
  ) -> Int {
    batches[hop + 1].reset()
    lock.acquire()
    let next = hops.channels[hop].wrap(
      from: &batches[hop], at: index, into: &batches[hop + 1], at: now)
    hops[hop + 1].tunnel.plan(&batches[hop + 1], at: now)
    lock.release()
    return next
  }

  /// Sends what has a way out of this hop: everything from the outermost, which has the sockets,
  /// and ICMP errors, which return to the TUN. Returns the index of the first output that is left
  /// for the hop around.
  private func sendOutputs(of hop: Int, _ hops: Hops, _ result: inout LaneResult) -> Int {
    let isOutermost = hop + 1 == hopCount
    var index = 0
    while index < batches[hop].outputCount {
      if case .reply(let bytes) = batches[hop].output(index) {
        reply(bytes, hop, hops, &result)
        index += 1
      } else if isOutermost {
        index += sender.send(&batches[hop], index, hops.outermost.sockets, &result)
      } else {
        index += 1
      }
    }
    return isOutermost ? index : 0
  }

  /// Returns an ICMP error to the TUN, where the packet came from. A channel needs none.
  private func reply(
    _ bytes: UnsafeMutableRawBufferPointer, _ hop: Int, _ hops: Hops, _ result: inout LaneResult
  ) {
    guard hop == 0, !hops.isForwarding else { return }
    if hops.innermost.tun.write(bytes) < 0 { result.failedWriteCount += 1 }
  }

  /// Counts, moves the timers, and wipes the keys: none outlives its use.
  private func emit(_ hop: Int, _ hops: Hops, at now: Instant) {
    hops[hop].tunnel.emit(&batches[hop], at: now)
    batches[hop].reset()
  }
}
