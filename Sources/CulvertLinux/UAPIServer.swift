import Culvert

/// The configuration socket and its connections: a fixed number, further ones wait in the
/// listener's queue.
struct UAPIServer: ~Copyable {
  static let maximumConnections = 4

  private let listener: UAPIListener
  private let connections: UnsafeMutablePointer<UAPIConnection>

  /// - Parameter memory: `byteCount` bytes of locked memory.
  init(_ listener: consuming UAPIListener, memory: UnsafeMutableRawBufferPointer) {
    self.listener = listener
    // Start-up: the arena is not sealed yet. A connection owns a descriptor, so it is no plain
    // value that the arena could hold.
    connections = .allocate(capacity: UAPIServer.maximumConnections)
    for index in 0..<UAPIServer.maximumConnections {
      let start = index * UAPIConnection.byteCount
      (connections + index).initialize(
        to: UAPIConnection(
          memory: UnsafeMutableRawBufferPointer(
            rebasing: memory[start..<start + UAPIConnection.byteCount])))
    }
  }

  static let byteCount = maximumConnections * UAPIConnection.byteCount

  deinit {
    connections.deinitialize(count: UAPIServer.maximumConnections)
    connections.deallocate()
  }

  func register(in epoll: borrowing Epoll) throws(SystemError) {
    try epoll.add(listener.raw, token: Token.listener)
    if listener.rawWatch >= 0 { try epoll.add(listener.rawWatch, token: Token.listenerWatch) }
  }

  /// False once somebody has deleted the socket's file, which ends the process (R25).
  func isPresent() -> Bool { listener.isPresent() }

  func remove() { listener.remove() }

  /// Takes connections as long as there is a place for them.
  func accept(_ epoll: borrowing Epoll) {
    for index in 0..<UAPIServer.maximumConnections where !connections[index].isOpen {
      guard let descriptor = listener.accept() else { return }
      let raw = descriptor.raw
      do throws(SystemError) {
        try epoll.add(raw, [.readable, .once], token: Token.connection(index))
        connections[index].open(descriptor)
      } catch {
        // The descriptor closes itself.
      }
    }
    let isFull = (0..<UAPIServer.maximumConnections).allSatisfy { connections[$0].isOpen }
    // A listener that is not listened to would keep epoll awake.
    _ = try? epoll.modify(
      listener.raw, isFull ? [.once] : .readable, token: Token.listener)
  }

  /// Serves a connection that is ready, and after it those that waited for their turn.
  func serve(
    _ index: Int, _ interface: inout Interface, _ epoll: borrowing Epoll, at now: Instant
  ) {
    guard index >= 0, index < UAPIServer.maximumConnections, connections[index].isOpen else {
      return
    }
    let wasSetting = connections[index].isSetting
    let outcome = connections[index].serve(&interface, isFree: isFree(for: index), at: now)
    settle(index, outcome, &interface, epoll)
    if wasSetting, !connections[index].isSetting { wakeOthers(than: index, epoll) }
  }

  private func isFree(for index: Int) -> Bool {
    for other in 0..<UAPIServer.maximumConnections
    where other != index && connections[other].isSetting {
      return false
    }
    return true
  }

  private func settle(
    _ index: Int, _ outcome: UAPIConnection.Outcome, _ interface: inout Interface,
    _ epoll: borrowing Epoll
  ) {
    let interest: Epoll.Interest
    switch outcome {
    case .readable: interest = [.readable, .once]
    // A socket is writable while it has room, so this comes back at once.
    case .more, .writable: interest = [.writable, .once]
    case .turn: return
    case .closed:
      connections[index].close(&interface)
      accept(epoll)
      wakeOthers(than: index, epoll)
      return
    }
    do throws(SystemError) {
      try epoll.modify(
        connections[index].descriptor.raw, interest, token: Token.connection(index))
    } catch {
      connections[index].close(&interface)
    }
  }

  private func wakeOthers(than index: Int, _ epoll: borrowing Epoll) {
    for other in 0..<UAPIServer.maximumConnections
    where other != index && connections[other].isOpen {
      _ = try? epoll.modify(
        connections[other].descriptor.raw, [.writable, .once], token: Token.connection(other))
    }
  }
}
