import Culvert

/// What stands in the place of the TUN where there is none: local sockets, and the flows of their
/// clients through a channel of the innermost tunnel.
///
/// All workers look at it. The channel and the forwarder are used under the tunnel's lock; what
/// comes from clients belongs to the worker that leads, what goes to them to the one whose turn it
/// is in the inbound lane.
struct Forwarding: BitwiseCopyable {
  let channel: UnsafeMutablePointer<DatagramChannel>
  private let forwarder: UnsafeMutablePointer<Forwarder>
  private let clients: UnsafeMutablePointer<ForwarderBatch>
  private let answers: UnsafeMutablePointer<ForwarderBatch>
  /// By mapping; those beyond the last are none.
  private let sockets: UnsafeMutablePointer<ForwardSocket>

  /// Errors of single datagrams that one call looks past (R37).
  private static let errorsPerCall = 64

  init(carvingFrom arena: inout Arena, limits: Limits) {
    // Start-up: the arena is not sealed yet. To the compiler none of these is a plain value that
    // the arena could hold.
    channel = .allocate(capacity: 1)
    channel.initialize(to: DatagramChannel(carvingFrom: &arena, limits: limits))
    forwarder = .allocate(capacity: 1)
    forwarder.initialize(to: Forwarder(carvingFrom: &arena, limits: limits))
    clients = .allocate(capacity: 1)
    clients.initialize(to: ForwarderBatch(carvingFrom: &arena, limits: limits, receives: true))
    answers = .allocate(capacity: 1)
    answers.initialize(to: ForwarderBatch(carvingFrom: &arena, limits: limits, receives: false))
    sockets = .allocate(capacity: ForwardList.capacity)
    for index in 0..<ForwardList.capacity { (sockets + index).initialize(to: .none) }
  }

  func destroy() {
    sockets.deinitialize(count: ForwardList.capacity)
    sockets.deallocate()
    answers.deinitialize(count: 1)
    answers.deallocate()
    clients.deinitialize(count: 1)
    clients.deallocate()
    forwarder.deinitialize(count: 1)
    forwarder.deallocate()
    channel.deinitialize(count: 1)
    channel.deallocate()
  }

  // MARK: Start

  /// Opens the sockets of all mappings. Their clients may begin to send.
  ///
  /// - Parameter bufferByteCount: what the kernel may hold for each, where it allows that.
  func start(
    _ mappings: ForwardList, bufferByteCount: Int, in epoll: borrowing Epoll
  ) throws(ForwardFailure) {
    var entropy = Entropy.sodium
    channel.pointee.start(seed: entropy.uint64())
    channel.pointee.open(firstPort: Forwarder.firstPort, count: Forwarder.portCount)
    forwarder.pointee.start(seed: entropy.uint64())
    for index in 0..<mappings.count {
      let mapping = mappings[index]
      do throws(SystemError) {
        let socket = try ForwardSocket(
          listeningOn: mapping.local, bufferByteCount: Int32(bufferByteCount))
        try epoll.add(socket.raw, token: Token.forward(index))
        (sockets + index).pointee = socket
      } catch {
        throw ForwardFailure(mapping: mapping, reason: .listening(error))
      }
      _ = forwarder.pointee.addMapping(to: mapping.target)
    }
  }

  /// Whether the tunnel, which has been configured, leads to every destination.
  func check(
    _ mappings: ForwardList, _ tunnel: borrowing Tunnel
  ) throws(ForwardFailure) {
    for index in 0..<mappings.count {
      let mapping = mappings[index]
      let target = mapping.target.address
      guard channel.pointee.address(target.family) != nil else {
        throw ForwardFailure(mapping: mapping, reason: .noAddress)
      }
      guard tunnel.hasRoute(to: target) else {
        throw ForwardFailure(mapping: mapping, reason: .noRoute)
      }
    }
  }

  // MARK: From clients

  /// Datagrams that `receive` has brought.
  var clientCount: Int { clients.pointee.count }

  /// Receives what clients have sent to a mapping's socket, as much as fits.
  func receive(_ mapping: Int) -> LaneResult {
    var result = LaneResult(isDrained: false)
    var errors = 0
    clients.pointee.reset()
    while let room = clients.pointee.room() {
      let received = (sockets + mapping).pointee.receive(into: room)
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
      clients.pointee.append(
        byteCount: received.byteCount, from: received.client, on: mapping,
        trafficClass: received.trafficClass)
    }
    return result
  }

  /// Puts what was received, from `index` on, into `batch`, which is empty. The index to go on at.
  func carry(
    from index: Int, into batch: inout OutboundBatch, at now: Instant
  ) -> Int {
    forwarder.pointee.carry(
      from: clients.pointee, at: index, &channel.pointee, into: &batch, at: now)
  }

  // MARK: To clients

  /// Sends the answers among what the innermost tunnel has delivered.
  func deliver(_ batch: borrowing InboundBatch, _ lock: Lock, at now: Instant) {
    var next = 0
    while next < batch.count {
      answers.pointee.reset()
      lock.acquire()
      next = forwarder.pointee.carry(
        from: batch, at: next, &channel.pointee, into: &answers.pointee, at: now)
      lock.release()
      var failures: UInt64 = 0
      for index in 0..<answers.pointee.count where !send(answers.pointee[index]) { failures += 1 }
      lock.acquire()
      channel.pointee.release()
      forwarder.pointee.count(.answered, UInt64(answers.pointee.count) - failures)
      forwarder.pointee.count(.undelivered, failures)
      lock.release()
    }
  }

  private func send(_ answer: ForwarderBatch.Datagram) -> Bool {
    let socket = sockets + Int(answer.mapping)
    return socket.pointee.send(
      UnsafeRawBufferPointer(answer.bytes), to: answer.client, trafficClass: answer.trafficClass)
      == 0
  }

  // MARK: Time and counters

  var nextDeadline: Deadline { min(forwarder.pointee.nextDeadline, channel.pointee.nextDeadline) }

  /// Closes the flows whose time is over.
  func advance(at now: Instant) { forwarder.pointee.advance(at: now) }

  var counters: Tally<FlowVerdict> { forwarder.pointee.counters }
}
