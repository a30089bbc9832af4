import Culvert

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
  @inline(never)
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

  @inline(never)
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
