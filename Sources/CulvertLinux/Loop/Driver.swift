import Culvert

/// A running tunnel: what its workers share, and the control path, which is run by the worker that
/// leads (see `Worker`).
///
/// It lives behind a pointer, at which all workers look. The parts that more than one of them use
/// at a time are the interface's tunnel, under its lock, and what `Gates` keeps in order; the rest
/// belongs to the leader. What concerns sockets, settings and timers the leader does alone, with
/// no batch on its way (`quiesce`).
public struct Driver: ~Copyable {
  let hops: Hops
  let gates: Gates
  private let workers: UnsafeMutablePointer<Worker>
  let workerCount: Int
  private let uapi: UAPIServers
  private let epoll: Epoll
  private let alarm: UnsafeMutablePointer<Alarm>
  private let signals: Signals
  private var netlink: Netlink
  private var linkIndex: UInt32
  private let isForeground: Bool
  /// Written by the leader while it leads, read by each worker when it comes to lead.
  private(set) var isRunning = true
  private var turns = 0
  /// What has been seen of the hops' endpoint changes.
  private var seenEndpointChanges: UInt64 = 0
  /// The MTU of the way may have changed; and when it was last looked at.
  private var wantsMTU = false
  private var lastMTU = Instant(nanoseconds: 0)
  /// Batches that have set out, the leader's count.
  private var outboundTickets: UInt64 = 0
  private var inboundTickets: UInt64 = 0

  /// Between two looks at the MTU of the way.
  private static let timeBetweenMTUs = nanosecondsPerSecond
  /// Batches of one lane in a row before the others get their turn.
  static let batchesPerTurn = 4

  /// Carves what the shell and the tunnel need, in the order of the locked part first.

  /// What the kernel gives the loop to wait with.
  private struct Waits: ~Copyable {
    let epoll: Epoll
    let timer: Timer
    let signals: Signals
    let netlink: Netlink
    let linkIndex: UInt32

    init(_ tun: borrowing TunDevice) throws(SystemError) {
      let epoll = try Epoll()
      let timer = try Timer()
      let signals = try Signals()
      let netlink = try Waits.watch(tun)
      // No interface has the index 0.
      linkIndex = tun.isOpen ? try tun.interfaceIndex() : 0
      self.epoll = epoll
      self.timer = timer
      self.signals = signals
      self.netlink = netlink
    }

    /// In the interface's own namespace, which for an adopted one may be another.
    private static func watch(_ tun: borrowing TunDevice) throws(SystemError) -> Netlink {
      guard tun.isOpen else { return try Netlink.open() }
      do throws(SystemError) {
        return try Netlink.open(in: try tun.namespaceDescriptor())
      } catch {
        // Linux before 5.0, or no right to enter namespaces: taken to be in ours.
        return try Netlink.open()
      }
    }
  }

  /// What the tunnel is put together from, besides its memory.
  struct Parts: ~Copyable {
    let tun: TunDevice
    /// One for each hop.
    let uapi: UAPIServers
    /// Of the innermost, with its name.
    let log: Log
    let options: ServiceOptions
  }

  /// Puts a tunnel together from its parts and starts it, without workers: it can be configured
  /// then. Start-up: the arena is not sealed yet. `destroy` is its end.
  static func make(
    _ memory: DriverMemory, _ parts: consuming Parts
  ) throws(SystemError) -> UnsafeMutablePointer<Driver> {
    let waits = try Waits(parts.tun)
    // It owns descriptors, so it is no plain value that the arena could hold.
    let driver = UnsafeMutablePointer<Driver>.allocate(capacity: 1)
    driver.initialize(to: Driver(memory, parts, waits: waits))
    do throws(SystemError) {
      try driver.pointee.start()
    } catch {
      destroy(driver)
      throw error
    }
    return driver
  }

  /// Starts all workers but the first, which the caller becomes with `run`.
  static func startWorkers(_ driver: UnsafeMutablePointer<Driver>) throws(SystemError) {
    try Worker.start(driver, driver.pointee.workers, driver.pointee.workerCount)
  }

  /// Reads the configuration files.
  ///
  /// - Parameter memory: `ConfigFile.byteCount` bytes of locked memory; wiped.
  mutating func configure(
    _ options: ServiceOptions, memory: UnsafeMutableRawBufferPointer
  ) throws(HopFailure) {
    let now = Clock.boottime()
    try hops.configure(options, memory: memory, at: now)
    hops.followMark(at: now)
    followMTU(at: now)
    // A listen port from a file means other sockets.
    registerSockets()
  }

  public static func destroy(_ driver: UnsafeMutablePointer<Driver>) {
    let hops = driver.pointee.hops
    let alarm = driver.pointee.alarm
    driver.deinitialize(count: 1)
    driver.deallocate()
    alarm.deinitialize(count: 1)
    alarm.deallocate()
    hops.destroy()
  }

  private init(
    _ memory: DriverMemory, _ parts: consuming Parts, waits: consuming Waits
  ) {
    workers = memory.workers
    workerCount = memory.workerCount
    gates = memory.gates
    uapi = parts.uapi
    epoll = waits.epoll
    alarm = .allocate(capacity: 1)
    alarm.initialize(to: Alarm(waits.timer))
    signals = waits.signals
    netlink = waits.netlink
    linkIndex = waits.linkIndex
    isForeground = parts.options.isForeground
    hops = Hops(memory, parts.tun, parts.log, parts.options)
  }

  private mutating func start() throws(SystemError) {
    gates.prepare()
    hops.start(cipher: workers.pointee.measureCipher())
    proveOffloads()
    try uapi.register(in: epoll)
    try epoll.add(alarm.pointee.raw, token: Token.timer)
    try epoll.add(signals.raw, token: Token.signals)
    try epoll.add(netlink.raw, token: Token.netlink)
    let now = Clock.boottime()
    hops.setOuterUp(at: now)
    if !hops.isForwarding {
      try epoll.add(hops.innermost.pointee.tun.raw, token: Token.tun)
      hops.innermost.pointee.apply(try hops.innermost.pointee.tun.state(), at: now)
    }
    registerSockets()
  }

  /// Opens the sockets of what is forwarded. Before the configuration, which may look up names.
  func listen(_ options: ServiceOptions) throws(ForwardFailure) {
    try hops.forwarding?.start(
      options.forwards, bufferByteCount: options.socketBufferByteCount, in: epoll)
  }

  /// Checks, once all is configured, that it can be forwarded, and begins.
  mutating func startForwarding(_ mappings: ForwardList) throws(ForwardFailure) {
    try hops.forwarding?.check(mappings, hops.innermost.pointee.tunnel)
    hops.innermost.pointee.setUp(true, at: Clock.boottime())
    registerSockets()
  }

  private func proveOffloads() {
    let outermost = hops.outermost
    let offloads = outermost.pointee.sockets.sending.union(outermost.pointee.sockets.receiving)
    var result = LaneResult()
    result.lost = workers.pointee.refutedOffloads(offloads)
    outermost.pointee.sockets.stopSending(result.lost)
    outermost.pointee.sockets.stopReceiving(result.lost)
    outermost.pointee.report(result, "starting failed", at: Clock.boottime())
  }

  // MARK: Leading

  /// Runs until a signal, the interface or the socket's file ends it.
  public static func run(_ driver: UnsafeMutablePointer<Driver>) {
    Worker.run(driver, driver.pointee.workers, driver.pointee.workerCount)
    driver.pointee.finish()
  }

  private mutating func finish() {
    // A clean end is where the next start goes on; only after a crash it has to skip ahead.
    for hop in 0..<hops.count {
      if let stamp = hops[hop].pointee.tunnel.lastTimestamp {
        _ = hops[hop].pointee.stamps.write(stamp)
      }
    }
    if hops.isForwarding { hops.writeCounters() }
  }

  /// Sees to it that somebody wakes at the tunnel's next deadline. Under the tunnel's lock.
  func armTimer(at now: Instant) {
    alarm.pointee.arm(nextDeadline(at: now))
  }

  /// Waits for events; how many there are.
  func wait(into events: UnsafeMutableBufferPointer<EpollEvent>) -> Int {
    let now = Clock.boottime()
    gates.tunnel.acquire()
    let deadline = nextDeadline(at: now)
    let isDue = deadline.isDue(at: now)
    if !isDue { alarm.pointee.arm(deadline) }
    gates.tunnel.release()
    return max(0, epoll.wait(into: events, timeoutMilliseconds: isDue ? 0 : -1))
  }

  /// Lets the batches on their way arrive: afterwards nobody but the leader uses anything.
  private func quiesce() {
    gates.outbound.enter(outboundTickets)
    gates.inbound.enter(inboundTickets)
  }

  mutating func takeOutboundTicket() -> UInt64 {
    defer { outboundTickets &+= 1 }
    return outboundTickets
  }

  mutating func takeInboundTicket() -> UInt64 {
    defer { inboundTickets &+= 1 }
    return inboundTickets
  }

  /// A number that differs from turn to turn, not negative.
  mutating func countTurn() -> Int {
    turns = (turns &+ 1) & 0xffff
    return turns
  }

  // MARK: The control path

  /// Everything but packets and datagrams.
  mutating func handle(_ event: EpollEvent) {
    quiesce()
    handleAlone(event)
  }

  private mutating func handleAlone(_ event: EpollEvent) {
    if let descriptor = Token.uapi(event.token) { return handle(descriptor) }
    switch event.token {
    case Token.timer:
      alarm.pointee.acknowledge()
    case Token.signals: handleSignals()
    case Token.netlink: handleNetlink()
    default: break
    }
  }

  private mutating func handle(_ descriptor: Token.UAPI) {
    let now = Clock.boottime()
    switch descriptor {
    case .listener(let hop):
      uapi[hop].pointee.accept(&hops[hop].pointee, epoll, at: now)
    case .listenerWatch(let hop):
      if !uapi[hop].pointee.isPresent() { stop("the configuration socket was deleted") }
    case .connection(let hop, let index):
      uapi[hop].pointee.serve(index, &hops[hop].pointee, epoll, at: now)
      uapi[hop].pointee.acceptWaiting(&hops[hop].pointee, epoll, at: now)
    }
    hops.forgetRemovedSenders()
    hops.followMark(at: now)
    if hasMoved { followMTU(at: now) }
    registerSockets()
  }

  /// Another endpoint may be of another family, or its way have another MTU.
  private var hasMoved: Bool {
    (hops.isNested || hops.isForwarding)
      && (wantsMTU || hops.endpointChanges != seenEndpointChanges)
  }

  /// When the MTU of the way may be looked at again.
  private var nextMTU: Deadline { .after(Driver.timeBetweenMTUs, from: lastMTU) }

  /// When there is something to do for `advance`.
  private func nextDeadline(at now: Instant) -> Deadline {
    let next = hops.nextDeadline(at: now)
    return hasMoved ? min(next, nextMTU) : next
  }

  private mutating func followMTU(at now: Instant) {
    seenEndpointChanges = hops.endpointChanges
    wantsMTU = false
    lastMTU = now
    hops.followMTU(at: now)
  }

  /// Handshakes, timers, staged packets: as many batches as the TUN has had, so that packets
  /// staged by one turn are on their way before the next.
  mutating func advance(_ lane: UnsafeMutablePointer<OutboundLane>) {
    gates.tunnel.acquire()
    let now = Clock.boottime()
    let isDue = nextDeadline(at: now).isDue(at: now)
    let hasEvents = hops.hasEvents
    // Seldom: whoever can make a peer roam, or an interface change, shall not keep us busy.
    let hasMoved = hasMoved && nextMTU.isDue(at: now)
    gates.tunnel.release()
    guard isDue || hasEvents || hasMoved else { return }
    quiesce()
    if hasMoved { followMTU(at: now) }
    for hop in 0..<hops.count {
      advance(hop, lane)
      if hop > 0 { advanceChannel(hops.channels + (hop - 1), into: hop, lane) }
    }
    guard let forwarding = hops.forwarding else { return }
    advanceChannel(forwarding.channel, into: 0, lane)
    forwarding.advance(at: Clock.boottime())
  }

  private func advance(_ hop: Int, _ lane: UnsafeMutablePointer<OutboundLane>) {
    let interface = hops[hop]
    let now = Clock.boottime()
    for _ in 0..<Driver.batchesPerTurn {
      guard interface.pointee.tunnel.nextDeadline(at: now).isDue(at: now) else { break }
      lane.pointee.advance(&interface.pointee.tunnel, of: hop, at: now)
      // Stored before it is sent: a stamp that went out and was forgotten would be refused when it
      // is used again (R28).
      var result = LaneResult()
      if let stamp = interface.pointee.tunnel.timestampToPersist() {
        result.stampError = interface.pointee.stamps.write(stamp)
      }
      sendAlone(hop, lane, &result, at: now)
      // More messages wait, each with its key agreement: packets come first again.
      if interface.pointee.tunnel.hasHandshakes { break }
    }
    while let event = interface.pointee.tunnel.nextEvent() {
      interface.pointee.log(event, at: now)
    }
  }

  /// What has not been put together in time, in a channel of this hop.
  private func advanceChannel(
    _ channel: UnsafeMutablePointer<DatagramChannel>, into hop: Int,
    _ lane: UnsafeMutablePointer<OutboundLane>
  ) {
    let now = Clock.boottime()
    guard channel.pointee.nextDeadline.isDue(at: now) else { return }
    lane.pointee.advance(channel, &hops[hop].pointee.tunnel, of: hop, at: now)
    var result = LaneResult()
    sendAlone(hop, lane, &result, at: now)
  }

  /// Sends what stands in one hop's batch, with no other batch on its way.
  private func sendAlone(
    _ hop: Int, _ lane: UnsafeMutablePointer<OutboundLane>, _ result: inout LaneResult,
    at now: Instant
  ) {
    while lane.pointee.seal(of: hop) {
      lane.pointee.send(of: hop, hops, gates.tunnel, &result, at: now)
    }
    lane.pointee.emit(of: hop, &hops[hop].pointee.tunnel, at: now)
    hops.outermost.pointee.sockets.stopSending(result.lost)
    hops[hop].pointee.report(result, "sending failed", at: now)
  }

  /// The interface's queue reported an error: it may be gone.
  mutating func checkPresence(_ error: SystemError?, _ event: EpollEvent) {
    let isGone = event.readiness.contains(.failed) && !hops.innermost.pointee.tun.isAttached
    if error == .EBADFD || isGone {
      quiesce()
      stop("the interface was deleted")
    }
  }

  /// Ends a start that failed half way.
  mutating func cancel() { isRunning = false }

  private mutating func stop(_ reason: StaticString) {
    isRunning = false
    hops.innermost.pointee.log.verbose(at: Clock.boottime()) { $0.append(reason) }
  }

  // MARK: Events of the system

  private mutating func handleSignals() {
    while let signal = signals.next() {
      switch signal {
      case .terminate: stop("terminated")
      case .interrupt: stop("interrupted")
      case .hangup: if isForeground { stop("the terminal is gone") }
      case .counters: hops.writeCounters()
      }
    }
  }

  private mutating func handleNetlink() {
    while isRunning {
      let now = Clock.boottime()
      switch netlink.next(about: linkIndex) {
      case .drained: return
      case .unrelated:
        // Of the interface, perhaps, that the outermost datagrams leave by.
        wantsMTU = true
      case .linkChanged(let state):
        hops.innermost.pointee.apply(state, at: now)
        registerSockets()
      case .linkDeleted: handleDeparture(at: now)
      case .overflow, .failed:
        readState(at: now)
        return
      }
    }
  }

  /// The interface is gone from this namespace: deleted, or moved to another one, where it is
  /// followed. The sockets stay where they were born.
  private mutating func handleDeparture(at now: Instant) {
    guard hops.innermost.pointee.tun.isAttached else {
      stop("the interface was deleted")
      return
    }
    do throws(SystemError) {
      let namespace = try hops.innermost.pointee.tun.followNamespace()
      let moved = try Netlink.open(in: namespace)
      try epoll.add(moved.raw, token: Token.netlink)
      netlink = moved
      linkIndex = try hops.innermost.pointee.tun.interfaceIndex()
      readState(at: now)
    } catch {
      hops.innermost.pointee.log.error(at: now) {
        $0.append("the interface moved to a namespace that cannot be watched: ")
        $0.append(error)
      }
    }
  }

  private mutating func readState(at now: Instant) {
    if hops.isForwarding { return hops.followMTU(at: now) }
    do throws(SystemError) {
      hops.innermost.pointee.apply(try hops.innermost.pointee.tun.state(), at: now)
      registerSockets()
    } catch {
      if !hops.innermost.pointee.tun.isAttached { stop("the interface was deleted") }
    }
  }

  private mutating func registerSockets() {
    guard hops.outermost.pointee.hasNewSockets else { return }
    hops.outermost.pointee.hasNewSockets = false
    do throws(SystemError) {
      if hops.outermost.pointee.sockets.ipv4.isOpen {
        try epoll.add(hops.outermost.pointee.sockets.ipv4.raw, token: Token.ipv4)
      }
      if hops.outermost.pointee.sockets.ipv6.isOpen {
        try epoll.add(hops.outermost.pointee.sockets.ipv6.raw, token: Token.ipv6)
      }
    } catch {
      hops.innermost.pointee.report(error, "cannot watch the sockets", at: Clock.boottime())
    }
  }
}
