import Culvert

/// A running tunnel, or several nested ones: the state that all workers share, and start and end.
///
/// This is a handle, of which every worker has a copy. Its constants need no lock. `eventLoop` is
/// for the leader only. The timer and the MTU updates are used under the tunnel's lock.
struct Driver: BitwiseCopyable {
  let hops: Hops
  let gates: Gates
  let workerCount: Int
  private let workers: UnsafeMutablePointer<Worker>
  private let eventLoopPointer: UnsafeMutablePointer<EventLoop>
  private let deadlines: UnsafeMutablePointer<Deadlines>
  private let resolverPointer: UnsafeMutablePointer<Resolver>

  private struct Deadlines: ~Copyable {
    var timer: Timer
    var mtuUpdates = MTUUpdates()
    var newsDelay = NewsDelay()
  }

  /// Only for the worker that holds `gates.lead`.
  var eventLoop: EventLoop {
    unsafeAddress { UnsafePointer(eventLoopPointer) }
    nonmutating unsafeMutableAddress { eventLoopPointer }
  }

  /// When the leader next has something to do. Call it under the tunnel's lock.
  func nextDeadline(at now: Instant) -> Deadline {
    if hops.outermost.tunnel.hasUncheckedSources { return Deadline(now) }
    let others = min(mtuDeadline, min(newsDeadline, resolver.deadline))
    return min(hops.nextDeadline(at: now), others)
  }

  /// The host names of endpoints. It changes only while no batch is in flight.
  var resolver: Resolver {
    unsafeAddress { UnsafePointer(resolverPointer) }
    nonmutating unsafeMutableAddress { resolverPointer }
  }

  /// Makes sure that the leader wakes up at `deadline`, and if `exactly`, not earlier. Call it
  /// under the tunnel's lock.
  func armTimer(for deadline: Deadline, exactly: Bool = false) {
    if exactly {
      deadlines[0].timer.arm(deadline)
    } else {
      deadlines[0].timer.armIfEarlier(deadline)
    }
  }

  /// Reports the errors of a batch. If `armsTimer`, also arms the timer: a worker that has given up
  /// the lead may have moved a deadline forward while the leader waits for events.
  func finish(
    _ result: LaneResult, _ what: StaticString, of hop: Int = 0, armsTimer: Bool = false,
    at now: Instant
  ) {
    guard armsTimer || result.needsReport else { return }
    gates.tunnel.acquire()
    if result.needsReport { hops[hop].report(result, what, at: now) }
    if armsTimer { armTimer(for: nextDeadline(at: now)) }
    gates.tunnel.release()
  }

  // MARK: For the leader

  var rawTimer: Int32 { deadlines[0].timer.raw }

  func acknowledgeTimer() { deadlines[0].timer.acknowledge() }

  /// When the MTUs must be derived again; never if nothing has changed.
  var mtuDeadline: Deadline { deadlines[0].mtuUpdates.deadline(hops) }

  func noticeLinkChange() { deadlines[0].mtuUpdates.noticeLinkChange() }

  /// When news of the network must be acted upon; never if there is none.
  var newsDeadline: Deadline { deadlines[0].newsDelay.deadline }

  var isNewsDue: Bool { newsDeadline.isSet && newsDeadline.isDue(at: Clock.boottime()) }

  func noticeNews(at now: Instant) { deadlines[0].newsDelay.notice(at: now) }

  func finishNews(at now: Instant) { deadlines[0].newsDelay.finish(at: now) }

  /// Derives the MTUs again if something has changed, even if the last time was very recent.
  func updateMTUIfPending(at now: Instant) {
    if deadlines[0].mtuUpdates.isPending(hops) { updateMTU(at: now) }
  }

  func updateMTU(at now: Instant) { deadlines[0].mtuUpdates.run(hops, at: now) }

  // MARK: Start

  /// The parts of a driver, apart from its memory.
  struct Parts: ~Copyable {
    let tun: TunDevice
    /// One for each hop.
    let uapi: UAPIServers
    /// The log of the innermost hop, with the hop's name.
    let log: Log
    let options: ServiceOptions
  }

  /// Makes a driver from its parts and starts it without workers, so that it can be configured. The
  /// arena is not sealed yet. `destroy` is the counterpart.
  static func make(
    _ memory: DriverMemory, _ parts: consuming Parts
  ) throws(SystemError) -> Driver {
    let timer = try Timer()
    let descriptors = try EventLoop.Descriptors(parts.tun)
    let driver = Driver(memory, parts, timer, descriptors)
    do throws(SystemError) {
      try driver.start()
    } catch {
      driver.destroy()
      throw error
    }
    return driver
  }

  private init(
    _ memory: DriverMemory, _ parts: consuming Parts, _ timer: consuming Timer,
    _ descriptors: consuming EventLoop.Descriptors
  ) {
    gates = memory.gates
    workers = memory.workers
    workerCount = memory.workerCount
    hops = Hops(memory.hops, parts.tun, parts.log, parts.options)
    // These own descriptors, and the arena can only contain trivial values.
    deadlines = .allocate(capacity: 1)
    deadlines.initialize(to: Deadlines(timer: timer))
    resolverPointer = .allocate(capacity: 1)
    resolverPointer.initialize(to: Resolver(memory.resolver))
    eventLoopPointer = .allocate(capacity: 1)
    eventLoopPointer.initialize(
      to: EventLoop(
        self, descriptors, parts.uapi, isForeground: parts.options.isForeground))
  }

  private func start() throws(SystemError) {
    gates.prepare()
    hops.start(cipher: workers[0].measureCipher())
    hops.restoreTimestamps()
    proveOffloads()
    try eventLoop.start()
  }

  private func proveOffloads() {
    let offloads = hops.outermost.sockets.sending.union(hops.outermost.sockets.receiving)
    var result = LaneResult()
    result.lost = workers[0].refutedOffloads(offloads)
    hops.outermost.sockets.stopSending(result.lost)
    hops.outermost.sockets.stopReceiving(result.lost)
    hops.outermost.report(result, "starting failed", at: Clock.boottime())
  }

  /// Opens the sockets to which clients send.
  func listen(_ options: ServiceOptions) throws(ForwardFailure) {
    try hops.forwarding?.start(
      options.forwards, bufferByteCount: options.socketBufferByteCount, in: eventLoop.epoll)
  }

  /// Reads the configuration files.
  ///
  /// - Parameter memory: `ConfigFile.byteCount` bytes of locked memory; wiped.
  func configure(
    _ options: ServiceOptions, memory: UnsafeMutableRawBufferPointer
  ) throws(HopFailure) {
    let now = Clock.boottime()
    try hops.configure(options, memory: memory, &resolver, at: now)
    hops.updateMark(at: now)
    // Names in /etc/hosts have their addresses from here on.
    runResolver(eventLoop.epoll, at: now)
    updateMTU(at: now)
    // A listen port in a file opens new sockets.
    eventLoop.registerSockets()
  }

  /// Checks that the configured tunnel has a route to every destination, and brings it up.
  func startForwarding(_ mappings: ForwardList) throws(ForwardFailure) {
    try hops.forwarding?.check(mappings, hops.innermost.tunnel)
    hops.innermost.setUp(true, at: Clock.boottime())
    eventLoop.registerSockets()
  }

  /// Starts all workers but the first, which the caller becomes with `run`.
  func startWorkers() throws(SystemError) {
    try Worker.start(workers, for: self)
  }

  // MARK: Run and end

  /// Runs until a signal arrives, or until the interface or the socket's file is deleted.
  func run() {
    Worker.run(workers, for: self)
    hops.storeTimestamps()
    if hops.isForwarding { hops.writeCounters() }
  }

  func destroy() {
    eventLoopPointer.deinitialize(count: 1)
    eventLoopPointer.deallocate()
    resolverPointer.deinitialize(count: 1)
    resolverPointer.deallocate()
    deadlines.deinitialize(count: 1)
    deadlines.deallocate()
    hops.destroy()
  }
}

/// Host names of endpoints: what the resolver finds is applied to the tunnels, and what happens in
/// the tunnels decides which names are looked up again.
///
/// Only the leader calls this, while no batch is in flight. A name counts until a user sets another
/// endpoint for its peer, or removes the peer.
extension Driver {
  /// Starts lookups that are due, and applies what has been found.
  func runResolver(_ epoll: borrowing Epoll, at now: Instant) {
    resolver.mark = hops.outermost.sockets.mark
    resolver.run(epoll, at: now)
    applyLookups(at: now)
  }

  /// Handles an event of a lookup's socket.
  func serveLookup(_ lookup: Int, _ epoll: borrowing Epoll, at now: Instant) {
    resolver.handle(lookup, epoll, at: now)
    applyLookups(at: now)
  }

  /// Decides, from the handshakes of peers with names, whether a name is looked up again or its
  /// next address is tried.
  func noticeHandshake(_ event: Event, _ hop: Int, at now: Instant) {
    guard resolver.count > 0, event.kind == .initiationSent || event.kind == .responseReceived,
      let index = resolver.find(event.peer, hop: hop), keepsName(index)
    else { return }
    let id = resolver[index].id
    let present = hops[hop].tunnel.status(of: id)?.endpoint
    if event.kind == .responseReceived { return resolver[index].didAnswer(present) }
    let count = hops[hop].tunnel.initiationsSinceAnswer(of: id)
    guard resolver.didSendInitiation(index, count, at: now),
      let endpoint = resolver[index].next(after: present)
    else { return }
    hops[hop].tunnel.moveEndpoint(endpoint, of: id)
  }

  /// Applies the replies of the helper process that have arrived. False if the helper has ended.
  func applyReplies(at now: Instant) -> Bool {
    while true {
      let reply = Helper.receive()
      switch reply {
      case .none: return true
      case .forgetNames(let hop): resolver.removeNames(of: hop)
      case .name(let name, let hop):
        name.withText {
          hops.addName($0, name.port, of: name.publicKey, hop, &resolver, at: now)
        }
      default: if !hops.apply(reply, at: now) { return false }
      }
    }
  }

  private func applyLookups(at now: Instant) {
    for index in 0..<resolver.count {
      switch resolver[index].takeOutcome() {
      case .none: break
      case .found: if keepsName(index) { applyAddresses(index, at: now) }
      case .failed(let failure): if keepsName(index) { log(failure, index, at: now) }
      }
    }
  }

  /// False, and the name is forgotten, if its peer was removed or given another endpoint.
  private func keepsName(_ index: Int) -> Bool {
    let peer = resolver[index]
    if peer.isForgotten { return false }
    if hops[peer.hop].tunnel.endpointSettings(of: peer.id) == peer.settings { return true }
    resolver[index].forget()
    return false
  }

  /// Sets the endpoint in place: the socket and its port stay, so that the mappings of NATs do too.
  private func applyAddresses(_ index: Int, at now: Instant) {
    let peer = resolver[index]
    resolver[index].loggedFailure = nil
    let present = hops[peer.hop].tunnel.status(of: peer.id)?.endpoint
    guard let endpoint = peer.choice(present: present), endpoint != present else { return }
    hops[peer.hop].tunnel.moveEndpoint(endpoint, of: peer.id)
    // Sends what had to wait for the endpoint.
    hops[peer.hop].tunnel.peerIsConfigured(peer.id, at: now)
    hops[peer.hop].log.verbose(at: now) {
      $0.append("peer(")
      $0.append(abbreviated: peer.publicKey)
      $0.append(") - ")
      $0.append(resolver.name(index))
      $0.append(" is ")
      $0.append(endpoint)
    }
  }

  /// Logs why a name has no address, once for each reason.
  private func log(_ failure: ResolverFailure, _ index: Int, at now: Instant) {
    let peer = resolver[index]
    guard failure != peer.loggedFailure else { return }
    resolver[index].loggedFailure = failure
    hops[peer.hop].log.error(at: now) {
      $0.append("cannot look up ")
      $0.append(resolver.name(index))
      $0.append(" for peer(")
      $0.append(abbreviated: peer.publicKey)
      $0.append("): ")
      $0.append(failure.text)
      $0.append("; trying again, other peers work meanwhile")
    }
  }
}
