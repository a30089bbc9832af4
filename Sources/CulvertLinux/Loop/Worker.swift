import CLinux
import Culvert

/// One thread of a running tunnel, with a batch of either lane.
///
/// One worker at a time leads: it waits for events and reads what is there. While there is little
/// to do it also carries its batch to the end, and the others sleep: a lone packet goes straight
/// through one thread. A batch that is worth it is taken along while the next worker leads. Tickets
/// keep the order, and nothing is handed from thread to thread.
struct Worker: ~Copyable {
  var outbound: OutboundLane
  private var inbound: InboundLane
  private let events: UnsafeMutableBufferPointer<EpollEvent>
  /// Nil for the first worker, which is the process's own thread.
  private let stack: UnsafeMutableRawBufferPointer?
  private var thread: UInt64 = 0
  private var driver: UnsafeMutablePointer<Driver>?

  /// Bytes of a batch whose cipher takes longer than another worker takes to wake up.
  private static let sharedByteCount = 16 * 1024
  /// The control path's, too; measured at 20 KB.
  private static let stackByteCount = 128 * 1024

  /// Carves the worker; `carveBatches` completes it, for each hop.
  init(carvingFrom arena: inout Arena, hops: Int, isFirst: Bool) {
    outbound = OutboundLane(carvingFrom: &arena, hops: hops)
    inbound = InboundLane(carvingFrom: &arena, hops: hops)
    events = arena.carve(EpollEvent.self, count: 16, owner: "epoll events")
    stack = isFirst ? nil : Worker.carveStack(&arena)
  }

  /// A batch of either lane for one hop.
  func carveBatches(from arena: inout Arena, _ tunnel: inout Tunnel, of hop: Int) {
    let outboundBatch = tunnel.makeOutboundBatch(carvingFrom: &arena)
    let inboundBatch = tunnel.makeInboundBatch(carvingFrom: &arena)
    if arena.isMeasuring { return }
    outbound.setBatch(outboundBatch, of: hop)
    inbound.setBatch(inboundBatch, of: hop)
  }

  /// Page-aligned, with a page below it that is a fault to touch.
  private static func carveStack(_ arena: inout Arena) -> UnsafeMutableRawBufferPointer {
    let page = Arena.pageByteCount
    let bytes = arena.carveBytes(stackByteCount + 2 * page, owner: "workers: stacks")
    let address = UInt(bitPattern: bytes.baseAddress!)
    let skipped = Int(bitPattern: (address + UInt(page) - 1) & ~(UInt(page) - 1) - address)
    return UnsafeMutableRawBufferPointer(
      start: bytes.baseAddress! + skipped, count: stackByteCount + page)
  }

  /// The fastest cipher on this CPU. Before anything else: the batch's memory is used.
  func measureCipher() -> TransportCipher { outbound.measureCipher() }

  /// Offloads of the sockets that do not do what they promise. Before anything else, as above.
  func refutedOffloads(_ offloads: Offloads) -> Offloads {
    outbound.refutedOffloads(offloads)
  }

  // MARK: Threads

  /// Starts all workers but the first. They wait to lead until `run` lets them.
  static func start(
    _ driver: UnsafeMutablePointer<Driver>, _ workers: UnsafeMutablePointer<Worker>, _ count: Int
  ) throws(SystemError) {
    for index in 0..<count {
      (workers + index).pointee.driver = driver
      (workers + index).pointee.inbound.prepare(for: driver.pointee.hops.innermost.pointee.tun)
    }
    driver.pointee.gates.lead.acquire()
    for index in 1..<max(1, count) {
      let result = start(workers + index)
      if result < 0 {
        // Those that run find that it is over.
        driver.pointee.cancel()
        driver.pointee.gates.lead.release()
        for started in 1..<index { clinux_thread_join((workers + started).pointee.thread) }
        throw SystemError(code: -result)
      }
    }
  }

  private static func start(_ worker: UnsafeMutablePointer<Worker>) -> Int32 {
    guard let stack = worker.pointee.stack, let start = stack.baseAddress else { return 0 }
    // Where pages are larger than the arena's there is no guard, or a larger one: of the stack at
    // least a half is left.
    _ = clinux_memory_guard(start)
    var thread: UInt64 = 0
    let result = clinux_thread_start(
      start + Arena.pageByteCount, stack.count - Arena.pageByteCount,
      { context in
        Worker.lead(context!.assumingMemoryBound(to: Worker.self))
        return nil
      }, worker, &thread)
    worker.pointee.thread = thread
    return result
  }

  /// Runs the first worker in this thread, and returns when all have ended.
  static func run(
    _ driver: UnsafeMutablePointer<Driver>, _ workers: UnsafeMutablePointer<Worker>, _ count: Int
  ) {
    driver.pointee.gates.lead.release()
    lead(workers)
    for index in 1..<max(1, count) { clinux_thread_join((workers + index).pointee.thread) }
  }

  /// A thread's life: to lead, and to follow with a batch.
  private static func lead(_ worker: UnsafeMutablePointer<Worker>) {
    guard let driver = worker.pointee.driver else { return }
    let gates = driver.pointee.gates
    gates.lead.acquire()
    while driver.pointee.isRunning {
      // A turn that has given up the lead has to wait for it.
      if !worker.pointee.takeTurn(driver, gates) { gates.lead.acquire() }
    }
    gates.lead.release()
  }

  // MARK: A turn

  /// One look at the events. False where the lead was given up with a batch.
  private mutating func takeTurn(
    _ driver: UnsafeMutablePointer<Driver>, _ gates: Gates
  ) -> Bool {
    // First what time and handshakes bring: however busy the lanes are, it has its turn.
    withUnsafeMutablePointer(to: &outbound) { driver.pointee.advance($0) }
    let count = driver.pointee.wait(into: events)
    // Then the control path, whose events are told once only: none may be left for the next leader.
    for index in 0..<count where driver.pointee.isRunning && !Token.isLane(events[index].token) {
      driver.pointee.handle(events[index])
    }
    guard count > 0 else { return true }
    // Then the lanes, each turn from another one: who gives up the lead does not see the rest.
    let first = driver.pointee.countTurn()
    for offset in 0..<count where driver.pointee.isRunning {
      let event = events[(first &+ offset) % count]
      switch event.token {
      case Token.tun: if !carryOutbound(event, driver, gates) { return false }
      case Token.ipv4: if !carryInbound(.ipv4, driver, gates) { return false }
      case Token.ipv6: if !carryInbound(.ipv6, driver, gates) { return false }
      default:
        if let mapping = Token.forward(event.token) { carryForward(mapping, driver, gates) }
      }
    }
    return true
  }

  /// Whether the lead is given up: for a batch that is worth it, and rather than to wait for its
  /// turn while nobody reads.
  private func isShared(
    byteCount: Int, isNext: Bool, _ driver: UnsafeMutablePointer<Driver>
  ) -> Bool {
    driver.pointee.workerCount > 1 && (byteCount >= Worker.sharedByteCount || !isNext)
  }

  /// Packets from the TUN; false where the lead was given up.
  private mutating func carryOutbound(
    _ event: EpollEvent, _ driver: UnsafeMutablePointer<Driver>, _ gates: Gates
  ) -> Bool {
    let hops = driver.pointee.hops
    let interface = hops.innermost
    for _ in 0..<Driver.batchesPerTurn {
      let now = Clock.boottime()
      var result = outbound.read(interface.pointee.tun)
      driver.pointee.checkPresence(result.error, event)
      guard driver.pointee.isRunning else { return true }
      if outbound.isEmpty {
        report(result, "reading failed", interface, gates, at: now)
        return true
      }
      gates.tunnel.acquire()
      outbound.plan(&interface.pointee.tunnel, at: now)
      gates.tunnel.release()
      let ticket = driver.pointee.takeOutboundTicket()
      let isShared = isShared(
        byteCount: outbound.byteCount, isNext: gates.outbound.isOpen(ticket), driver)
      if isShared { gates.lead.release() }

      // Once it is this batch's turn, entering again goes straight through.
      while outbound.seal() {
        gates.outbound.enter(ticket)
        outbound.send(hops, gates.tunnel, &result, at: now)
      }
      gates.outbound.enter(ticket)
      gates.tunnel.acquire()
      outbound.emit(&interface.pointee.tunnel, at: now)
      // Not without need: the leader reads beside it, to receive.
      if !result.lost.isEmpty { hops.outermost.pointee.sockets.stopSending(result.lost) }
      interface.pointee.report(result, "sending failed", at: now)
      // The leader sees the next deadline itself, before it waits again.
      if isShared { driver.pointee.armTimer(at: now) }
      gates.tunnel.release()
      gates.outbound.leave()
      if isShared { return false }
      if result.isDrained { break }
    }
    return true
  }

  /// Datagrams from the network; false where the lead was given up.
  private mutating func carryInbound(
    _ family: IPAddress.Family, _ driver: UnsafeMutablePointer<Driver>, _ gates: Gates
  ) -> Bool {
    let hops = driver.pointee.hops
    let interface = hops.outermost
    for _ in 0..<Driver.batchesPerTurn {
      let now = Clock.boottime()
      var result = inbound.receive(interface.pointee.sockets, family)
      if !result.lost.isEmpty { interface.pointee.sockets.stopReceiving(result.lost) }
      if inbound.isEmpty {
        report(result, "receiving failed", hops.innermost, gates, at: now)
        return true
      }
      gates.tunnel.acquire()
      inbound.accept(&interface.pointee.tunnel, at: now)
      gates.tunnel.release()
      let ticket = driver.pointee.takeInboundTicket()
      let isShared = isShared(
        byteCount: inbound.byteCount, isNext: gates.inbound.isOpen(ticket), driver)
      if isShared { gates.lead.release() }

      inbound.open()
      gates.inbound.enter(ticket)
      gates.tunnel.acquire()
      inbound.deliver(&interface.pointee.tunnel, at: now)
      gates.tunnel.release()
      inbound.write(hops, gates.tunnel, &result, at: now)
      if !result.lost.isEmpty { hops.innermost.pointee.tun.stopJoining(result.lost) }
      if isShared {
        gates.tunnel.acquire()
        driver.pointee.armTimer(at: now)
        gates.tunnel.release()
      }
      report(result, "receiving failed", hops.innermost, gates, at: now)
      gates.inbound.leave()
      if isShared { return false }
      if result.isDrained { break }
    }
    return true
  }

  private func report(
    _ result: LaneResult, _ what: StaticString, _ interface: UnsafeMutablePointer<Interface>,
    _ gates: Gates, at now: Instant
  ) {
    guard result.needsReport else { return }
    gates.tunnel.acquire()
    interface.pointee.report(result, what, at: now)
    gates.tunnel.release()
  }
}

/// From clients into the tunnel.
extension Worker {
  /// What clients have sent to a mapping's socket, one batch. So much in a turn and no more: what
  /// comes back in between makes room for other flows.
  ///
  /// The lead is kept: there is one buffer for what clients send.
  mutating func carryForward(
    _ mapping: Int, _ driver: UnsafeMutablePointer<Driver>, _ gates: Gates
  ) {
    let hops = driver.pointee.hops
    guard let forwarding = hops.forwarding else { return }
    let interface = hops.innermost
    var result = forwarding.receive(mapping)
    let ticket = driver.pointee.takeOutboundTicket()
    gates.outbound.enter(ticket)
    let now = Clock.boottime()
    var next = 0
    while next < forwarding.clientCount {
      gates.tunnel.acquire()
      next = outbound.take(forwarding, from: next, &interface.pointee.tunnel, at: now)
      gates.tunnel.release()
      while outbound.seal() { outbound.send(hops, gates.tunnel, &result, at: now) }
      gates.tunnel.acquire()
      outbound.emit(&interface.pointee.tunnel, at: now)
      gates.tunnel.release()
    }
    gates.tunnel.acquire()
    if !result.lost.isEmpty { hops.outermost.pointee.sockets.stopSending(result.lost) }
    interface.pointee.report(result, "forwarding failed", at: now)
    gates.tunnel.release()
    gates.outbound.leave()
  }
}

/// A lock that workers share, in the arena.
struct Lock: BitwiseCopyable, @unchecked Sendable {
  private let lock: UnsafeMutablePointer<clinux_lock>

  init(carvingFrom arena: inout Arena) {
    lock = arena.carveBytes(MemoryLayout<clinux_lock>.stride, owner: "workers: locks")
      .baseAddress!.assumingMemoryBound(to: clinux_lock.self)
  }

  func prepare() { clinux_lock_prepare(lock) }
  func acquire() { clinux_lock_acquire(lock) }
  func release() { clinux_lock_release(lock) }
}

/// Lets workers through in the order of their tickets, one at a time.
struct Turnstile: BitwiseCopyable, @unchecked Sendable {
  private let turnstile: UnsafeMutablePointer<clinux_turnstile>

  init(carvingFrom arena: inout Arena) {
    turnstile = arena.carveBytes(MemoryLayout<clinux_turnstile>.stride, owner: "workers: locks")
      .baseAddress!.assumingMemoryBound(to: clinux_turnstile.self)
  }

  func prepare() { clinux_turnstile_prepare(turnstile) }
  /// Waits until all tickets before this one have left.
  func enter(_ ticket: UInt64) { clinux_turnstile_enter(turnstile, ticket) }
  /// Whether `enter` would go through at once.
  func isOpen(_ ticket: UInt64) -> Bool { clinux_turnstile_is_open(turnstile, ticket) != 0 }
  func leave() { clinux_turnstile_leave(turnstile) }
}

/// What keeps the workers apart, in the order in which it is taken.
struct Gates: BitwiseCopyable {
  /// Held by the worker that leads: it waits for events, reads and receives, and runs the control
  /// path.
  let lead: Lock
  /// In front of the last steps of the lanes.
  let outbound: Turnstile
  let inbound: Turnstile
  /// The tunnel's tables, and the log. Held for the table work of a batch, never over the cipher or
  /// the reading and writing of packets.
  let tunnel: Lock

  init(carvingFrom arena: inout Arena) {
    lead = Lock(carvingFrom: &arena)
    outbound = Turnstile(carvingFrom: &arena)
    inbound = Turnstile(carvingFrom: &arena)
    tunnel = Lock(carvingFrom: &arena)
  }

  func prepare() {
    lead.prepare()
    outbound.prepare()
    inbound.prepare()
    tunnel.prepare()
  }
}
