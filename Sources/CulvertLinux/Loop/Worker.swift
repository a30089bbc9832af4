import CLinux
import Culvert

/// One thread of a running tunnel, with a batch of each lane for each hop.
///
/// One worker at a time is the leader: it waits for events and reads packets or datagrams. It takes
/// a small batch through all steps itself while the others sleep, so that a single packet is
/// handled by one thread. With a batch that is large enough to justify waking another thread, it
/// gives up the lead and finishes the batch in parallel with the next leader. Tickets keep the
/// order, and no batch moves between threads.
struct Worker: ~Copyable {
  private var outbound: OutboundLane
  private var inbound: InboundLane
  private let events: UnsafeMutableBufferPointer<EpollEvent>
  /// Nil for the first worker, which is the process's own thread.
  private let stack: UnsafeMutableRawBufferPointer?
  private var thread: UInt64 = 0
  private var driver: Driver?

  /// Bytes of a batch whose encryption takes longer than waking another worker.
  private static let sharedByteCount = 16 * 1024
  /// Enough for the control path too, for which 20 KB were measured.
  private static let stackByteCount = 128 * 1024

  /// Carves the worker. `carveBatches`, called for each hop, completes it.
  init(carvingFrom arena: inout Arena, hops: Int, isFirst: Bool) {
    outbound = OutboundLane(carvingFrom: &arena, hops: hops)
    inbound = InboundLane(carvingFrom: &arena, hops: hops)
    events = arena.carve(EpollEvent.self, count: 16, owner: "epoll events")
    stack = isFirst ? nil : Worker.carveStack(&arena)
  }

  /// Carves a batch of each lane for one hop.
  func carveBatches(from arena: inout Arena, _ tunnel: inout Tunnel, of hop: Int) {
    let outboundBatch = tunnel.makeOutboundBatch(carvingFrom: &arena)
    let inboundBatch = tunnel.makeInboundBatch(carvingFrom: &arena)
    if arena.isMeasuring { return }
    outbound.setBatch(outboundBatch, of: hop)
    inbound.setBatch(inboundBatch, of: hop)
  }

  /// Page-aligned, with a guard page below it.
  private static func carveStack(_ arena: inout Arena) -> UnsafeMutableRawBufferPointer {
    let page = Arena.pageByteCount
    let bytes = arena.carveBytes(stackByteCount + 2 * page, owner: "workers: stacks")
    let address = UInt(bitPattern: bytes.baseAddress!)
    let skipped = Int(bitPattern: (address + UInt(page) - 1) & ~(UInt(page) - 1) - address)
    return UnsafeMutableRawBufferPointer(
      start: bytes.baseAddress! + skipped, count: stackByteCount + page)
  }

  /// The fastest cipher on this CPU. Call it before any batch is processed: it uses their memory.
  func measureCipher() -> TransportCipher { outbound.measureCipher() }

  /// The sockets' offloads that fail the test. Call it before any batch is processed, as above.
  func refutedOffloads(_ offloads: Offloads) -> Offloads {
    outbound.refutedOffloads(offloads)
  }

  // MARK: Threads

  /// Starts all workers but the first. They wait for the lead until `run` releases it.
  static func start(
    _ workers: UnsafeMutablePointer<Worker>, for driver: Driver
  ) throws(SystemError) {
    for index in 0..<driver.workerCount {
      workers[index].driver = driver
      workers[index].inbound.prepare(for: driver.hops.innermost.tun)
    }
    driver.gates.lead.acquire()
    for index in 1..<max(1, driver.workerCount) {
      let result = start(workers + index)
      if result < 0 {
        // The workers that have already started see this and end.
        driver.eventLoop.cancel()
        driver.gates.lead.release()
        for started in 1..<index { clinux_thread_join(workers[started].thread) }
        throw SystemError(code: -result)
      }
    }
  }

  private static func start(_ worker: UnsafeMutablePointer<Worker>) -> Int32 {
    guard let stack = worker[0].stack, let start = stack.baseAddress else { return 0 }
    // If the system's pages are larger than the arena's, the guard is larger or missing. At least
    // half of the stack is left.
    _ = clinux_memory_guard(start)
    var thread: UInt64 = 0
    let result = clinux_thread_start(
      start + Arena.pageByteCount, stack.count - Arena.pageByteCount,
      { context in
        Worker.run(context!.assumingMemoryBound(to: Worker.self))
        return nil
      }, worker, &thread)
    worker[0].thread = thread
    return result
  }

  /// Runs the first worker in this thread, and returns when all have ended.
  static func run(_ workers: UnsafeMutablePointer<Worker>, for driver: Driver) {
    driver.gates.lead.release()
    run(workers)
    for index in 1..<max(1, driver.workerCount) { clinux_thread_join(workers[index].thread) }
  }

  /// The loop of a thread: it leads until it gives up the lead with a batch, finishes the batch,
  /// and waits for the lead again.
  private static func run(_ worker: UnsafeMutablePointer<Worker>) {
    guard let driver = worker[0].driver else { return }
    driver.gates.lead.acquire()
    while driver.eventLoop.isRunning {
      if !worker[0].serveEvents(driver) { driver.gates.lead.acquire() }
    }
    driver.gates.lead.release()
  }

  // MARK: Events

  /// Waits for events once and serves them. False if the worker has given up the lead.
  private mutating func serveEvents(_ driver: Driver) -> Bool {
    // Timers and handshakes first, so that they are served even if the lanes are busy.
    driver.eventLoop.runTimers(outbound)
    let count = driver.eventLoop.wait(into: events)
    // Then the control path. Its events are reported only once, so none may be left for the next
    // leader.
    for index in 0..<count where driver.eventLoop.isRunning && !Token.isLane(events[index].token) {
      driver.eventLoop.handle(events[index])
    }
    guard count > 0 else { return true }
    // No packet may leave by an old route after the news of another one (R40).
    if driver.isNewsDue { driver.eventLoop.runTimers(outbound) }
    // Then the lanes. Giving up the lead drops the remaining events, so each round starts at
    // another one.
    let first = driver.eventLoop.nextRound()
    for offset in 0..<count where driver.eventLoop.isRunning {
      let event = events[(first &+ offset) % count]
      switch event.token {
      case Token.tun: if !serveTUN(event, driver) { return false }
      case Token.ipv4: if !serveSocket(.ipv4, driver) { return false }
      case Token.ipv6: if !serveSocket(.ipv6, driver) { return false }
      default:
        if let mapping = Token.forward(event.token) { serveClients(mapping, driver) }
      }
    }
    return true
  }

  /// Whether to give up the lead: if the batch is large enough, or if it would have to wait for its
  /// turn while no worker reads.
  private func givesUpLead(byteCount: Int, _ ticket: Ticket, _ driver: Driver) -> Bool {
    driver.workerCount > 1 && (byteCount >= Worker.sharedByteCount || !ticket.isNext)
  }

  /// Serves packets from the TUN. False if the worker has given up the lead.
  private mutating func serveTUN(_ event: EpollEvent, _ driver: Driver) -> Bool {
    let hops = driver.hops
    let gates = driver.gates
    for _ in 0..<EventLoop.batchesPerRound {
      let now = Clock.boottime()
      var result = outbound.read(hops.innermost.tun)
      driver.eventLoop.checkPresence(result.error, event)
      guard driver.eventLoop.isRunning else { return true }
      if outbound.isEmpty {
        driver.finish(result, "reading failed", at: now)
        return true
      }
      outbound.plan(hops, gates.tunnel, at: now)
      let ticket = driver.eventLoop.outboundTicket()
      let isShared = givesUpLead(byteCount: outbound.byteCount, ticket, driver)
      if isShared { gates.lead.release() }

      outbound.send(ticket, hops, gates.tunnel, &result, at: now)
      driver.finish(result, "sending failed", armsTimer: isShared, at: now)
      ticket.leave()
      if isShared { return false }
      if result.isDrained { break }
    }
    return true
  }

  /// Serves datagrams from the network. False if the worker has given up the lead.
  private mutating func serveSocket(_ family: IPAddress.Family, _ driver: Driver) -> Bool {
    let hops = driver.hops
    let gates = driver.gates
    for _ in 0..<EventLoop.batchesPerRound {
      let now = Clock.boottime()
      var result = inbound.receive(hops.outermost.sockets, family)
      if !result.lost.isEmpty { hops.outermost.sockets.stopReceiving(result.lost) }
      if inbound.isEmpty {
        driver.finish(result, "receiving failed", at: now)
        return true
      }
      inbound.accept(hops, gates.tunnel, at: now)
      let ticket = driver.eventLoop.inboundTicket()
      let isShared = givesUpLead(byteCount: inbound.byteCount, ticket, driver)
      if isShared { gates.lead.release() }

      inbound.deliver(ticket, hops, gates.tunnel, &result, at: now)
      driver.finish(result, "receiving failed", armsTimer: isShared, at: now)
      ticket.leave()
      if isShared { return false }
      if result.isDrained { break }
    }
    return true
  }

  /// Serves datagrams from clients of a mapping, one batch per round: the answers in between make
  /// room for other flows. The worker keeps the lead, because there is only one buffer for clients'
  /// datagrams.
  private func serveClients(_ mapping: Int, _ driver: Driver) {
    let hops = driver.hops
    let lock = driver.gates.tunnel
    guard let forwarding = hops.forwarding else { return }
    var result = forwarding.receive(mapping)
    let ticket = driver.eventLoop.outboundTicket()
    ticket.waitForTurn()
    let now = Clock.boottime()
    var next = 0
    while next < forwarding.clientCount {
      next = outbound.planDatagrams(of: forwarding, from: next, hops, lock, at: now)
      outbound.send(ticket, hops, lock, &result, at: now)
    }
    driver.finish(result, "forwarding failed", at: now)
    ticket.leave()
  }
}
