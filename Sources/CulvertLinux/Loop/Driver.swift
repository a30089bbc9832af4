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

  private struct Deadlines: ~Copyable {
    var timer: Timer
    var mtuUpdates = MTUUpdates()
  }

  /// Only for the worker that holds `gates.lead`.
  var eventLoop: EventLoop {
    unsafeAddress { UnsafePointer(eventLoopPointer) }
    nonmutating unsafeMutableAddress { eventLoopPointer }
  }

  /// When the leader next has something to do. Call it under the tunnel's lock.
  func nextDeadline(at now: Instant) -> Deadline {
    min(hops.nextDeadline(at: now), mtuDeadline)
  }

  /// Makes sure that the leader wakes up at `deadline`. Call it under the tunnel's lock.
  func armTimer(for deadline: Deadline) { deadlines[0].timer.armIfEarlier(deadline) }

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

  /// Opens the sockets to which clients send. Called before `configure`, which may have to look up
  /// names.
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
    try hops.configure(options, memory: memory, at: now)
    hops.updateMark(at: now)
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
    deadlines.deinitialize(count: 1)
    deadlines.deallocate()
    hops.destroy()
  }
}
