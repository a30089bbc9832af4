import Culvert

/// The configuration socket of one hop, and its fixed number of connections. If all are in use, a
/// new client replaces the connection that has been idle for longest, or else one that has stopped
/// half way. If there is none, the client waits in the listener's queue.
struct UAPIServer: ~Copyable {
  static let maximumConnections = 8
  static let byteCount = maximumConnections * UAPIConnection.byteCount
  /// A client that stops half way is closed after this time, in nanoseconds (R56).
  static let patience = 10 * nanosecondsPerSecond
  /// The same while another client waits for its place.
  static let shortPatience = nanosecondsPerSecond

  private let listener: UAPIListener
  private let hop: Int
  private let connections: UnsafeMutablePointer<UAPIConnection>
  /// A client may be waiting in the listener's queue.
  private var isFull = false
  /// When `expire` must be called next; never, unless a client is half way.
  private(set) var nextDeadline = Deadline.never

  /// - Parameters:
  ///   - memory: `byteCount` bytes of locked memory.
  ///   - hop: the hop that is configured.
  init(_ listener: consuming UAPIListener, memory: UnsafeMutableRawBufferPointer, hop: Int) {
    self.listener = listener
    self.hop = hop
    // This runs before the arena is sealed, so the heap may be used. A connection owns a
    // descriptor, and the arena can only contain trivial values.
    connections = .allocate(capacity: UAPIServer.maximumConnections)
    for index in 0..<UAPIServer.maximumConnections {
      let start = index * UAPIConnection.byteCount
      (connections + index).initialize(
        to: UAPIConnection(
          memory: UnsafeMutableRawBufferPointer(
            rebasing: memory[start..<start + UAPIConnection.byteCount])))
    }
  }

  deinit {
    // This also runs if startup fails half way, so that no socket file remains without a server.
    listener.remove()
    connections.deinitialize(count: UAPIServer.maximumConnections)
    connections.deallocate()
  }

  /// Mutating, although it need not be: Swift 6.3.1 with the thread sanitizer cannot compile an
  /// in-place change through a nonmutating addressor of `self`.
  private subscript(index: Int) -> UAPIConnection {
    unsafeAddress { UnsafePointer(connections + index) }
    unsafeMutableAddress { connections + index }
  }

  func register(in epoll: borrowing Epoll) throws(SystemError) {
    // Edge-triggered, so that the loop does not spin if there is no free connection or descriptor.
    try epoll.add(listener.raw, [.readable, .edge], token: Token.uapi(.listener(hop: hop)))
    guard listener.rawWatch >= 0 else { return }
    try epoll.add(listener.rawWatch, token: Token.uapi(.listenerWatch(hop: hop)))
  }

  private func token(of place: Int) -> UInt64 {
    Token.uapi(.connection(hop: hop, index: place))
  }

  /// False once the socket's file has been deleted, which ends the process (R25).
  func isPresent() -> Bool { listener.isPresent() }

  /// Accepts waiting clients while there is room, and serves what they have already sent.
  mutating func accept(
    _ interface: inout Interface, _ epoll: borrowing Epoll, at now: Instant
  ) {
    defer { updateDeadline() }
    while true {
      guard let place = place(at: now) else {
        isFull = true
        return
      }
      // An idle connection is only closed if a client is really waiting.
      guard let descriptor = listener.accept() else {
        isFull = false
        return
      }
      end(place, &interface, epoll)
      do throws(SystemError) {
        try epoll.add(descriptor.raw, [.readable, .once], token: token(of: place))
        self[place].open(descriptor)
        serveOnce(place, &interface, epoll, at: now)
      } catch {
        // The descriptor is closed when it goes out of scope.
      }
    }
  }

  /// Accepts clients that were left in the listener's queue, if there is room now.
  mutating func acceptWaiting(
    _ interface: inout Interface, _ epoll: borrowing Epoll, at now: Instant
  ) {
    if isFull { accept(&interface, epoll, at: now) }
  }

  /// The index of a free connection, or of the one that has been idle for longest, or of the one
  /// that has stopped half way for longest.
  private func place(at now: Instant) -> Int? {
    var idle: Int?
    var stopped: Int?
    for index in 0..<UAPIServer.maximumConnections {
      if !self[index].isOpen { return index }
      if self[index].isIdle {
        idle = older(index, idle)
      } else if self[index].isHalfWay,
        now.since(self[index].lastServed) >= UAPIServer.shortPatience
      {
        stopped = older(index, stopped)
      }
    }
    return idle ?? stopped
  }

  /// The one of two connections that was served longer ago.
  private func older(_ index: Int, _ other: Int?) -> Int {
    guard let other else { return index }
    return self[index].lastServed < self[other].lastServed ? index : other
  }

  // MARK: Time

  /// Closes the clients that have stopped half way, and accepts those that were waiting for their
  /// places.
  mutating func expire(
    _ interface: inout Interface, _ epoll: borrowing Epoll, at now: Instant
  ) {
    guard nextDeadline.isDue(at: now) else { return }
    for index in 0..<UAPIServer.maximumConnections
    where self[index].isHalfWay && now.since(self[index].lastServed) >= UAPIServer.patience {
      end(index, &interface, epoll)
    }
    acceptWaiting(&interface, epoll, at: now)
    updateDeadline()
  }

  private mutating func updateDeadline() {
    let patience = isFull ? UAPIServer.shortPatience : UAPIServer.patience
    nextDeadline = .never
    for index in 0..<UAPIServer.maximumConnections where self[index].isHalfWay {
      nextDeadline = min(nextDeadline, .after(patience, from: self[index].lastServed))
    }
  }

  // MARK: Serving

  /// Serves a connection that is ready, and wakes those that were waiting for its `set` to end.
  mutating func serve(
    _ index: Int, _ interface: inout Interface, _ epoll: borrowing Epoll, at now: Instant
  ) {
    guard index >= 0, index < UAPIServer.maximumConnections, self[index].isOpen else {
      return
    }
    serveOnce(index, &interface, epoll, at: now)
    updateDeadline()
  }

  private mutating func serveOnce(
    _ index: Int, _ interface: inout Interface, _ epoll: borrowing Epoll, at now: Instant
  ) {
    self[index].lastServed = now
    let wasSetting = self[index].isSetting
    let isFree = isFree(for: index)
    let outcome = self[index].serve(&interface, isFree: isFree, at: now)
    settle(index, outcome, &interface, epoll)
    if wasSetting, !self[index].isSetting { wakeWaiting(epoll) }
  }

  private func isFree(for index: Int) -> Bool {
    for other in 0..<UAPIServer.maximumConnections
    where other != index && self[other].isSetting {
      return false
    }
    return true
  }

  private mutating func settle(
    _ index: Int, _ outcome: UAPIConnection.Outcome, _ interface: inout Interface,
    _ epoll: borrowing Epoll
  ) {
    let interest: Epoll.Interest
    switch outcome {
    case .readable: interest = [.readable, .once]
    // A socket is writable while its buffer has room, so `more` is served again immediately.
    case .more, .writable: interest = [.writable, .once]
    case .turn: return
    case .closed:
      end(index, &interface, epoll)
      return
    }
    do throws(SystemError) {
      try epoll.modify(
        self[index].descriptor.raw, interest, token: token(of: index))
    } catch {
      end(index, &interface, epoll)
    }
  }

  /// Closes a connection, if it is open. Another one may then begin its `set`.
  private mutating func end(
    _ index: Int, _ interface: inout Interface, _ epoll: borrowing Epoll
  ) {
    let wasSetting = self[index].isSetting
    if self[index].isOpen { self[index].close(&interface) }
    if wasSetting { wakeWaiting(epoll) }
  }

  /// Wakes the connections that are waiting to begin a `set`.
  private func wakeWaiting(_ epoll: borrowing Epoll) {
    for index in 0..<UAPIServer.maximumConnections
    where self[index].isOpen && self[index].wantsToSet {
      _ = try? epoll.modify(
        self[index].descriptor.raw, [.writable, .once], token: token(of: index))
    }
  }
}

/// The configuration sockets of all hops, innermost first.
struct UAPIServers: ~Copyable {
  private let servers: UnsafeMutablePointer<UAPIServer>
  private(set) var count = 0
  private let memory: UnsafeMutableRawBufferPointer

  static func byteCount(hops: Int) -> Int { hops * UAPIServer.byteCount }

  /// - Parameter memory: `byteCount(hops:)` bytes of locked memory.
  init(memory: UnsafeMutableRawBufferPointer) {
    self.memory = memory
    // This runs before the arena is sealed, so the heap may be used. A server owns descriptors, and
    // the arena can only contain trivial values.
    servers = .allocate(capacity: Hops.maximum)
  }

  deinit {
    // This also deletes the sockets' files.
    servers.deinitialize(count: count)
    servers.deallocate()
  }

  /// Adds the server of the next hop.
  mutating func append(_ listener: consuming UAPIListener) {
    precondition(count < Hops.maximum)
    let start = count * UAPIServer.byteCount
    (servers + count).initialize(
      to: UAPIServer(
        listener,
        memory: UnsafeMutableRawBufferPointer(
          rebasing: memory[start..<start + UAPIServer.byteCount]), hop: count))
    count += 1
  }

  subscript(hop: Int) -> UAPIServer {
    unsafeAddress {
      precondition(hop >= 0 && hop < count)
      return UnsafePointer(servers + hop)
    }
    nonmutating unsafeMutableAddress {
      precondition(hop >= 0 && hop < count)
      return servers + hop
    }
  }

  /// When a client that has stopped half way is closed next.
  var nextDeadline: Deadline {
    var next = Deadline.never
    for hop in 0..<count { next = min(next, self[hop].nextDeadline) }
    return next
  }

  func register(in epoll: borrowing Epoll) throws(SystemError) {
    for hop in 0..<count { try self[hop].register(in: epoll) }
  }
}
