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
  }

  func destroy() {
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

  /// Sends the collected answers. Returns how many the kernel refused.
  func sendAnswers() -> Int {
    var failures = 0
    for index in 0..<answers.count where !send(answers[index]) { failures += 1 }
    return failures
  }

  /// Releases the memory of the answers, and counts them. Call it under the tunnel's lock.
  func releaseAnswers(failures: Int) {
    channel.release()
    forwarder.count(.answered, UInt64(answers.count - failures))
    forwarder.count(.undelivered, UInt64(failures))
  }

  private func send(_ answer: ForwarderBatch.Datagram) -> Bool {
    sockets[Int(answer.mapping)].send(
      UnsafeRawBufferPointer(answer.bytes), to: answer.client, trafficClass: answer.trafficClass)
      == 0
  }

  // MARK: Time and counters

  var nextDeadline: Deadline { min(forwarder.nextDeadline, channel.nextDeadline) }

  /// Closes the flows that have been idle for too long.
  func expireFlows(at now: Instant) { forwarder.expireFlows(at: now) }

  var counters: Tally<FlowVerdict> { forwarder.counters }
}
