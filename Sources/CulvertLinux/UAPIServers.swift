import Culvert

/// The configuration sockets of all hops, the innermost's first.
struct UAPIServers: ~Copyable {
  private let servers: UnsafeMutablePointer<UAPIServer>
  private(set) var count = 0
  private let memory: UnsafeMutableRawBufferPointer

  /// - Parameter memory: `byteCount(hops:)` bytes of locked memory.
  init(memory: UnsafeMutableRawBufferPointer) {
    self.memory = memory
    // Start-up: the arena is not sealed yet. A server owns descriptors, so it is no plain value
    // that the arena could hold.
    servers = .allocate(capacity: Hops.maximum)
  }

  static func byteCount(hops: Int) -> Int { hops * UAPIServer.byteCount }

  deinit {
    // With them the sockets' files go.
    servers.deinitialize(count: count)
    servers.deallocate()
  }

  /// The server of the next hop.
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

  subscript(hop: Int) -> UnsafeMutablePointer<UAPIServer> {
    precondition(hop >= 0 && hop < count)
    return servers + hop
  }

  func register(in epoll: borrowing Epoll) throws(SystemError) {
    for hop in 0..<count { try self[hop].pointee.register(in: epoll) }
  }
}
