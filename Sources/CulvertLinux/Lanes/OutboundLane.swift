import CLinux
import Culvert

/// The path from the TUN to the network. A worker takes one batch through all steps, so packets
/// leave in the order in which they arrived. There is no queue: under back-pressure, nothing is
/// read.
///
/// First one of the `plan` functions fills the innermost batch and lets the tunnel plan it, or
/// `planMessages` does so for the messages of any hop. Then `send` does the rest, through all outer
/// hops: it seals, sends and emits. The lane acquires the tunnel's lock itself, for one table step
/// at a time.
struct OutboundLane: ~Copyable {
  /// One for each hop, the innermost first.
  private let batches: UnsafeMutablePointer<OutboundBatch>
  private let hopCount: Int
  private let sender: DatagramSender

  /// The largest IP packet that the TUN delivers, segmented or not.
  private static let maximumPacket = 65_535

  /// Carves the lane; `setBatch` completes it.
  init(carvingFrom arena: inout Arena, hops: Int) {
    // The size of `next` below.
    precondition(hops <= 4 && Hops.maximum <= 4)
    hopCount = hops
    // Carved as bytes, because a batch is not a trivial type to the compiler.
    batches = arena.carveBytes(
      hops * MemoryLayout<OutboundBatch>.stride, owner: "workers: state"
    ).baseAddress!.assumingMemoryBound(to: OutboundBatch.self)
    sender = DatagramSender(carvingFrom: &arena)
  }

  /// Sets the batch of one hop. Not called with a measuring arena.
  func setBatch(_ batch: consuming OutboundBatch, of hop: Int) {
    (batches + hop).initialize(to: batch)
    if hop + 1 < hopCount { batches[hop].leaveRoom(forHeaders: DatagramChannel.headroom) }
  }

  /// The fastest cipher on this CPU. The batch must be empty, because its memory is used.
  func measureCipher() -> TransportCipher {
    TransportCipher.measured(scratch: batches[0].scratch) { Clock.boottime().nanoseconds }
  }

  /// See `OffloadProof`. The batch must be empty, because its memory is used.
  func refutedOffloads(_ offloads: Offloads) -> Offloads {
    OffloadProof.refuted(offloads, memory: batches[0].scratch)
  }

  // MARK: Plan

  /// Reads packets from the TUN, as many as fit. `plan` is next.
  func read(_ tun: borrowing TunDevice) -> LaneResult {
    var result = LaneResult(isDrained: false)
    batches[0].reset()
    // Room for the largest packet, because the MTU may just have been raised.
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

  /// The number of bytes read: a measure of the remaining work.
  var byteCount: Int { batches[0].byteCount }

  /// Plans the packets that were read.
  func plan(_ hops: Hops, _ lock: Lock, at now: Instant) {
    lock.acquire()
    if hopCount > 1 { hops.outermost.tunnel.dropOwnDatagrams(of: &batches[0]) }
    hops.innermost.tunnel.plan(&batches[0], at: now)
    lock.release()
  }

  /// Plans datagrams from clients, from `index` on. Returns the index at which to continue.
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
  /// Does not take the lock, because handshakes take long. No other batch may be in flight.
  func planMessages(of hop: Int, _ hops: Hops, at now: Instant) {
    batches[hop].reset()
    hops[hop].tunnel.runTimers(into: &batches[hop], at: now, wall: Clock.realtime())
  }

  /// Checks the local addresses of the outermost hop's messages that were just planned, if they are
  /// not checked yet.
  func checkSources(_ hops: Hops, _ routes: borrowing RouteCheck) {
    hops.outermost.tunnel.checkSources(of: &batches[hopCount - 1]) {
      hops.outermost.judgeSource(of: $0, routes)
    }
  }

  /// Plans the ICMP errors of a channel in the tunnel of `hop`, through which the channel leads. No
  /// other batch may be in flight.
  func planMessages(
    of channel: inout DatagramChannel, in hop: Int, _ hops: Hops, at now: Instant
  ) {
    batches[hop].reset()
    channel.expireFragments(into: &batches[hop], at: now)
    hops[hop].tunnel.plan(&batches[hop], at: now)
  }

  // MARK: Send

  /// Seals, sends and emits the planned batch of hop `first`, through all outer hops.
  ///
  /// The datagrams that one hop has sealed are sealed again by the next outer hop, as many at a
  /// time as its batch can hold. They are read in place, so an outer hop finishes its batch before
  /// the inner hop seals more.
  func send(
    from first: Int = 0, _ ticket: Ticket, _ hops: Hops, _ lock: Lock, _ result: inout LaneResult,
    at now: Instant
  ) {
    // For each hop (at most Hops.maximum), the index of its first output that is not sent yet.
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
        // Only if needed, because the leader may be using the sockets to receive at the same time.
        if hop == first, !result.lost.isEmpty {
          hops.outermost.sockets.stopSending(result.lost)
        }
        lock.release()
        if hop == first { return }
        hop -= 1
      }
    }
  }

  /// Wraps outputs of `hop`, from `index` on, into packets of the next outer hop, and plans them
  /// there. Returns the index at which to continue.
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

  /// Sends the outputs that can leave from this hop: datagrams if it is the outermost hop, which
  /// has the sockets, and ICMP errors, which return to the TUN. Returns the index of the first
  /// output that is left for the next outer hop.
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

  /// Returns an ICMP error to the TUN from which the packet was read. A channel needs none.
  private func reply(
    _ bytes: UnsafeMutableRawBufferPointer, _ hop: Int, _ hops: Hops, _ result: inout LaneResult
  ) {
    guard hop == 0, !hops.isForwarding else { return }
    if hops.innermost.tun.write(bytes) < 0 { result.failedWriteCount += 1 }
  }

  /// Counts the outputs, updates the timers, and wipes the batch's keys, so that no key outlives
  /// its use.
  private func emit(_ hop: Int, _ hops: Hops, at now: Instant) {
    hops[hop].tunnel.emit(&batches[hop], at: now)
    batches[hop].reset()
  }
}
