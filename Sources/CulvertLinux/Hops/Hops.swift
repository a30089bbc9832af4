import Culvert

/// The tunnels of one process, one inside the other: the innermost first, which has the TUN, and
/// the outermost last, which has the sockets. Without nesting they are the same. Between a hop and
/// the one around it is a channel, which is the inner hop's socket.
///
/// A handle that all workers hold a copy of. The elements are accessed in place; for them
/// `Gates.tunnel` must be held, or no batch may be in flight, unless `Interface` says otherwise.
struct Hops: BitwiseCopyable {
  /// More than anybody nests: each hop takes 60 or 80 bytes of every packet.
  static let maximum = 4

  private let interfaces: UnsafeMutablePointer<Interface>
  /// One fewer than hops: that at index i is between the hops i and i + 1.
  let channels: UnsafeMutablePointer<DatagramChannel>
  let count: Int
  /// What the innermost hop has in place of a TUN, if anything.
  let forwarding: Forwarding?

  subscript(hop: Int) -> Interface {
    unsafeAddress { UnsafePointer(interfaces + hop) }
    nonmutating unsafeMutableAddress { interfaces + hop }
  }
  var innermost: Interface {
    unsafeAddress { UnsafePointer(interfaces) }
    nonmutating unsafeMutableAddress { interfaces }
  }
  var outermost: Interface {
    unsafeAddress { UnsafePointer(interfaces + (count - 1)) }
    nonmutating unsafeMutableAddress { interfaces + (count - 1) }
  }

  var isNested: Bool { count > 1 }
  /// Local clients in place of the innermost hop's TUN.
  var isForwarding: Bool { forwarding != nil }

  /// The earliest deadline of all tunnels, channels and flows.
  func nextDeadline(at now: Instant) -> Deadline {
    var next = innermost.tunnel.nextDeadline(at: now)
    if let forwarding { next = min(next, forwarding.nextDeadline) }
    guard isNested else { return next }
    for hop in 1..<count { next = min(next, self[hop].tunnel.nextDeadline(at: now)) }
    for hop in 0..<count - 1 { next = min(next, channels[hop].nextDeadline) }
    return next
  }

  /// Applies the firewall mark. A mark on a hop without sockets is meant for the sockets that its
  /// datagrams leave by: wg-quick(8) marks the innermost. The outermost hop's own takes precedence.
  func updateMark(at now: Instant) {
    guard isNested else { return }
    var mark = outermost.firewallMark
    var hop = 0
    while mark == 0, hop < count - 1 {
      mark = self[hop].firewallMark
      hop += 1
    }
    guard mark != outermost.sockets.mark else { return }
    do throws(SystemError) { try outermost.sockets.setMark(mark) } catch {
      outermost.report(error, "cannot set the firewall mark", at: now)
    }
  }

  var hasEvents: Bool {
    for hop in 0..<count where self[hop].tunnel.hasEvents { return true }
    return false
  }

  /// Drops the fragments of peers that were removed (F10).
  func dropFragmentsOfRemovedPeers() {
    guard isNested else { return }
    for hop in 1..<count where self[hop].noticesRemovals() {
      channels[hop - 1].reassembler.removeAll(fromSenders: { !self[hop].tunnel.hasSender($0) })
    }
  }

  // MARK: Start and end

  /// Takes over the tunnels, channels and flows of `memory`.
  init(_ memory: HopMemory, _ tun: consuming TunDevice, _ log: Log, _ options: ServiceOptions) {
    count = memory.count
    channels = memory.channels
    forwarding = memory.forwarding
    interfaces = .allocate(capacity: memory.count)
    var tun = Optional(tun)
    for hop in 0..<memory.count {
      var log = log
      if let name = log.name.ofHop(hop) { log.name = name }
      (interfaces + hop).initialize(
        to: Interface(
          tunnel: (memory.tunnels + hop).move(), tun: tun.take() ?? .none,
          sockets: UDPSockets(
            bufferByteCount: Int32(options.socketBufferByteCount), offloads: options.offloads),
          channel: hop + 1 < memory.count ? memory.channels + hop : nil, log: log,
          stamps: TimestampFile(StateFile(log.name, in: options.stateDirectory))))
    }
    memory.tunnels.deallocate()
  }

  func destroy() {
    forwarding?.destroy()
    interfaces.deinitialize(count: count)
    interfaces.deallocate()
    channels.deinitialize(count: count - 1)
    channels.deallocate()
  }

  /// - Parameter cipher: seals and opens transport data.
  func start(cipher: TransportCipher) {
    var entropy = Entropy.sodium
    for hop in 0..<count {
      self[hop].tunnel.start()
      self[hop].tunnel.cipher = cipher
      if let floor = self[hop].stamps.read() { self[hop].tunnel.restoreTimestamp(floor) }
      if hop + 1 < count { channels[hop].start(seed: entropy.uint64()) }
    }
  }

  /// Sets the hops around the innermost up: they have no interface that could be up or down.
  func setOuterUp(at now: Instant) {
    guard isNested else { return }
    for hop in 1..<count { self[hop].setUp(true, at: now) }
  }

  /// Stores the last handshake timestamps: the next start continues there. Only after a crash does
  /// it have to skip ahead.
  func storeTimestamps() {
    for hop in 0..<count {
      if let stamp = self[hop].tunnel.lastTimestamp { _ = self[hop].stamps.write(stamp) }
    }
  }

  // MARK: Counters

  /// Writes every verdict with a count on standard error, for SIGUSR1; with the hop's name if there
  /// are several hops.
  func writeCounters() {
    for hop in 0..<count {
      for value in 0..<Verdict.count {
        guard let verdict = Verdict(rawValue: value) else { continue }
        writeCounter(hop, verdict.name, self[hop].tunnel.counters[verdict])
      }
      if hop + 1 < count { writeCounters(of: channels[hop], hop) }
    }
    guard let forwarding else { return }
    for value in 0..<FlowVerdict.count {
      guard let verdict = FlowVerdict(rawValue: value) else { continue }
      writeCounter(0, verdict.name, forwarding.counters[verdict])
    }
    writeCounters(of: forwarding.channel, 0, prefix: "forward-")
  }

  /// - Parameter prefix: precedes each name.
  private func writeCounters(
    of channel: borrowing DatagramChannel, _ hop: Int, prefix: StaticString = ""
  ) {
    for value in 0..<DatagramVerdict.count {
      guard let verdict = DatagramVerdict(rawValue: value) else { continue }
      writeCounter(hop, verdict.name, channel.counters[verdict], prefix: prefix)
    }
    for value in 0..<FragmentVerdict.count {
      guard let verdict = FragmentVerdict(rawValue: value) else { continue }
      writeCounter(hop, verdict.name, channel.reassembler.counters[verdict], prefix: prefix)
    }
  }

  private func writeCounter(
    _ hop: Int, _ name: StaticString, _ count: UInt64, prefix: StaticString = ""
  ) {
    guard count > 0 else { return }
    Output.writeLine(to: Output.standardError) {
      if isNested {
        $0.append(self[hop].log.name)
        $0.append(" ")
      }
      $0.append(prefix)
      $0.append(name)
      $0.append(" ")
      $0.append(decimal: count)
    }
  }
}

/// What the hops carve from the arena: of all tunnels the secrets first, which are locked in RAM.
struct HopMemory: BitwiseCopyable {
  /// One for each hop, the innermost first.
  let tunnels: UnsafeMutablePointer<Tunnel>
  /// One between each two.
  let channels: UnsafeMutablePointer<DatagramChannel>
  let count: Int
  /// In place of a TUN.
  let forwarding: Forwarding?

  init(carvingFrom arena: inout Arena, limits: Limits, count: Int, isForwarding: Bool) {
    precondition(count > 0 && count <= Hops.maximum)
    self.count = count
    // Start-up: the arena is not sealed yet, and it holds plain values only.
    tunnels = .allocate(capacity: count)
    channels = .allocate(capacity: count)
    HopMemory.carveTunnels(from: &arena, limits, tunnels, count)
    for index in 0..<count - 1 {
      (channels + index).initialize(to: DatagramChannel(carvingFrom: &arena, limits: limits))
    }
    forwarding = isForwarding ? Forwarding(carvingFrom: &arena, limits: limits) : nil
  }

  /// The secrets of all tunnels come first: they are one range, which is locked.
  private static func carveTunnels(
    from arena: inout Arena, _ limits: Limits, _ tunnels: UnsafeMutablePointer<Tunnel>,
    _ count: Int
  ) {
    let secrets = UnsafeMutablePointer<TunnelSecrets>.allocate(capacity: count)
    for hop in 0..<count {
      (secrets + hop).initialize(to: TunnelSecrets(carvingFrom: &arena, limits: limits))
    }
    arena.endSecrets()
    for hop in 0..<count {
      (tunnels + hop).initialize(
        to: Tunnel(carvingFrom: &arena, limits: limits, secrets: (secrets + hop).move()))
    }
    secrets.deallocate()
  }

  /// The end of memory that was only measured.
  func discard() {
    forwarding?.destroy()
    tunnels.deinitialize(count: count)
    tunnels.deallocate()
    channels.deinitialize(count: count - 1)
    channels.deallocate()
  }
}
