import Culvert

/// Replaces the TUN in `culvert forward`: local sockets, and the flows of their clients through a
/// channel of the innermost tunnel.
///
/// This is a handle, of which every worker has a copy. The channel and the flows are used under the
/// tunnel's lock. Datagrams from clients are used only by the leader, and datagrams to clients only
/// by the worker whose ticket is next in the inbound lane.
struct Forwarding: BitwiseCopyable {
  private let channelPointer: UnsafeMutablePointer<DatagramChannel>
  private let forwarderPointer: UnsafeMutablePointer<Forwarder>
  private let clientsPointer: UnsafeMutablePointer<ForwarderBatch>
  private let answersPointer: UnsafeMutablePointer<ForwarderBatch>
  /// One per mapping; the rest of the table is `none`.
  private let sockets: UnsafeMutablePointer<ForwardSocket>
  private let refusals: UnsafeMutablePointer<Refusals>

  var channel: DatagramChannel {
    unsafeAddress { UnsafePointer(channelPointer) }
    nonmutating unsafeMutableAddress { channelPointer }
  }
  private var forwarder: Forwarder {
    unsafeAddress { UnsafePointer(forwarderPointer) }
    nonmutating unsafeMutableAddress { forwarderPointer }
  }
  /// Datagrams from clients.
  private var clients: ForwarderBatch {
    unsafeAddress { UnsafePointer(clientsPointer) }
    nonmutating unsafeMutableAddress { clientsPointer }
  }
  /// Datagrams to clients.
  private var answers: ForwarderBatch {
    unsafeAddress { UnsafePointer(answersPointer) }
    nonmutating unsafeMutableAddress { answersPointer }
  }

  /// How many errors of single datagrams one call skips (R37).
  private static let errorsPerCall = 64
  /// How long a mapping's socket is closed to all clients, in nanoseconds: long enough that a
  /// resolver's second try, after 5 s, is refused.
  static let closedTime = 5 * nanosecondsPerSecond

  /// How clients are told that the port of their destination is closed (R67).
  private struct Refusals: ~Copyable {
    /// Of each family. Without CAP_NET_RAW there are none, and the mapping's socket is closed for a
    /// while instead, so that the kernel refuses the clients' next datagrams.
    var ipv4 = RefusalSocket.none
    var ipv6 = RefusalSocket.none
    /// When the socket of each mapping is opened again; never if it is open.
    var reopenings = InlineArray<32, Deadline>(repeating: .never)
    var nextReopening = Deadline.never
  }

  /// What became of the datagrams to clients.
  struct Sent {
    fileprivate var answers = 0
    fileprivate var failures = 0
    fileprivate var refusals = 0
    /// A bit for each mapping whose socket was closed.
    fileprivate var closed: UInt32 = 0
  }

  init(carvingFrom arena: inout Arena, limits: Limits) {
    // On the heap, which may be used before the arena is sealed: the arena can only contain trivial
    // values.
    channelPointer = .allocate(capacity: 1)
    channelPointer.initialize(to: DatagramChannel(carvingFrom: &arena, limits: limits))
    forwarderPointer = .allocate(capacity: 1)
    forwarderPointer.initialize(to: Forwarder(carvingFrom: &arena, limits: limits))
    clientsPointer = .allocate(capacity: 1)
    clientsPointer.initialize(
      to: ForwarderBatch(carvingFrom: &arena, limits: limits, receives: true))
    answersPointer = .allocate(capacity: 1)
    answersPointer.initialize(
      to: ForwarderBatch(carvingFrom: &arena, limits: limits, receives: false))
    sockets = .allocate(capacity: ForwardList.capacity)
    for index in 0..<ForwardList.capacity { (sockets + index).initialize(to: .none) }
    // The sizes of `reopenings` and `closed`.
    precondition(ForwardList.capacity == 32)
    refusals = .allocate(capacity: 1)
    refusals.initialize(to: Refusals())
  }

  func destroy() {
    refusals.deinitialize(count: 1)
    refusals.deallocate()
    sockets.deinitialize(count: ForwardList.capacity)
    sockets.deallocate()
    answersPointer.deinitialize(count: 1)
    answersPointer.deallocate()
    clientsPointer.deinitialize(count: 1)
    clientsPointer.deallocate()
    forwarderPointer.deinitialize(count: 1)
    forwarderPointer.deallocate()
    channelPointer.deinitialize(count: 1)
    channelPointer.deallocate()
  }

  // MARK: Start

  /// Opens the sockets of all mappings. Clients may then begin to send.
  ///
  /// - Parameter bufferByteCount: receive buffer of each socket, as far as the kernel allows.
  func start(
    _ mappings: ForwardList, bufferByteCount: Int, in epoll: borrowing Epoll
  ) throws(ForwardFailure) {
    var entropy = Entropy.sodium
    channel.start(seed: entropy.uint64())
    channel.open(firstPort: Forwarder.firstPort, count: Forwarder.portCount)
    forwarder.start(seed: entropy.uint64())
    if let socket = try? RefusalSocket(.ipv4) { refusals[0].ipv4 = socket }
    if let socket = try? RefusalSocket(.ipv6) { refusals[0].ipv6 = socket }
    for index in 0..<mappings.count {
      let mapping = mappings[index]
      do throws(SystemError) {
        let socket = try ForwardSocket(
          listeningOn: mapping.local, bufferByteCount: Int32(bufferByteCount))
        try epoll.add(socket.raw, token: Token.forward(index))
        sockets[index] = socket
      } catch {
        throw ForwardFailure(mapping: mapping, reason: .listening(error))
      }
      _ = forwarder.addMapping(to: mapping.target)
    }
  }

  /// Checks that the configured tunnel has a route and a source address for every destination.
  func check(
    _ mappings: ForwardList, _ tunnel: borrowing Tunnel
  ) throws(ForwardFailure) {
    for index in 0..<mappings.count {
      let mapping = mappings[index]
      let target = mapping.target.address
      guard channel.address(target.family) != nil else {
        throw ForwardFailure(mapping: mapping, reason: .noAddress)
      }
      guard tunnel.hasRoute(to: target) else {
        throw ForwardFailure(mapping: mapping, reason: .noRoute)
      }
    }
  }

  // MARK: From clients

  /// The number of datagrams that `receive` has received.
  var clientCount: Int { clients.count }

  /// Receives datagrams from a mapping's clients, as many as fit.
  func receive(_ mapping: Int) -> LaneResult {
    var result = LaneResult(isDrained: false)
    var errors = 0
    clients.reset()
    while let room = clients.room() {
      let received = sockets[mapping].receive(into: room)
      guard received.byteCount >= 0 else {
        let error = SystemError(code: Int32(truncatingIfNeeded: -received.byteCount))
        if error == .EAGAIN || errors == Forwarding.errorsPerCall {
          result.isDrained = true
          break
        }
        errors += 1
        result.error = error
        continue
      }
      clients.append(
        byteCount: received.byteCount, from: received.client, on: mapping,
        trafficClass: received.trafficClass)
    }
    return result
  }

  /// Turns received datagrams, from `index` on, into packets in `batch`, which must be empty.
  /// Returns the index at which to continue. Call it under the tunnel's lock.
  func fill(_ batch: inout OutboundBatch, from index: Int, at now: Instant) -> Int {
    forwarder.forward(from: clients, at: index, &channel, into: &batch, at: now)
  }

  // MARK: To clients

  /// Collects answers among the packets that the innermost tunnel has delivered, from `index` on,
  /// as many as fit. Returns the index at which to continue. Call it under the tunnel's lock.
  func collectAnswers(
    in batch: borrowing InboundBatch, from index: Int, at now: Instant
  ) -> Int {
    answers.reset()
    return forwarder.collectAnswers(from: batch, at: index, &channel, into: &answers, at: now)
  }

  /// Sends the collected answers.
  func sendAnswers() -> Sent {
    var sent = Sent()
    for index in 0..<answers.count {
      switch answers[index].kind {
      case .datagram: if send(answers[index]) { sent.answers += 1 } else { sent.failures += 1 }
      case .refusal: refuse(answers[index], mayClose: false, &sent)
      case .refusalOfAll: refuse(answers[index], mayClose: true, &sent)
      }
    }
    return sent
  }

  /// Releases the memory of the answers, and counts them. Call it under the tunnel's lock.
  func releaseAnswers(_ sent: Sent, at now: Instant) {
    channel.release()
    forwarder.count(.answered, UInt64(sent.answers))
    forwarder.count(.undelivered, UInt64(sent.failures))
    forwarder.count(.reported, UInt64(sent.refusals))
    guard sent.closed != 0 else { return }
    let refusals = refusals
    for mapping in 0..<ForwardList.capacity where sent.closed >> UInt32(mapping) & 1 != 0 {
      refusals[0].reopenings[mapping] = .after(Forwarding.closedTime, from: now)
    }
    updateReopening()
  }

  /// Tells a client that the port of its destination is closed: with an ICMP error, or without the
  /// right to send one, by closing the mapping's socket.
  private func refuse(
    _ refusal: ForwarderBatch.Datagram, mayClose: Bool, _ sent: inout Sent
  ) {
    let mapping = Int(refusal.mapping)
    let isIPv4 = refusal.client.endpoint.address.family == .ipv4
    if isIPv4 ? refusals[0].ipv4.isOpen : refusals[0].ipv6.isOpen {
      guard let port = try? sockets[mapping].port() else { return }
      let result =
        isIPv4
        ? refusals[0].ipv4.refuse(refusal.client, port: port)
        : refusals[0].ipv6.refuse(refusal.client, port: port)
      if result == 0 { sent.refusals += 1 }
    } else if mayClose, sockets[mapping].close() == 0 {
      sent.refusals += 1
      sent.closed |= 1 << UInt32(mapping)
    }
  }

  /// Opens the sockets again whose time is over.
  private func reopenSockets(at now: Instant) {
    let refusals = refusals
    guard refusals[0].nextReopening.isDue(at: now) else { return }
    for mapping in 0..<ForwardList.capacity
    where refusals[0].reopenings[mapping].isDue(at: now) {
      _ = sockets[mapping].reopen()
      refusals[0].reopenings[mapping] = .never
    }
    updateReopening()
  }

  private func updateReopening() {
    let refusals = refusals
    var next = Deadline.never
    for mapping in 0..<ForwardList.capacity {
      next = min(next, refusals[0].reopenings[mapping])
    }
    refusals[0].nextReopening = next
  }

  private func send(_ answer: ForwarderBatch.Datagram) -> Bool {
    sockets[Int(answer.mapping)].send(
      UnsafeRawBufferPointer(answer.bytes), to: answer.client, trafficClass: answer.trafficClass)
      == 0
  }

  // MARK: Time and counters

  var nextDeadline: Deadline {
    min(min(forwarder.nextDeadline, channel.nextDeadline), refusals[0].nextReopening)
  }

  /// Closes the flows that have been idle for too long, and opens sockets that were closed for a
  /// while. No batch may be in flight.
  func expireFlows(at now: Instant) {
    forwarder.expireFlows(at: now)
    reopenSockets(at: now)
  }

  var counters: Tally<FlowVerdict> { forwarder.counters }
}
