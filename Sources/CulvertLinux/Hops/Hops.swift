import Culvert

/// The nested tunnels of one process. The first is the innermost, which has the TUN; the last is
/// the outermost, which has the sockets. Without nesting they are the same. Between a hop and the
/// next outer one is a channel, which acts as the inner hop's socket.
///
/// This is a handle, of which every worker has a copy. The elements are accessed in place. To
/// access them, a worker must hold `Gates.tunnel`, or no batch may be in flight, except as
/// described in `Interface`.
struct Hops: BitwiseCopyable {
  /// More than anybody needs: each hop takes 60 or 80 bytes of every packet.
  static let maximum = 4

  private let interfaces: UnsafeMutablePointer<Interface>
  /// One fewer than there are hops: channel i is between the hops i and i + 1.
  let channels: UnsafeMutablePointer<DatagramChannel>
  let count: Int
  /// The innermost hop's replacement for a TUN; nil if it has a TUN.
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
  /// Whether the innermost hop has local clients instead of a TUN.
  var isForwarding: Bool { forwarding != nil }

  /// The earliest deadline of all tunnels, channels and flows.
  func nextDeadline(at now: Instant) -> Deadline {
    var next = min(innermost.tunnel.nextDeadline(at: now), outermost.bindDeadline)
    if let forwarding { next = min(next, forwarding.nextDeadline) }
    guard isNested else { return next }
    for hop in 1..<count { next = min(next, self[hop].tunnel.nextDeadline(at: now)) }
    for hop in 0..<count - 1 { next = min(next, channels[hop].nextDeadline) }
    return next
  }

  /// Applies the firewall mark of nested hops to the outermost hop's sockets. A mark on an inner
  /// hop is meant for these too, because its datagrams leave through them: wg-quick(8) marks the
  /// innermost hop. The outermost hop's own mark takes precedence.
  func updateMark(at now: Instant) {
    guard isNested else { return }
    var mark = outermost.firewallMark
    var hop = 0
    while mark == 0, hop < count - 1 {
      mark = self[hop].firewallMark
      hop += 1
    }
    guard mark != outermost.sockets.mark else { return }
    do throws(SystemError) { try outermost.setMarkOfSockets(mark) } catch {
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
          stamps: TimestampFile(log.name, hop: hop)))
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

  /// - Parameter cipher: the cipher for transport data.
  func start(cipher: TransportCipher) {
    var entropy = Entropy.sodium
    for hop in 0..<count {
      self[hop].tunnel.start()
      self[hop].tunnel.cipher = cipher
      self[hop].tunnel.waitForTimestampStorage()
      if hop + 1 < count { channels[hop].start(seed: entropy.uint64()) }
    }
  }

  /// Brings the outer hops up. They have no interface that could be up or down.
  func setOuterUp(at now: Instant) {
    guard isNested else { return }
    for hop in 1..<count { self[hop].setUp(true, at: now) }
  }

  // MARK: Counters

  /// Writes every counter that is not zero to standard error, for SIGUSR1. The hop's name is added
  /// if there are several hops.
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

/// The memory of the hops, carved from the arena. The secrets of all tunnels are first, because
/// they are locked in RAM.
struct HopMemory: BitwiseCopyable {
  /// One for each hop, the innermost first.
  let tunnels: UnsafeMutablePointer<Tunnel>
  /// One between each two.
  let channels: UnsafeMutablePointer<DatagramChannel>
  let count: Int
  /// Instead of a TUN; nil if there is one.
  let forwarding: Forwarding?

  init(carvingFrom arena: inout Arena, limits: Limits, count: Int, isForwarding: Bool) {
    precondition(count > 0 && count <= Hops.maximum)
    self.count = count
    // On the heap, which may be used before the arena is sealed: the arena can only contain trivial
    // values.
    tunnels = .allocate(capacity: count)
    channels = .allocate(capacity: count)
    HopMemory.carveTunnels(from: &arena, limits, tunnels, count)
    for index in 0..<count - 1 {
      (channels + index).initialize(to: DatagramChannel(carvingFrom: &arena, limits: limits))
    }
    forwarding = isForwarding ? Forwarding(carvingFrom: &arena, limits: limits) : nil
  }

  /// Carves the secrets of all tunnels first, so that they are one range, which is locked.
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

  /// Releases the heap memory of a value that was carved from a measuring arena.
  func discard() {
    forwarding?.destroy()
    tunnels.deinitialize(count: count)
    tunnels.deallocate()
    channels.deinitialize(count: count - 1)
    channels.deallocate()
  }
}
