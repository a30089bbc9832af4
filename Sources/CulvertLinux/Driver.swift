import Culvert

/// The one thread of a running tunnel: it waits on epoll, runs both lanes and the control path,
/// and sleeps until the tunnel's next deadline when there is nothing to do.
public struct Driver: ~Copyable {
  private var interface: Interface
  private var outbound: OutboundLane
  private var inbound: InboundLane
  private var uapi: UAPIServer
  private let epoll: Epoll
  private var timer: Timer
  private let signals: Signals
  private var netlink: Netlink
  private var linkIndex: UInt32
  private let stamps: TimestampFile
  private let isForeground: Bool
  private let events: UnsafeMutableBufferPointer<EpollEvent>
  private var armed = Deadline.never
  private var isRunning = true

  /// Batches of one lane in a row before the others get their turn.
  private static let batchesPerTurn = 4

  /// Carves what the shell and the tunnel need, in the order of the locked part first.
  public struct Memory: ~Copyable {
    fileprivate let uapi: UnsafeMutableRawBufferPointer
    fileprivate var tunnel: Tunnel
    fileprivate let outbound: OutboundBatch
    fileprivate let inbound: InboundBatch
    fileprivate let events: UnsafeMutableBufferPointer<EpollEvent>

    public init(carvingFrom arena: inout Arena, limits: Limits) {
      uapi = arena.carveBytes(UAPIServer.byteCount, owner: "secrets: configuration socket")
      var tunnel = Tunnel(carvingFrom: &arena, limits: limits)
      outbound = tunnel.makeOutboundBatch(carvingFrom: &arena)
      inbound = tunnel.makeInboundBatch(carvingFrom: &arena)
      self.tunnel = tunnel
      events = arena.carve(EpollEvent.self, count: 16, owner: "epoll events")
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

  /// Puts a tunnel together from its parts, and starts it.
  public static func make(
    _ memory: consuming Memory, tun: consuming TunDevice, uapi listener: consuming UAPIListener,
    log: Log, stamps: TimestampFile, isForeground: Bool, bufferByteCount: Int32
  ) throws(SystemError) -> Driver {
    let waits = try Waits(tun)
    var driver = Driver(
      memory, tun: tun, uapi: listener, waits: waits, log: log, stamps: stamps,
      isForeground: isForeground, bufferByteCount: bufferByteCount)
    try driver.start()
    return driver
  }

  private init(
    _ memory: consuming Memory, tun: consuming TunDevice, uapi listener: consuming UAPIListener,
    waits: consuming Waits, log: Log, stamps: TimestampFile, isForeground: Bool,
    bufferByteCount: Int32
  ) {
    events = memory.events
    uapi = UAPIServer(listener, memory: memory.uapi)
    outbound = OutboundLane(memory.outbound)
    inbound = InboundLane(memory.inbound)
    epoll = waits.epoll
    timer = waits.timer
    signals = waits.signals
    netlink = waits.netlink
    linkIndex = waits.linkIndex
    self.stamps = stamps
    self.isForeground = isForeground
    interface = Interface(
      tunnel: memory.tunnel, tun: tun,
      sockets: UDPSockets(bufferByteCount: bufferByteCount), log: log)
  }

  private mutating func start() throws(SystemError) {
    interface.tunnel.start()
    if let floor = stamps.read() { interface.tunnel.restoreTimestamp(floor) }
    try uapi.register(in: epoll)
    try epoll.add(interface.tun.raw, token: Token.tun)
    try epoll.add(timer.raw, token: Token.timer)
    try epoll.add(signals.raw, token: Token.signals)
    try epoll.add(netlink.raw, token: Token.netlink)
    interface.apply(try interface.tun.state(), at: Clock.boottime())
    registerSockets()
  }

  // MARK: The loop

  /// Runs until a signal, the interface or the socket's file ends it.
  public mutating func run() {
    while isRunning {
      let now = Clock.boottime()
      let deadline = interface.tunnel.nextDeadline(at: now)
      let isDue = deadline.isDue(at: now)
      // An armed timer that fires early costs one look; arming it anew with every packet that
      // moves a deadline would cost a call each.
      if !isDue, deadline < armed || !armed.isSet {
        timer.arm(deadline)
        armed = deadline
      }
      let count = epoll.wait(into: events, timeoutMilliseconds: isDue ? 0 : -1)
      for index in 0..<max(0, count) { handle(events[index]) }
      advance()
    }
    // A clean end is where the next start goes on; only after a crash it has to skip ahead.
    if let stamp = interface.tunnel.lastTimestamp { _ = stamps.write(stamp) }
  }

  private mutating func handle(_ event: EpollEvent) {
    switch event.token {
    case Token.tun: handleTUN(event)
    case Token.ipv4: receive(.ipv4)
    case Token.ipv6: receive(.ipv6)
    case Token.timer:
      timer.acknowledge()
      armed = .never
    case Token.signals: handleSignals()
    case Token.netlink: handleNetlink()
    case Token.listener:
      uapi.accept(&interface, epoll, at: Clock.boottime())
      registerSockets()
    case Token.listenerWatch:
      if !uapi.isPresent() { stop("the configuration socket was deleted") }
    default:
      guard let index = Token.connectionIndex(event.token) else { return }
      let now = Clock.boottime()
      uapi.serve(index, &interface, epoll, at: now)
      uapi.acceptWaiting(&interface, epoll, at: now)
      registerSockets()
    }
  }

  private mutating func handleTUN(_ event: EpollEvent) {
    for _ in 0..<Driver.batchesPerTurn {
      let now = Clock.boottime()
      let result = outbound.run(
        &interface.tunnel, tun: interface.tun, sockets: interface.sockets, at: now)
      if result.error == .EBADFD {
        stop("the interface was deleted")
        return
      }
      interface.report(result.error, "sending failed", at: now)
      if result.isDrained { break }
    }
    if event.readiness.contains(.failed), !interface.tun.isAttached {
      stop("the interface was deleted")
    }
  }

  private mutating func receive(_ family: IPAddress.Family) {
    for _ in 0..<Driver.batchesPerTurn {
      let now = Clock.boottime()
      let result = inbound.run(
        &interface.tunnel, tun: interface.tun, sockets: interface.sockets, family, at: now)
      interface.report(result.error, "receiving failed", at: now)
      if result.isDrained { break }
    }
  }

  /// Handshakes, timers, staged packets: as many batches as the TUN has had, so that packets
  /// staged by one turn are on their way before the next.
  private mutating func advance() {
    let now = Clock.boottime()
    for _ in 0..<Driver.batchesPerTurn {
      guard interface.tunnel.nextDeadline(at: now).isDue(at: now) else { break }
      let result = outbound.advance(
        &interface.tunnel, tun: interface.tun, sockets: interface.sockets, stamps: stamps,
        at: now)
      interface.report(result.error, "sending failed", at: now)
      interface.report(result.stampError, "cannot store the handshake timestamp", at: now)
    }
    while let event = interface.tunnel.nextEvent() { interface.log(event, at: now) }
  }

  private mutating func stop(_ reason: StaticString) {
    isRunning = false
    interface.log.verbose(at: Clock.boottime()) { $0.append(reason) }
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
      let count = interface.tunnel.counters[verdict]
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
        interface.apply(state, at: now)
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
    guard interface.tun.isAttached else {
      stop("the interface was deleted")
      return
    }
    do throws(SystemError) {
      let namespace = try interface.tun.followNamespace()
      let moved = try Netlink.open(in: namespace)
      try epoll.add(moved.raw, token: Token.netlink)
      netlink = moved
      linkIndex = try interface.tun.interfaceIndex()
      readState(at: now)
    } catch {
      interface.log.error(at: now) {
        $0.append("the interface moved to a namespace that cannot be watched: ")
        $0.append(error)
      }
    }
  }

  private mutating func readState(at now: Instant) {
    do throws(SystemError) {
      interface.apply(try interface.tun.state(), at: now)
      registerSockets()
    } catch {
      if !interface.tun.isAttached { stop("the interface was deleted") }
    }
  }

  private mutating func registerSockets() {
    guard interface.hasNewSockets else { return }
    interface.hasNewSockets = false
    do throws(SystemError) {
      if interface.sockets.ipv4.isOpen {
        try epoll.add(interface.sockets.ipv4.raw, token: Token.ipv4)
      }
      if interface.sockets.ipv6.isOpen {
        try epoll.add(interface.sockets.ipv6.raw, token: Token.ipv6)
      }
    } catch {
      interface.report(error, "cannot watch the sockets", at: Clock.boottime())
    }
  }
}
