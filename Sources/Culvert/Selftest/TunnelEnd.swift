/// One tunnel of an end, with a batch of each lane, and the channel that carries its datagrams
/// through the tunnel around it. The values are in the arena; a copy refers to the same hop.
struct TunnelHop {
  let tunnelAddress: UnsafeMutablePointer<Tunnel>
  let outboundAddress: UnsafeMutablePointer<OutboundBatch>
  let inboundAddress: UnsafeMutablePointer<InboundBatch>
  let channelAddress: UnsafeMutablePointer<DatagramChannel>

  var tunnel: Tunnel {
    unsafeAddress { UnsafePointer(tunnelAddress) }
    nonmutating unsafeMutableAddress { tunnelAddress }
  }
  var outbound: OutboundBatch {
    unsafeAddress { UnsafePointer(outboundAddress) }
    nonmutating unsafeMutableAddress { outboundAddress }
  }
  var inbound: InboundBatch {
    unsafeAddress { UnsafePointer(inboundAddress) }
    nonmutating unsafeMutableAddress { inboundAddress }
  }
  /// The outermost hop has none.
  var channel: DatagramChannel {
    unsafeAddress { UnsafePointer(channelAddress) }
    nonmutating unsafeMutableAddress { channelAddress }
  }
}

extension TunnelHop {
  /// Copies the datagrams of the outbound batch to the inbound one, each `copies` times. Datagrams
  /// that do not fit are lost.
  func copyOutputs(copies: Int) {
    for index in 0..<outbound.outputCount {
      guard case .datagram(let bytes, let path, _) = outbound.output(index) else { continue }
      for _ in 0..<copies {
        guard let room = inbound.room(for: bytes.count, datagrams: 1) else { return }
        room.copyMemory(from: bytes)
        inbound.append(byteCount: bytes.count, from: path, trafficClass: 0, isTruncated: false)
      }
    }
  }
}

/// The tunnels of one process: up to four, one inside the other. There is neither a TUN nor a
/// socket; the caller fills the batches and reads them after each step. The self-test, the unit
/// tests, the fuzzer and the benchmarks build on it.
struct TunnelEnd {
  /// The step that a batch has completed.
  enum Step {
    /// The inner hop's datagrams are packets in this hop's outbound batch; `plan` is next.
    case carried
    /// `seal` has produced a round of outputs.
    case sealed
    /// All rounds have been sealed; `emit` is next.
    case allSealed
    /// The datagrams of the inbound batch are decrypted; `deliver` is next.
    case opened
    /// The packets of the inbound batch are delivered.
    case delivered
  }
  /// Called with each step and the index of the hop that it happened in.
  typealias Observer = (Step, Int) -> Void

  static let maximumHops = 4

  /// The innermost first.
  let hops: UnsafeMutableBufferPointer<TunnelHop>
  /// Bytes of the arena, from its start, that hold the state of the tunnels and channels. The rest
  /// is used by the batches, whose contents do not outlive a batch.
  let stateByteCount: Int
  /// The tunnels, batches and channels themselves, without the tables that they point to.
  let values: UnsafeRawBufferPointer

  /// - Parameter hops: 1 to `maximumHops`.
  /// - Parameter other: an end with the same limits and as many hops, whose batches this one uses
  ///   too. The two must take turns.
  /// - Parameter endsSecrets: whether the arena's locked part ends with the secrets of this end.
  init(
    carvingFrom arena: inout Arena, hops count: Int = 1, limits: Limits,
    sharingBatchesOf other: TunnelEnd? = nil, endsSecrets: Bool = true
  ) {
    precondition(count >= 1 && count <= TunnelEnd.maximumHops)
    let owner: StaticString = "ends"
    let secrets = arena.place(TunnelSecrets.self, count: count, owner: owner)
    for hop in 0..<count {
      (secrets + hop).initialize(to: TunnelSecrets(carvingFrom: &arena, limits: limits))
    }
    if endsSecrets { arena.endSecrets() }

    let start = arena.byteCount
    hops = arena.carve(TunnelHop.self, count: count, owner: owner)
    let tunnels = arena.place(Tunnel.self, count: count, owner: owner)
    let channels = arena.place(DatagramChannel.self, count: count, owner: owner)
    let outbounds = arena.place(OutboundBatch.self, count: count, owner: owner)
    let inbounds = arena.place(InboundBatch.self, count: count, owner: owner)
    values = UnsafeRawBufferPointer(start: hops.baseAddress, count: arena.byteCount - start)

    for hop in 0..<count {
      (tunnels + hop).initialize(
        to: Tunnel(carvingFrom: &arena, limits: limits, secrets: (secrets + hop).move()))
      if hop < count - 1 {
        (channels + hop).initialize(to: DatagramChannel(carvingFrom: &arena, limits: limits))
      }
    }
    stateByteCount = arena.byteCount

    for hop in 0..<count {
      if other == nil {
        (outbounds + hop).initialize(to: tunnels[hop].makeOutboundBatch(carvingFrom: &arena))
        (inbounds + hop).initialize(to: tunnels[hop].makeInboundBatch(carvingFrom: &arena))
      }
      hops.initializeElement(
        at: hop,
        to: TunnelHop(
          tunnelAddress: tunnels + hop,
          outboundAddress: other?.hops[hop].outboundAddress ?? outbounds + hop,
          inboundAddress: other?.hops[hop].inboundAddress ?? inbounds + hop,
          channelAddress: channels + hop))
      if hop < count - 1 {
        hops[hop].outbound.leaveRoom(forHeaders: DatagramChannel.headroom)
        hops[hop].outbound.reset()
      }
    }
  }

  var innermost: TunnelHop { hops[0] }
  var outermost: TunnelHop { hops[hops.count - 1] }

  // MARK: Outbound

  /// Seals the packets planned in a hop's outbound batch, and carries them through the hops around.
  func send(_ hop: Int = 0, at now: Instant, _ observe: Observer) {
    let inner = hops[hop]
    while inner.outbound.seal() {
      observe(.sealed, hop)
      if hop < hops.count - 1 { carryOutward(hop, at: now, observe) }
    }
    observe(.allSealed, hop)
    inner.tunnel.emit(&inner.outbound, at: now)
    inner.outbound.reset()
  }

  private func carryOutward(_ hop: Int, at now: Instant, _ observe: Observer) {
    let (inner, outer) = (hops[hop], hops[hop + 1])
    var next = 0
    while next < inner.outbound.outputCount {
      outer.outbound.reset()
      let before = next
      next = inner.channel.wrap(from: &inner.outbound, at: next, into: &outer.outbound, at: now)
      precondition(next > before, "an empty batch has no room for a datagram")
      observe(.carried, hop + 1)
      outer.tunnel.plan(&outer.outbound, at: now)
      send(hop + 1, at: now, observe)
    }
  }

  // MARK: Inbound

  /// Opens the datagrams in a hop's inbound batch, and carries them to the innermost hop.
  func receive(_ hop: Int, at now: Instant, _ observe: Observer) {
    let outer = hops[hop]
    outer.tunnel.accept(&outer.inbound, at: now)
    outer.inbound.open()
    observe(.opened, hop)
    outer.tunnel.deliver(&outer.inbound, at: now)
    observe(.delivered, hop)
    if hop > 0 { carryInward(hop, at: now, observe) }
    outer.inbound.reset()
  }

  private func carryInward(_ hop: Int, at now: Instant, _ observe: Observer) {
    let (inner, outer) = (hops[hop - 1], hops[hop])
    var next = 0
    while next < outer.inbound.count {
      inner.inbound.reset()
      let before = next
      next = inner.channel.unwrap(from: outer.inbound, at: next, into: &inner.inbound, at: now)
      precondition(next > before, "an empty batch has no room for a datagram")
      receive(hop - 1, at: now, observe)
      inner.channel.release()
      precondition(
        inner.channel.lentCount == 0 && inner.channel.reassembler.completedCount == 0,
        "the channel's memory is lent for too long")
    }
  }

  // MARK: Timers

  func nextDeadline(at now: Instant) -> Deadline {
    var next = Deadline.never
    for hop in 0..<hops.count {
      next = min(next, hops[hop].tunnel.nextDeadline(at: now))
      if hop < hops.count - 1 { next = min(next, hops[hop].channel.nextDeadline) }
    }
    return next
  }

  /// Runs the timers that are due, and handles the queued handshake messages, of every hop.
  func runTimers(at now: Instant, wall: WallTime, _ observe: Observer) {
    for index in 0..<hops.count {
      let hop = hops[index]
      hop.outbound.reset()
      hop.tunnel.runTimers(into: &hop.outbound, at: now, wall: wall)
      send(index, at: now, observe)
    }
    for index in 0..<hops.count - 1 where hops[index].channel.nextDeadline.isDue(at: now) {
      let outer = hops[index + 1]
      outer.outbound.reset()
      hops[index].channel.expireFragments(into: &outer.outbound, at: now)
      outer.tunnel.plan(&outer.outbound, at: now)
      send(index + 1, at: now, observe)
    }
  }
}

extension Arena {
  /// Carves space for values that own nothing outside the arena and thus need no destruction.
  fileprivate mutating func place<Value: ~Copyable>(
    _ type: Value.Type, count: Int, owner: StaticString
  ) -> UnsafeMutablePointer<Value> {
    carveBytes(count * MemoryLayout<Value>.stride, owner: owner).baseAddress!
      .bindMemory(to: type, capacity: count)
  }
}
