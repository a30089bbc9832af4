import Culvert

/// The tunnels of one process: the innermost first, which has the TUN, and the outermost last,
/// which has the sockets. Mostly they are one and the same. Between a tunnel and the one around it
/// stands a channel, which is the inner one's socket.
struct Hops: BitwiseCopyable {
  /// More than anybody nests: each hop takes 60 or 80 bytes of every packet.
  static let maximum = 4

  let interfaces: UnsafeMutablePointer<Interface>
  /// One fewer: that at index i is between the interfaces i and i + 1.
  let channels: UnsafeMutablePointer<DatagramChannel>
  let count: Int
  /// What the innermost has in the place of a TUN, if anything.
  let forwarding: Forwarding?

  var innermost: UnsafeMutablePointer<Interface> { interfaces }
  var outermost: UnsafeMutablePointer<Interface> { interfaces + (count - 1) }
  var isNested: Bool { count > 1 }

  subscript(hop: Int) -> UnsafeMutablePointer<Interface> { interfaces + hop }

  /// When any of them has something to do.
  func nextDeadline(at now: Instant) -> Deadline {
    var next = interfaces.pointee.tunnel.nextDeadline(at: now)
    if let forwarding { next = min(next, forwarding.nextDeadline) }
    guard isNested else { return next }
    for hop in 1..<count { next = min(next, self[hop].pointee.tunnel.nextDeadline(at: now)) }
    for hop in 0..<count - 1 { next = min(next, (channels + hop).pointee.nextDeadline) }
    return next
  }

  /// A mark that is set on a hop without sockets is meant for those that its datagrams leave by:
  /// wg-quick(8) marks the innermost. The outermost's own comes first.
  func followMark(at now: Instant) {
    guard isNested else { return }
    var mark = outermost.pointee.firewallMark
    var hop = 0
    while mark == 0, hop < count - 1 {
      mark = self[hop].pointee.firewallMark
      hop += 1
    }
    let outermost = outermost
    guard mark != outermost.pointee.sockets.mark else { return }
    do throws(SystemError) { try outermost.pointee.sockets.setMark(mark) } catch {
      outermost.pointee.report(error, "cannot set the firewall mark", at: now)
    }
  }

  var hasEvents: Bool {
    for hop in 0..<count where self[hop].pointee.tunnel.hasEvents { return true }
    return false
  }

  /// A peer that is gone takes its fragments along (F10).
  func forgetRemovedSenders() {
    guard isNested else { return }
    for hop in 1..<count where self[hop].pointee.takeRemovals() {
      let interface = self[hop]
      (channels + (hop - 1)).pointee.reassembler.removeAll(fromSenders: {
        !interface.pointee.tunnel.hasSender($0)
      })
    }
  }
}

/// Start and end.
extension Hops {
  /// Puts the hops together. They take over the tunnels and channels of `memory`.
  init(
    _ memory: DriverMemory, _ tun: consuming TunDevice, _ log: Log, _ options: ServiceOptions
  ) {
    count = memory.hopCount
    channels = memory.channels
    forwarding = memory.forwarding
    interfaces = .allocate(capacity: memory.hopCount)
    var tun = Optional(tun)
    for hop in 0..<memory.hopCount {
      var log = log
      if let name = log.name.ofHop(hop) { log.name = name }
      (interfaces + hop).initialize(
        to: Interface(
          tunnel: (memory.tunnels + hop).move(), tun: tun.take() ?? .none,
          sockets: UDPSockets(
            bufferByteCount: Int32(options.socketBufferByteCount), offloads: options.offloads),
          channel: hop + 1 < memory.hopCount ? memory.channels + hop : nil, log: log,
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

  /// - Parameter cipher: what transport data is sealed and opened with.
  func start(cipher: TransportCipher) {
    var entropy = Entropy.sodium
    for hop in 0..<count {
      self[hop].pointee.tunnel.start()
      self[hop].pointee.tunnel.cipher = cipher
      if let floor = self[hop].pointee.stamps.read() {
        self[hop].pointee.tunnel.restoreTimestamp(floor)
      }
      if hop + 1 < count { (channels + hop).pointee.start(seed: entropy.uint64()) }
    }
  }

  /// The tunnels around the innermost have no interface that could be up or down: they are up.
  func setOuterUp(at now: Instant) {
    guard isNested else { return }
    for hop in 1..<count { self[hop].pointee.setUp(true, at: now) }
  }
}

/// What SIGUSR1 asks for.
extension Hops {
  /// Every verdict that was given at least once, on standard error, by hop where there are several.
  func writeCounters() {
    for hop in 0..<count {
      for value in 0..<Verdict.count {
        guard let verdict = Verdict(rawValue: value) else { continue }
        writeCounter(hop, verdict.name, self[hop].pointee.tunnel.counters[verdict])
      }
      if hop + 1 < count { writeCounters(of: channels + hop, hop) }
    }
    writeForwardCounters()
  }

  /// - Parameter prefix: of each name.
  func writeCounters(
    of channel: UnsafeMutablePointer<DatagramChannel>, _ hop: Int, prefix: StaticString = ""
  ) {
    for value in 0..<DatagramVerdict.count {
      guard let verdict = DatagramVerdict(rawValue: value) else { continue }
      writeCounter(hop, verdict.name, channel.pointee.counters[verdict], prefix: prefix)
    }
    for value in 0..<FragmentVerdict.count {
      guard let verdict = FragmentVerdict(rawValue: value) else { continue }
      writeCounter(hop, verdict.name, channel.pointee.reassembler.counters[verdict], prefix: prefix)
    }
  }

  func writeCounter(
    _ hop: Int, _ name: StaticString, _ count: UInt64, prefix: StaticString = ""
  ) {
    guard count > 0 else { return }
    Output.writeLine(to: Output.standardError) {
      if isNested {
        $0.append(self[hop].pointee.log.name)
        $0.append(" ")
      }
      $0.append(prefix)
      $0.append(name)
      $0.append(" ")
      $0.append(decimal: count)
    }
  }
}

/// Hops without a TUN: the innermost tunnel's packets are those of local clients.
extension Hops {
  var isForwarding: Bool { forwarding != nil }

  /// The addresses that clients' datagrams are sent from: the first of each family.
  func setAddresses(
    _ settings: ConfigFileSettings, of forwarding: Forwarding
  ) {
    for index in settings.addresses.indices.reversed() {
      let address = settings.addresses[index].address
      forwarding.channel.pointee.setAddress(address)
      if address.family == .ipv6 { innermost.pointee.hasIPv6 = true }
    }
  }

  /// Bytes of the largest packet of the innermost tunnel.
  func setMTU(_ mtu: Int, of forwarding: Forwarding) {
    let mtu = min(mtu, innermost.pointee.tunnel.limits.maximumMTU)
    innermost.pointee.tunnel.setMTU(mtu)
    // What was learned about paths is kept where nothing has changed.
    if forwarding.channel.pointee.mtu != mtu { forwarding.channel.pointee.setMTU(mtu) }
  }

  /// What became of flows, of their clients' datagrams, and of the packets and fragments of both.
  func writeForwardCounters() {
    guard let forwarding else { return }
    for value in 0..<FlowVerdict.count {
      guard let verdict = FlowVerdict(rawValue: value) else { continue }
      writeCounter(0, verdict.name, forwarding.counters[verdict])
    }
    writeCounters(of: forwarding.channel, 0, prefix: "forward-")
  }
}
