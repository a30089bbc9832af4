import CLinux
import Culvert

/// The pair of UDP sockets, IPv4 and IPv6, on one port. Either may be missing where the host lacks
/// the family (R23).
public struct UDPSockets: ~Copyable {
  public private(set) var ipv4: UDPSocket = .none
  public private(set) var ipv6: UDPSocket = .none
  /// The bound port; 0 while closed.
  public private(set) var port: UInt16 = 0
  /// SO_MARK of both; 0 for none.
  public private(set) var mark: UInt32 = 0
  /// Bytes that each socket's receive buffer is raised to.
  public let bufferByteCount: Int32

  /// Of gso and mmsg: how datagrams may be sent. The lane takes out what has failed.
  public private(set) var sending: Offloads
  /// Of gro and mmsg: how they may be received.
  public private(set) var receiving: Offloads

  /// Ports tried where a random one is free for IPv4 and taken for IPv6 (R22, as wireguard-go).
  static let attempts = 100

  /// Bytes of a receive buffer. One TCP flow has up to 6 MB on its way, and what finds no room
  /// while the CPU is elsewhere is lost; the kernel takes twice this number for data and its own
  /// administration. A small board lacks the memory, and the speed.
  public static func defaultBufferByteCount(for profile: Profile) -> Int {
    switch profile {
    case .tiny: 1 << 20
    case .standard: 4 << 20
    case .gateway: 8 << 20
    }
  }

  public init(
    bufferByteCount: Int32 = 1 << 20, offloads: Offloads = .all
  ) {
    self.bufferByteCount = bufferByteCount
    sending = offloads.intersection([.gso, .mmsg])
    receiving = offloads.intersection([.gro, .mmsg])
  }

  /// The kernel has refused this way of sending; for good.
  mutating func stopSending(_ way: Offloads) { sending.subtract(way) }
  mutating func stopReceiving(_ way: Offloads) { receiving.subtract(way) }

  public var isOpen: Bool { ipv4.isOpen || ipv6.isOpen }

  /// Binds both sockets to `port`, 0 for a random one. Returns true where the descriptors are new
  /// and epoll must be told; false where the port was this one already and nothing was touched
  /// (R39). On an error the sockets stay as they were.
  @discardableResult
  public mutating func bind(port wanted: UInt16) throws(SystemError) -> Bool {
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

  /// Finds out what the kernel does for many datagrams at once.
  private mutating func probe() {
    let hasGSO = (!ipv4.isOpen || ipv4.hasSegmentation) && (!ipv6.isOpen || ipv6.hasSegmentation)
    if !hasGSO { sending.subtract(.gso) }
    guard receiving.contains(.gro) else { return }
    let hasGRO = (!ipv4.isOpen || ipv4.setGRO(true)) && (!ipv6.isOpen || ipv6.setGRO(true))
    if hasGRO { return }
    receiving.subtract(.gro)
    // What only one socket has would be read wrongly from the other.
    if ipv4.isOpen { _ = ipv4.setGRO(false) }
    if ipv6.isOpen { _ = ipv6.setGRO(false) }
  }

  /// Closes both.
  public mutating func close() {
    ipv4 = .none
    ipv6 = .none
    port = 0
  }

  /// Sets SO_MARK on the open sockets and on those to come. 0 takes it off. EPERM without
  /// CAP_NET_ADMIN.
  public mutating func setMark(_ mark: UInt32) throws(SystemError) {
    if ipv4.isOpen { try ipv4.setMark(mark) }
    do throws(SystemError) {
      if ipv6.isOpen { try ipv6.setMark(mark) }
    } catch {
      // Both or neither.
      if ipv4.isOpen { try? ipv4.setMark(self.mark) }
      throw error
    }
    self.mark = mark
  }

  /// One datagram from the socket of `family`.
  @inline(__always)
  public func receive(
    into buffer: UnsafeMutableRawBufferPointer, _ family: IPAddress.Family
  ) -> UDPSocket.Received {
    switch family {
    case .ipv4: ipv4.receive(into: buffer)
    case .ipv6: ipv6.receive(into: buffer)
    }
  }

  /// One datagram through the socket of the endpoint's family; -EAFNOSUPPORT where it is missing.
  @inline(__always)
  public func send(
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

  /// Several datagrams in one call from the socket of `family`.
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

  /// A bound socket, or none where the host lacks the family.
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
}
