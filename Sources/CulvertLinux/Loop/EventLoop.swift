import Culvert

/// The state that only the leader uses: the descriptors on which it waits, the control path, and
/// the ticket counts.
///
/// The leader is the worker that holds `Gates.lead`. Before it changes sockets, settings or timers,
/// it waits for all in-flight batches (`quiesce`) and starts no new one. It then has exclusive
/// access to everything and needs no other lock.
struct EventLoop: ~Copyable {
  private let driver: Driver
  let epoll: Epoll
  private let signals: Signals
  private var netlink: Netlink
  private var news: NetworkNews
  private let routes: RouteCheck
  private var linkIndex: UInt32
  /// Our interface among the links of `news`; 0 if it is in another namespace.
  private var newsIndex: UInt32
  private let uapi: UAPIServers
  /// The deadline of the configuration sockets for which the timer is armed.
  private var uapiDeadline = Deadline.never
  private let isForeground: Bool
  private(set) var isRunning = true
  private var rounds = 0
  /// The number of tickets handed out in each lane.
  private var outboundCount: UInt64 = 0
  private var inboundCount: UInt64 = 0

  /// Batches of one lane in a row before the others are served.
  static let batchesPerRound = 4

  private var hops: Hops { driver.hops }
  private var gates: Gates { driver.gates }

  /// The kernel's event sources, except those that deliver packets.
  struct Descriptors: ~Copyable {
    let epoll: Epoll
    let signals: Signals
    let netlink: Netlink
    let news: NetworkNews
    let routes: RouteCheck
    let linkIndex: UInt32
    let newsIndex: UInt32

    init(_ tun: borrowing TunDevice) throws(SystemError) {
      // Locals first, because an initialiser of a move-only type cannot throw after it has set some
      // of the fields.
      let epoll = try Epoll()
      let signals = try Signals()
      let netlink = try Descriptors.openNetlink(for: tun)
      let news = try NetworkNews()
      let routes = try RouteCheck()
      // No interface has the index 0.
      linkIndex = tun.isOpen ? try tun.interfaceIndex() : 0
      newsIndex = tun.isElsewhere ? 0 : linkIndex
      self.epoll = epoll
      self.signals = signals
      self.netlink = netlink
      self.news = news
      self.routes = routes
    }

    /// Opens netlink in the interface's namespace, which may differ from ours if it was adopted.
    private static func openNetlink(for tun: borrowing TunDevice) throws(SystemError) -> Netlink {
      guard tun.isOpen else { return try Netlink.open() }
      do throws(SystemError) {
        return try Netlink.open(in: try tun.namespaceDescriptor())
      } catch {
        // Linux before 5.0, or no permission to enter namespaces: assume that it is ours.
        return try Netlink.open()
      }
    }
  }

  /// `start` completes it.
  init(
    _ driver: Driver, _ descriptors: consuming Descriptors, _ uapi: consuming UAPIServers,
    isForeground: Bool
  ) {
    self.driver = driver
    self.uapi = uapi
    self.isForeground = isForeground
    epoll = descriptors.epoll
    signals = descriptors.signals
    netlink = descriptors.netlink
    news = descriptors.news
    routes = descriptors.routes
    linkIndex = descriptors.linkIndex
    newsIndex = descriptors.newsIndex
  }

  /// Registers all descriptors, and applies the interface's state.
  mutating func start() throws(SystemError) {
    try uapi.register(in: epoll)
    try epoll.add(driver.rawTimer, token: Token.timer)
    try epoll.add(signals.raw, token: Token.signals)
    try epoll.add(netlink.raw, token: Token.netlink)
    try epoll.add(news.raw, [.readable, .once], token: Token.news)
    if Helper.raw >= 0 { try epoll.add(Helper.raw, token: Token.helper) }
    let now = Clock.boottime()
    hops.setOuterUp(at: now)
    if !hops.isForwarding {
      try epoll.add(hops.innermost.tun.raw, token: Token.tun)
      hops.innermost.apply(try hops.innermost.tun.state(), at: now)
    }
    registerSockets()
  }

  // MARK: Waiting and tickets

  /// Waits for events. Returns their number.
  mutating func wait(into events: UnsafeMutableBufferPointer<EpollEvent>) -> Int {
    let now = Clock.boottime()
    let uapiDeadline = uapi.nextDeadline
    gates.tunnel.acquire()
    let deadline = min(driver.nextDeadline(at: now), uapiDeadline)
    let isDue = deadline.isDue(at: now)
    if !isDue {
      // A client that is no longer half way must not cause a wake-up.
      driver.armTimer(for: deadline, exactly: uapiDeadline != self.uapiDeadline)
      self.uapiDeadline = uapiDeadline
    }
    gates.tunnel.release()
    return max(0, epoll.wait(into: events, timeoutMilliseconds: isDue ? 0 : -1))
  }

  /// The ticket for a new batch.
  mutating func outboundTicket() -> Ticket {
    defer { outboundCount &+= 1 }
    return gates.outbound.ticket(outboundCount)
  }

  mutating func inboundTicket() -> Ticket {
    defer { inboundCount &+= 1 }
    return gates.inbound.ticket(inboundCount)
  }

  /// Waits for all in-flight batches. Afterwards the leader has exclusive access to everything.
  private func quiesce() {
    gates.outbound.ticket(outboundCount).waitForTurn()
    gates.inbound.ticket(inboundCount).waitForTurn()
  }

  /// The round's number, which is never negative.
  mutating func nextRound() -> Int {
    rounds = (rounds &+ 1) & 0xffff
    return rounds
  }

  // MARK: Timers

  /// Runs due timers and handles handshakes, in as many batches as the TUN gets in a round, so that
  /// packets staged in one round are sent before the next.
  mutating func runTimers(_ lane: borrowing OutboundLane) {
    closeStoppedClients()
    gates.tunnel.acquire()
    let now = Clock.boottime()
    let isDue = driver.nextDeadline(at: now).isDue(at: now)
    let hasEvents = hops.hasEvents
    let isMTUDue = driver.mtuDeadline.isDue(at: now)
    let isLookupDue = driver.resolver.deadline.isDue(at: now)
    gates.tunnel.release()
    guard isDue || hasEvents else { return }
    quiesce()
    if driver.newsDeadline.isDue(at: now) { networkChanged(at: now) }
    if isMTUDue { driver.updateMTU(at: now) }
    if hops.outermost.bindDeadline.isDue(at: now) {
      hops.outermost.bindOrRetry(at: now)
      registerSockets()
    }
    if isLookupDue { driver.runResolver(epoll, at: now) }
    checkSources()
    for hop in 0..<hops.count {
      runTimers(of: hop, lane)
      if hop > 0 { runTimers(of: &hops.channels[hop - 1], in: hop, lane) }
    }
    guard let forwarding = hops.forwarding else { return }
    runTimers(of: &forwarding.channel, in: 0, lane)
    forwarding.expireFlows(at: Clock.boottime())
  }

  /// Closes the configuration clients that have stopped half way (R56).
  private mutating func closeStoppedClients() {
    let now = Clock.boottime()
    guard uapi.nextDeadline.isDue(at: now) else { return }
    quiesce()
    for hop in 0..<uapi.count { uapi[hop].expire(&hops[hop], epoll, at: now) }
    finishRequests(at: now)
  }

  private mutating func runTimers(of hop: Int, _ lane: borrowing OutboundLane) {
    let now = Clock.boottime()
    for _ in 0..<EventLoop.batchesPerRound {
      guard hops[hop].tunnel.nextDeadline(at: now).isDue(at: now) else { break }
      lane.planMessages(of: hop, hops, at: now)
      if hop == hops.count - 1 { lane.checkSources(hops, routes) }
      // An initiation is only planned when its timestamp is stored. If it were sent and then
      // forgotten, it would be used again, and peers would refuse it (R28).
      var result = LaneResult()
      if let stamp = hops[hop].tunnel.timestampToPersist() {
        result.stampError = hops[hop].stamps.write(stamp)
      }
      send(hop, lane, &result, at: now)
      // More handshakes are queued or due, and each needs a key agreement. Serve packets first.
      if hops[hop].tunnel.hasHandshakes { break }
    }
    while let event = hops[hop].tunnel.nextEvent() {
      hops[hop].log(event, at: now)
      driver.noticeHandshake(event, hop, at: now)
    }
  }

  /// Expires datagrams that were not reassembled in time, in a channel that leads through the
  /// tunnel of `hop`.
  private mutating func runTimers(
    of channel: inout DatagramChannel, in hop: Int, _ lane: borrowing OutboundLane
  ) {
    let now = Clock.boottime()
    guard channel.nextDeadline.isDue(at: now) else { return }
    lane.planMessages(of: &channel, in: hop, hops, at: now)
    var result = LaneResult()
    send(hop, lane, &result, at: now)
  }

  /// Sends the messages that are planned in the batch of `hop`.
  private mutating func send(
    _ hop: Int, _ lane: borrowing OutboundLane, _ result: inout LaneResult, at now: Instant
  ) {
    let ticket = outboundTicket()
    lane.send(from: hop, ticket, hops, gates.tunnel, &result, at: now)
    driver.finish(result, "sending failed", of: hop, at: now)
    ticket.leave()
  }

  // MARK: Control path

  /// Handles an event that is neither a packet nor a datagram.
  mutating func handle(_ event: EpollEvent) {
    quiesce()
    if let descriptor = Token.uapi(event.token) { return handleUAPI(descriptor) }
    if let lookup = Token.lookup(event.token) {
      return driver.serveLookup(lookup, epoll, at: Clock.boottime())
    }
    switch event.token {
    case Token.timer: driver.acknowledgeTimer()
    case Token.signals: handleSignals()
    case Token.netlink: handleNetlink()
    case Token.news: handleNews()
    case Token.helper:
      if !driver.applyReplies(at: Clock.boottime()) { replaceHelper() }
    default: break
    }
  }

  private mutating func handleUAPI(_ descriptor: Token.UAPI) {
    let now = Clock.boottime()
    switch descriptor {
    case .listener(let hop):
      uapi[hop].accept(&hops[hop], epoll, at: now)
    case .listenerWatch(let hop):
      if !uapi[hop].isPresent() { stop("the configuration socket was deleted") }
    case .connection(let hop, let index):
      uapi[hop].serve(index, &hops[hop], epoll, at: now)
      uapi[hop].acceptWaiting(&hops[hop], epoll, at: now)
    }
    finishRequests(at: now)
  }

  /// Applies to the hops what requests may have changed.
  private mutating func finishRequests(at now: Instant) {
    hops.dropFragmentsOfRemovedPeers()
    hops.updateMark(at: now)
    driver.updateMTUIfPending(at: now)
    registerSockets()
  }

  private mutating func handleSignals() {
    while let signal = signals.next() {
      switch signal {
      case .terminate: stop("terminated")
      case .interrupt: stop("interrupted")
      case .hangup where isForeground: stop("the terminal is gone")
      case .hangup: hops.requestReload(at: Clock.boottime())
      case .counters: hops.writeCounters()
      }
    }
  }

  /// The helper was killed, for example by the kernel's out-of-memory killer.
  private func replaceHelper() {
    let now = Clock.boottime()
    do throws(SystemError) {
      try Helper.restart()
      try epoll.add(Helper.raw, token: Token.helper)
    } catch {
      return Helper.abandon()
    }
    hops.innermost.log.error(at: now) {
      $0.append("the helper process was killed; started another one, lines may be missing")
    }
    hops.storeTimestampsAgain(at: now)
  }

  /// Registers the outermost sockets with epoll if they are new.
  mutating func registerSockets() {
    guard hops.outermost.hasNewSockets else { return }
    hops.outermost.hasNewSockets = false
    do throws(SystemError) {
      if hops.outermost.sockets.ipv4.isOpen {
        try epoll.add(hops.outermost.sockets.ipv4.raw, token: Token.ipv4)
      }
      if hops.outermost.sockets.ipv6.isOpen {
        try epoll.add(hops.outermost.sockets.ipv6.raw, token: Token.ipv6)
      }
    } catch {
      hops.innermost.report(error, "cannot watch the sockets", at: Clock.boottime())
    }
  }

  // MARK: Interface

  /// Checks, if the TUN has reported an error, whether the interface still exists.
  mutating func checkPresence(_ error: SystemError?, _ event: EpollEvent) {
    let isGone = event.readiness.contains(.failed) && !hops.innermost.tun.isAttached
    if error == .EBADFD || isGone {
      quiesce()
      stop("the interface was deleted")
    }
  }

  private mutating func handleNetlink() {
    while isRunning {
      let now = Clock.boottime()
      switch netlink.next(about: linkIndex) {
      case .drained: return
      case .unrelated:
        driver.noticeLinkChange()
      case .linkChanged(let state):
        hops.innermost.apply(state, at: now)
        registerSockets()
      case .linkDeleted: handleDeparture(at: now)
      case .overflow, .failed:
        readState(at: now)
        return
      }
    }
  }

  /// The interface is no longer in this namespace. If it was moved to another one, the control path
  /// follows it. The sockets stay in the namespace in which they were opened.
  private mutating func handleDeparture(at now: Instant) {
    guard hops.innermost.tun.isAttached else {
      stop("the interface was deleted")
      return
    }
    do throws(SystemError) {
      let namespace = try hops.innermost.tun.followNamespace()
      let moved = try Netlink.open(in: namespace)
      try epoll.add(moved.raw, token: Token.netlink)
      netlink = moved
      linkIndex = try hops.innermost.tun.interfaceIndex()
      newsIndex = 0
      readState(at: now)
    } catch {
      hops.innermost.log.error(at: now) {
        $0.append("the interface moved to a namespace that cannot be watched: ")
        $0.append(error)
      }
    }
  }

  /// Asks for the interface's state when notifications may have been lost.
  private mutating func readState(at now: Instant) {
    if hops.isForwarding { return hops.updateMTU(at: now) }
    do throws(SystemError) {
      hops.innermost.apply(try hops.innermost.tun.state(), at: now)
      registerSockets()
    } catch {
      if !hops.innermost.tun.isAttached { stop("the interface was deleted") }
    }
  }

  // MARK: Network

  /// Reads news of links, addresses, routes and rules. After news, nothing is read until
  /// `networkChanged`, so that a burst wakes the process once.
  private mutating func handleNews() {
    guard news.read(skippedIndex: newsIndex) else { return watchNews() }
    driver.noticeNews(at: Clock.boottime())
  }

  /// Acts upon news: datagrams may now leave another way.
  private mutating func networkChanged(at now: Instant) {
    driver.finishNews(at: now)
    do throws(SystemError) {
      // First a new subscription, then the checks, so that no change is missed.
      try news.restart()
      try epoll.add(news.raw, [.readable, .once], token: Token.news)
    } catch {
      // The old socket is still there.
      watchNews()
    }
    hops.outermost.tunnel.recheckSources()
    driver.noticeLinkChange()
    driver.resolver.networkChanged(at: now)
  }

  private func watchNews() {
    do throws(SystemError) {
      try epoll.modify(news.raw, [.readable, .once], token: Token.news)
    } catch {
      hops.innermost.report(error, "cannot watch the routes", at: Clock.boottime())
    }
  }

  /// Route look-ups between two batches of packets, and peers that are looked at for them. A
  /// look-up takes about 5 us on a PC.
  private static let checksPerTurn = 16
  private static let visitsPerTurn = 1024

  /// Forgets local addresses of peers whose route leaves by another interface (R40).
  private func checkSources() {
    guard hops.outermost.tunnel.hasUncheckedSources else { return }
    var visits = EventLoop.visitsPerTurn
    for _ in 0..<EventLoop.checksPerTurn {
      guard let next = hops.outermost.tunnel.nextUncheckedSource(visits: &visits) else { return }
      let verdict = hops.outermost.judgeSource(of: next.path, routes)
      hops.outermost.tunnel.settleSource(of: next.peer, as: verdict)
    }
  }

  // MARK: End

  /// Ends the loop after a start that has failed half way.
  mutating func cancel() { isRunning = false }

  private mutating func stop(_ reason: StaticString) {
    isRunning = false
    hops.innermost.log.verbose(at: Clock.boottime()) { $0.append(reason) }
  }
}
