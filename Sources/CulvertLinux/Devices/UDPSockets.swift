import CLinux
import Culvert

/// An IPv4 and an IPv6 UDP socket on the same port. One of them is missing if the host does not
/// support its family (R23).
package struct UDPSockets: ~Copyable {
  private(set) var ipv4: UDPSocket = .none
  private(set) var ipv6: UDPSocket = .none
  /// The bound port; 0 while closed.
  private(set) var port: UInt16 = 0
  /// SO_MARK of both; 0 for none.
  private(set) var mark: UInt32 = 0
  /// Size of each socket's receive buffer, in bytes.
  let bufferByteCount: Int32

  /// The offloads for sending, gso and mmsg, that are in use. The lane removes one that has failed.
  private(set) var sending: Offloads
  /// The offloads for receiving, gro and mmsg, that are in use.
  private(set) var receiving: Offloads

  /// Attempts to find a random port that is free for both IPv4 and IPv6 (R22, as wireguard-go).
  static let attempts = 100

  /// Default size of a receive buffer, in bytes. One TCP flow has up to 6 MB in flight, and
  /// datagrams that do not fit while the CPU is busy are lost. The kernel allows twice this number
  /// for data and bookkeeping. A small board has neither the memory nor the speed for more.
  package static func defaultBufferByteCount(for profile: Profile) -> Int {
    switch profile {
    case .tiny: 1 << 20
    case .standard: 4 << 20
    case .gateway: 8 << 20
    }
  }

  init(
    bufferByteCount: Int32 = 1 << 20, offloads: Offloads = .all
  ) {
    self.bufferByteCount = bufferByteCount
    sending = offloads.intersection([.gso, .mmsg])
    receiving = offloads.intersection([.gro, .mmsg])
  }

  var isOpen: Bool { ipv4.isOpen || ipv6.isOpen }

  // MARK: Opening and closing

  /// Binds both sockets to `port`; 0 means a random port. Returns true if the descriptors are new
  /// and must be added to epoll, false if the sockets already had this port and nothing changed
  /// (R39). After an error the sockets are unchanged.
  @discardableResult
  mutating func bind(port wanted: UInt16) throws(SystemError) -> Bool {
    if isOpen && wanted != 0 && wanted == port { return false }
    var attempt = 1
    while true {
      let fresh4 = try UDPSockets.open(.ipv4, wanted, mark, bufferByteCount)
      var chosen = wanted
      if fresh4.isOpen { chosen = try fresh4.port() }
      do throws(SystemError) {
        let fresh6 = try UDPSockets.open(.ipv6, chosen, mark, bufferByteCount)
        if !fresh4.isOpen && !fresh6.isOpen { throw .EAFNOSUPPORT }
        if fresh6.isOpen { chosen = try fresh6.port() }
        ipv4 = fresh4
        ipv6 = fresh6
        port = chosen
        probe()
        return true
      } catch {
        let isWorthAnother =
          error == .EADDRINUSE && wanted == 0 && attempt < UDPSockets.attempts
        if !isWorthAnother { throw error }
        attempt += 1
      }
    }
  }

  /// A bound socket, or none if the host does not support the family.
  private static func open(
    _ family: IPAddress.Family, _ port: UInt16, _ mark: UInt32, _ bufferByteCount: Int32
  ) throws(SystemError) -> UDPSocket {
    do throws(SystemError) {
      return try UDPSocket(family, port: port, mark: mark, bufferByteCount: bufferByteCount)
    } catch {
      if error == .EAFNOSUPPORT || error == .EADDRNOTAVAIL { return .none }
      throw error
    }
  }

  /// Determines which of the offloads the kernel supports.
  private mutating func probe() {
    let hasGSO = (!ipv4.isOpen || ipv4.hasSegmentation) && (!ipv6.isOpen || ipv6.hasSegmentation)
    if !hasGSO { sending.subtract(.gso) }
    guard receiving.contains(.gro) else { return }
    let hasGRO = (!ipv4.isOpen || ipv4.setGRO(true)) && (!ipv6.isOpen || ipv6.setGRO(true))
    if hasGRO { return }
    receiving.subtract(.gro)
    // `receiving` describes both sockets, so GRO must not stay on for one of them.
    if ipv4.isOpen { _ = ipv4.setGRO(false) }
    if ipv6.isOpen { _ = ipv6.setGRO(false) }
  }

  /// Closes both sockets.
  mutating func close() {
    ipv4 = .none
    ipv6 = .none
    port = 0
  }

  /// Sets SO_MARK on the open sockets and on those opened later; 0 removes it. EPERM without
  /// CAP_NET_ADMIN.
  mutating func setMark(_ mark: UInt32) throws(SystemError) {
    if ipv4.isOpen { try ipv4.setMark(mark) }
    do throws(SystemError) {
      if ipv6.isOpen { try ipv6.setMark(mark) }
    } catch {
      // Set it on both or neither.
      if ipv4.isOpen { try? ipv4.setMark(self.mark) }
      throw error
    }
    self.mark = mark
  }

  // MARK: Receiving

  /// Stops using an offload, after the kernel has refused it.
  mutating func stopReceiving(_ way: Offloads) { receiving.subtract(way) }

  /// Receives one datagram from the socket of `family`.
  @inline(__always)
  func receive(
    into buffer: UnsafeMutableRawBufferPointer, _ family: IPAddress.Family
  ) -> UDPSocket.Received {
    switch family {
    case .ipv4: ipv4.receive(into: buffer)
    case .ipv6: ipv6.receive(into: buffer)
    }
  }

  /// Receives several datagrams in one call from the socket of `family`.
  func receive(
    _ messages: UDPSocket.Messages, into start: UnsafeMutableRawPointer, stride: Int,
    capacity: Int, count: Int, _ family: IPAddress.Family
  ) -> Int {
    switch family {
    case .ipv4:
      ipv4.receive(messages, into: start, stride: stride, capacity: capacity, count: count)
    case .ipv6:
      ipv6.receive(messages, into: start, stride: stride, capacity: capacity, count: count)
    }
  }

  // MARK: Sending

  /// Stops using an offload, after the kernel has refused it.
  mutating func stopSending(_ way: Offloads) { sending.subtract(way) }

  /// Sends one datagram through the socket of the endpoint's family; -EAFNOSUPPORT if there is
  /// none.
  @inline(__always)
  func send(
    _ bytes: UnsafeRawBufferPointer, to path: Path, trafficClass: UInt8 = 0
  ) -> UDPSocket.Sent {
    let isIPv4 = path.endpoint.address.family == .ipv4
    guard isIPv4 ? ipv4.isOpen : ipv6.isOpen else {
      return UDPSocket.Sent(result: -SystemError.EAFNOSUPPORT.code, isSourceGone: false)
    }
    return isIPv4
      ? ipv4.send(bytes, to: path, trafficClass: trafficClass)
      : ipv6.send(bytes, to: path, trafficClass: trafficClass)
  }

  /// See `UDPSocket.sendSegments`.
  func sendSegments(
    _ bytes: UnsafeRawBufferPointer, segmentByteCount: Int, to path: Path, trafficClass: UInt8
  ) -> Int32 {
    switch path.endpoint.address.family {
    case .ipv4:
      ipv4.sendSegments(
        bytes, segmentByteCount: segmentByteCount, to: path, trafficClass: trafficClass)
    case .ipv6:
      ipv6.sendSegments(
        bytes, segmentByteCount: segmentByteCount, to: path, trafficClass: trafficClass)
    }
  }

  /// See `UDPSocket.sendMany`.
  func sendMany(
    _ datagrams: UnsafePointer<clinux_slice>, count: Int, to path: Path, trafficClass: UInt8
  ) -> Int32 {
    switch path.endpoint.address.family {
    case .ipv4: ipv4.sendMany(datagrams, count: count, to: path, trafficClass: trafficClass)
    case .ipv6: ipv6.sendMany(datagrams, count: count, to: path, trafficClass: trafficClass)
    }
  }
}
