import Culvert

/// The configuration socket and its connections: a fixed number. When all are taken, a new one
/// takes the place of the one that has been idle for longest; where none is idle it waits in the
/// listener's queue.
struct UAPIServer: ~Copyable {
  static let maximumConnections = 8

  private let listener: UAPIListener
  private let connections: UnsafeMutablePointer<UAPIConnection>
  private var calls: UInt64 = 0
  /// Somebody waits in the listener's queue.
  private var isFull = false

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

  /// Takes one connection; epoll tells again where there are more.
  mutating func accept(_ interface: inout Interface, _ epoll: borrowing Epoll) {
    guard let place = freePlace(&interface) else {
      // A listener that cannot be served would keep epoll awake; `settle` turns it on again.
      isFull = true
      _ = try? epoll.modify(listener.raw, .once, token: Token.listener)
      return
    }
    guard let descriptor = listener.accept() else { return }
    do throws(SystemError) {
      try epoll.add(descriptor.raw, [.readable, .once], token: Token.connection(place))
      connections[place].open(descriptor)
    } catch {
      // The descriptor closes itself.
    }
  }

  /// A place that is free, or that is made free.
  private func freePlace(_ interface: inout Interface) -> Int? {
    var oldest: Int?
    for index in 0..<UAPIServer.maximumConnections {
      if !connections[index].isOpen { return index }
      guard connections[index].isIdle else { continue }
      if oldest == nil || connections[index].lastServed < connections[oldest!].lastServed {
        oldest = index
      }
    }
    if let oldest { connections[oldest].close(&interface) }
    return oldest
  }

  /// Serves a connection that is ready, and after it those that waited for their turn.
  mutating func serve(
    _ index: Int, _ interface: inout Interface, _ epoll: borrowing Epoll, at now: Instant
  ) {
    guard index >= 0, index < UAPIServer.maximumConnections, connections[index].isOpen else {
      return
    }
    calls &+= 1
    connections[index].lastServed = calls
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

  private mutating func settle(
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
      wakeOthers(than: index, epoll)
      if isFull {
        isFull = false
        _ = try? epoll.modify(listener.raw, .readable, token: Token.listener)
      }
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
