import Culvert

/// A running tunnel: what its workers share, and the control path, which is run by the worker that
/// leads (see `Worker`).
///
/// It lives behind a pointer, at which all workers look. The parts that more than one of them use
/// at a time are the interface's tunnel, under its lock, and what `Gates` keeps in order; the rest
/// belongs to the leader. What concerns sockets, settings and timers the leader does alone, with
/// no batch on its way (`quiesce`).
public struct Driver: ~Copyable {
  let interface: UnsafeMutablePointer<Interface>
  let gates: Gates
  private let workers: UnsafeMutablePointer<Worker>
  let workerCount: Int
  private var uapi: UAPIServer
  private let epoll: Epoll
  private let alarm: UnsafeMutablePointer<Alarm>
  private let signals: Signals
  private var netlink: Netlink
  private var linkIndex: UInt32
  private let stamps: TimestampFile
  private let isForeground: Bool
  /// Written by the leader while it leads, read by each worker when it comes to lead.
  private(set) var isRunning = true
  private var turns = 0
  /// Batches that have set out, the leader's count.
  private var outboundTickets: UInt64 = 0
  private var inboundTickets: UInt64 = 0

  /// Batches of one lane in a row before the others get their turn.
  static let batchesPerTurn = 4

  /// Carves what the shell and the tunnel need, in the order of the locked part first.
  public struct Memory: ~Copyable {
    fileprivate let uapi: UnsafeMutableRawBufferPointer
    fileprivate var tunnel: Tunnel
    fileprivate let workers: UnsafeMutablePointer<Worker>
    fileprivate let workerCount: Int
    fileprivate let gates: Gates

    public init(carvingFrom arena: inout Arena, limits: Limits) {
      uapi = arena.carveBytes(UAPIServer.byteCount, owner: "secrets: configuration socket")
      var tunnel = Tunnel(carvingFrom: &arena, limits: limits)
      workerCount = limits.workers
      workers = arena.carveBytes(
        workerCount * MemoryLayout<Worker>.stride, owner: "workers: state"
      ).baseAddress!.assumingMemoryBound(to: Worker.self)
      for index in 0..<workerCount {
        let worker = Worker(carvingFrom: &arena, &tunnel, isFirst: index == 0)
        if !arena.isMeasuring { (workers + index).initialize(to: worker) }
      }
      gates = Gates(carvingFrom: &arena)
      self.tunnel = tunnel
    }
  }

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
      linkIndex = try tun.interfaceIndex()
      self.epoll = epoll
      self.timer = timer
      self.signals = signals
      self.netlink = netlink
    }

    /// In the interface's own namespace, which for an adopted one may be another.
    private static func watch(_ tun: borrowing TunDevice) throws(SystemError) -> Netlink {
      do throws(SystemError) {
        return try Netlink.open(in: try tun.namespaceDescriptor())
      } catch {
        // Linux before 5.0, or no right to enter namespaces: taken to be in ours.
        return try Netlink.open()
      }
    }
  }

  /// What the tunnel is put together from, besides its memory.
  public struct Parts: ~Copyable {
    let tun: TunDevice
    let uapi: UAPIListener
    let log: Log
    let stamps: TimestampFile
    let options: ServiceOptions

    public init(
      tun: consuming TunDevice, uapi: consuming UAPIListener, log: Log, stamps: TimestampFile,
      options: ServiceOptions
    ) {
      self.tun = tun
      self.uapi = uapi
      self.log = log
      self.stamps = stamps
      self.options = options
    }
  }

  /// Puts a tunnel together from its parts, and starts it and all its workers but the first, which
  /// the caller becomes with `run`. Start-up: the arena is not sealed yet. `destroy` is its end.
  public static func make(
    _ memory: consuming Memory, _ parts: consuming Parts
  ) throws(SystemError) -> UnsafeMutablePointer<Driver> {
    let waits = try Waits(parts.tun)
    // Both own descriptors, so neither is a plain value that the arena could hold.
    let driver = UnsafeMutablePointer<Driver>.allocate(capacity: 1)
    driver.initialize(to: Driver(memory, parts, waits: waits))
    do throws(SystemError) {
      try driver.pointee.start()
      try Worker.start(driver, driver.pointee.workers, driver.pointee.workerCount)
    } catch {
      destroy(driver)
      throw error
    }
    return driver
  }

  public static func destroy(_ driver: UnsafeMutablePointer<Driver>) {
    let interface = driver.pointee.interface
    let alarm = driver.pointee.alarm
    driver.deinitialize(count: 1)
    driver.deallocate()
    alarm.deinitialize(count: 1)
    alarm.deallocate()
    interface.deinitialize(count: 1)
    interface.deallocate()
  }

  private init(
    _ memory: consuming Memory, _ parts: consuming Parts, waits: consuming Waits
  ) {
    workers = memory.workers
    workerCount = memory.workerCount
    gates = memory.gates
    uapi = UAPIServer(parts.uapi, memory: memory.uapi)
    epoll = waits.epoll
    alarm = .allocate(capacity: 1)
    alarm.initialize(to: Alarm(waits.timer))
    signals = waits.signals
    netlink = waits.netlink
    linkIndex = waits.linkIndex
    stamps = parts.stamps
    isForeground = parts.options.isForeground
    interface = .allocate(capacity: 1)
    interface.initialize(
      to: Interface(
        tunnel: memory.tunnel, tun: parts.tun,
        sockets: UDPSockets(
          bufferByteCount: Int32(parts.options.socketBufferByteCount),
          offloads: parts.options.offloads),
        log: parts.log))
  }

  private mutating func start() throws(SystemError) {
    gates.prepare()
    interface.pointee.tunnel.start()
    interface.pointee.tunnel.cipher = workers.pointee.measureCipher()
    proveOffloads()
    if let floor = stamps.read() { interface.pointee.tunnel.restoreTimestamp(floor) }
    try uapi.register(in: epoll)
    try epoll.add(interface.pointee.tun.raw, token: Token.tun)
    try epoll.add(alarm.pointee.raw, token: Token.timer)
    try epoll.add(signals.raw, token: Token.signals)
    try epoll.add(netlink.raw, token: Token.netlink)
    interface.pointee.apply(try interface.pointee.tun.state(), at: Clock.boottime())
    registerSockets()
  }

  private func proveOffloads() {
    let offloads = interface.pointee.sockets.sending.union(interface.pointee.sockets.receiving)
    var result = LaneResult()
    result.lost = workers.pointee.refutedOffloads(offloads)
    interface.pointee.sockets.stopSending(result.lost)
    interface.pointee.sockets.stopReceiving(result.lost)
    interface.pointee.report(result, "starting failed", at: Clock.boottime())
  }

  // MARK: Leading

  /// Runs until a signal, the interface or the socket's file ends it.
  public static func run(_ driver: UnsafeMutablePointer<Driver>) {
    Worker.run(driver, driver.pointee.workers, driver.pointee.workerCount)
    driver.pointee.finish()
  }

  private mutating func finish() {
    // A clean end is where the next start goes on; only after a crash it has to skip ahead.
    if let stamp = interface.pointee.tunnel.lastTimestamp { _ = stamps.write(stamp) }
  }

  /// Sees to it that somebody wakes at the tunnel's next deadline. Under the tunnel's lock.
  func armTimer(at now: Instant) {
    alarm.pointee.arm(interface.pointee.tunnel.nextDeadline(at: now))
  }

  /// Waits for events; how many there are.
  func wait(into events: UnsafeMutableBufferPointer<EpollEvent>) -> Int {
    let now = Clock.boottime()
    gates.tunnel.acquire()
    let deadline = interface.pointee.tunnel.nextDeadline(at: now)
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
    // A copy: with the thread sanitizer Swift 6.3 takes `&interface.pointee` for an access to self.
    let interface = interface
    switch event.token {
    case Token.timer:
      alarm.pointee.acknowledge()
    case Token.signals: handleSignals()
    case Token.netlink: handleNetlink()
    case Token.listener:
      uapi.accept(&interface.pointee, epoll, at: Clock.boottime())
      registerSockets()
    case Token.listenerWatch:
      if !uapi.isPresent() { stop("the configuration socket was deleted") }
    default:
      guard let index = Token.connectionIndex(event.token) else { return }
      let now = Clock.boottime()
      uapi.serve(index, &interface.pointee, epoll, at: now)
      uapi.acceptWaiting(&interface.pointee, epoll, at: now)
      registerSockets()
    }
  }

  /// Handshakes, timers, staged packets: as many batches as the TUN has had, so that packets
  /// staged by one turn are on their way before the next.
  mutating func advance(_ lane: UnsafeMutablePointer<OutboundLane>) {
    gates.tunnel.acquire()
    let isDue = interface.pointee.tunnel.nextDeadline(at: Clock.boottime())
      .isDue(at: Clock.boottime())
    let hasEvents = interface.pointee.tunnel.hasEvents
    gates.tunnel.release()
    guard isDue || hasEvents else { return }
    quiesce()
    let now = Clock.boottime()
    for _ in 0..<Driver.batchesPerTurn {
      guard interface.pointee.tunnel.nextDeadline(at: now).isDue(at: now) else { break }
      var result = LaneResult()
      lane.pointee.advance(&interface.pointee.tunnel, at: now)
      // Stored before it is sent: a stamp that went out and was forgotten would be refused when it
      // is used again (R28).
      if let stamp = interface.pointee.tunnel.timestampToPersist() {
        result.stampError = stamps.write(stamp)
      }
      while lane.pointee.seal() { lane.pointee.send(interface, &result) }
      lane.pointee.emit(&interface.pointee.tunnel, at: now)
      interface.pointee.sockets.stopSending(result.lost)
      interface.pointee.report(result, "sending failed", at: now)
      // More messages wait, each with its key agreement: packets come first again.
      if interface.pointee.tunnel.hasHandshakes { break }
    }
    while let event = interface.pointee.tunnel.nextEvent() {
      interface.pointee.log(event, at: now)
    }
  }

  /// The interface's queue reported an error: it may be gone.
  mutating func checkPresence(_ error: SystemError?, _ event: EpollEvent) {
    if error == .EBADFD || (event.readiness.contains(.failed) && !interface.pointee.tun.isAttached)
    {
      quiesce()
      stop("the interface was deleted")
    }
  }

  /// Ends a start that failed half way.
  mutating func cancel() { isRunning = false }

  private mutating func stop(_ reason: StaticString) {
    isRunning = false
    interface.pointee.log.verbose(at: Clock.boottime()) { $0.append(reason) }
  }

  // MARK: Events of the system

  private mutating func handleSignals() {
    while let signal = signals.next() {
      switch signal {
      case .terminate: stop("terminated")
      case .interrupt: stop("interrupted")
      case .hangup: if isForeground { stop("the terminal is gone") }
      case .counters: writeCounters()
      }
    }
  }

  /// Every verdict that was given at least once, on standard error.
  private func writeCounters() {
    for value in 0..<Verdict.count {
      guard let verdict = Verdict(rawValue: value) else { continue }
      let count = interface.pointee.tunnel.counters[verdict]
      guard count > 0 else { continue }
      Output.writeLine(to: Output.standardError) {
        $0.append(verdict.name)
        $0.append(" ")
        $0.append(decimal: count)
      }
    }
  }

  private mutating func handleNetlink() {
    while isRunning {
      let now = Clock.boottime()
      switch netlink.next(about: linkIndex) {
      case .drained: return
      case .unrelated: break
      case .linkChanged(let state):
        interface.pointee.apply(state, at: now)
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
    guard interface.pointee.tun.isAttached else {
      stop("the interface was deleted")
      return
    }
    do throws(SystemError) {
      let namespace = try interface.pointee.tun.followNamespace()
      let moved = try Netlink.open(in: namespace)
      try epoll.add(moved.raw, token: Token.netlink)
      netlink = moved
      linkIndex = try interface.pointee.tun.interfaceIndex()
      readState(at: now)
    } catch {
      interface.pointee.log.error(at: now) {
        $0.append("the interface moved to a namespace that cannot be watched: ")
        $0.append(error)
      }
    }
  }

  private mutating func readState(at now: Instant) {
    do throws(SystemError) {
      interface.pointee.apply(try interface.pointee.tun.state(), at: now)
      registerSockets()
    } catch {
      if !interface.pointee.tun.isAttached { stop("the interface was deleted") }
    }
  }

  private mutating func registerSockets() {
    guard interface.pointee.hasNewSockets else { return }
    interface.pointee.hasNewSockets = false
    do throws(SystemError) {
      if interface.pointee.sockets.ipv4.isOpen {
        try epoll.add(interface.pointee.sockets.ipv4.raw, token: Token.ipv4)
      }
      if interface.pointee.sockets.ipv6.isOpen {
        try epoll.add(interface.pointee.sockets.ipv6.raw, token: Token.ipv6)
      }
    } catch {
      interface.pointee.report(error, "cannot watch the sockets", at: Clock.boottime())
    }
  }
}
