import CLinux
import Culvert

/// One bound, non-blocking UDP socket of one family. Nothing of the data path throws or allocates;
/// results below zero are -errno.
public struct UDPSocket: ~Copyable {
  private let descriptor: FileDescriptor

  /// What `receive` learnt besides the bytes.
  public struct Received: Sendable, BitwiseCopyable {
    /// Bytes in the buffer; or -errno, and then the other fields mean nothing. -EAGAIN is "no
    /// more"; any other error concerns one datagram, and receiving goes on (R37).
    public var byteCount: Int
    /// Where it came from, and the local address and interface it came to.
    public var path: Path
    /// TOS or traffic class of the outer header: DSCP and ECN.
    public var trafficClass: UInt8
    /// The datagram was longer than the buffer: to be dropped and counted (R1).
    public var isTruncated: Bool
    /// Where the buffer holds several datagrams (UDP_GRO), the size of each but the last, which may
    /// be shorter; else 0.
    public var segmentByteCount = 0
  }

  /// What became of a datagram.
  public struct Sent: Sendable, BitwiseCopyable {
    /// 0, or -errno of the last attempt.
    public var result: Int32
    /// The path's source address is not ours any more: the caller makes it unspecified. The
    /// datagram went out, or was tried, without it.
    public var isSourceGone: Bool
  }

  /// No socket: every call gives -EBADF.
  static var none: UDPSocket { UDPSocket(descriptor: .none) }

  private init(descriptor: consuming FileDescriptor) {
    self.descriptor = descriptor
  }

  /// Binds to all addresses of `family`.
  ///
  /// - Parameters:
  ///   - port: 0 for any free one.
  ///   - mark: SO_MARK; 0 for none. EPERM without CAP_NET_ADMIN.
  ///   - bufferByteCount: what the kernel's receive and send buffers are raised to where it allows
  ///     that; kernel memory, beside the arena.
  public init(
    _ family: IPAddress.Family, port: UInt16, mark: UInt32, bufferByteCount: Int32
  ) throws(SystemError) {
    let raw = clinux_udp_open(Int32(family.rawValue), port, mark, bufferByteCount)
    descriptor = FileDescriptor(taking: try checked(raw))
  }

  @inline(__always)
  public var isOpen: Bool { descriptor.isOpen }

  /// For epoll; -1 where there is no socket.
  @inline(__always)
  public var raw: Int32 { descriptor.raw }

  /// The bound port.
  public func port() throws(SystemError) -> UInt16 {
    UInt16(truncatingIfNeeded: try checked(clinux_udp_port(descriptor.raw)))
  }

  public func setMark(_ mark: UInt32) throws(SystemError) {
    try checked(clinux_udp_set_mark(descriptor.raw, mark))
  }

  /// One datagram.
  public func receive(into buffer: UnsafeMutableRawBufferPointer) -> Received {
    var datagram = clinux_datagram()
    let count = clinux_udp_receive(
      descriptor.raw, buffer.baseAddress, buffer.count, &datagram)
    return Received(byteCount: count, datagram)
  }

  /// What several datagrams of one call are read with: fixed tables.
  struct Messages {
    private let datagrams: UnsafeMutablePointer<clinux_datagram>
    private let byteCounts: UnsafeMutablePointer<UInt32>

    static let capacity = Int(CLINUX_MESSAGES_PER_CALL)

    init(carvingFrom arena: inout Arena) {
      let owner: StaticString = "received messages"
      // All-zero bytes are a valid value of the C type.
      datagrams = arena.carveBytes(
        Messages.capacity * MemoryLayout<clinux_datagram>.stride, owner: owner
      ).baseAddress!.assumingMemoryBound(to: clinux_datagram.self)
      byteCounts =
        arena.carve(UInt32.self, count: Messages.capacity, owner: owner).baseAddress!
    }

    /// One of those that the last call received.
    subscript(index: Int) -> Received {
      Received(byteCount: Int(byteCounts[index]), datagrams[index])
    }

    /// Up to `count` datagrams of up to `capacity` bytes each, the one at index i to `start` +
    /// i * `stride`. Returns how many, or -errno.
    fileprivate func receive(
      _ raw: Int32, into start: UnsafeMutableRawPointer, stride: Int, capacity: Int, count: Int
    ) -> Int {
      Int(
        clinux_udp_receive_many(
          raw, start, stride, capacity, Int32(truncatingIfNeeded: count), datagrams, byteCounts))
    }
  }

  /// Several datagrams in one call; see `Messages.receive`.
  func receive(
    _ messages: Messages, into start: UnsafeMutableRawPointer, stride: Int, capacity: Int,
    count: Int
  ) -> Int {
    messages.receive(descriptor.raw, into: start, stride: stride, capacity: capacity, count: count)
  }

  /// Asks for, or declines, several datagrams of one sender in one buffer. False where the kernel
  /// does not know it.
  func setGRO(_ isOn: Bool) -> Bool { clinux_udp_set_gro(descriptor.raw, isOn ? 1 : 0) == 0 }

  /// Whether the kernel knows how to send several datagrams from one buffer.
  var hasSegmentation: Bool { clinux_udp_has_segmentation(descriptor.raw) == 0 }

  /// Sends a buffer as datagrams of `segmentByteCount` bytes, the last with what is left: all or
  /// none. 0, or -errno.
  func sendSegments(
    _ bytes: UnsafeRawBufferPointer, segmentByteCount: Int, to path: Path, trafficClass: UInt8
  ) -> Int32 {
    var datagram = clinux_datagram(path, trafficClass: trafficClass)
    return clinux_udp_send_segments(
      descriptor.raw, bytes.baseAddress, bytes.count,
      UInt16(truncatingIfNeeded: segmentByteCount), &datagram)
  }

  /// Sends datagrams on one path. How many went out, at least 1, or -errno of the first.
  func sendMany(
    _ datagrams: UnsafePointer<clinux_slice>, count: Int, to path: Path, trafficClass: UInt8
  ) -> Int32 {
    var datagram = clinux_datagram(path, trafficClass: trafficClass)
    return clinux_udp_send_many(
      descriptor.raw, datagrams, Int32(truncatingIfNeeded: count), &datagram)
  }

  /// One datagram along `path`, whose endpoint is of this socket's family.
  ///
  /// A source address that is specified is used. Where the kernel says that it is not ours any
  /// more (EINVAL, for IPv4 ENETUNREACH on Linux 6.18; ENODEV for the interface of a link-local
  /// one), the datagram is sent again without it, as the kernel's WireGuard does.
  ///
  /// - Parameter trafficClass: the whole octet, DSCP and ECN.
  public func send(
    _ bytes: UnsafeRawBufferPointer, to path: Path, trafficClass: UInt8 = 0
  ) -> Sent {
    var datagram = clinux_datagram(path, trafficClass: trafficClass)
    let result = clinux_udp_send(descriptor.raw, bytes.baseAddress, bytes.count, &datagram)
    let isRefused =
      result == -Int32(CLINUX_EINVAL) || result == -Int32(CLINUX_EADDRNOTAVAIL)
      || result == -Int32(CLINUX_ENODEV) || result == -Int32(CLINUX_ENETUNREACH)
    if !isRefused || path.source.isUnspecified { return Sent(result: result, isSourceGone: false) }
    datagram.source_high = 0
    datagram.source_low = 0
    let again = clinux_udp_send(descriptor.raw, bytes.baseAddress, bytes.count, &datagram)
    // Refused in the same way without a source: it was not the source's fault.
    return Sent(result: again, isSourceGone: again != result)
  }
}

extension UDPSocket.Received {
  fileprivate init(byteCount: Int, _ datagram: clinux_datagram) {
    self.init(
      byteCount: byteCount, path: Path(datagram), trafficClass: datagram.traffic_class,
      isTruncated: datagram.is_truncated != 0, segmentByteCount: Int(datagram.segment_byte_count))
  }
}

extension Path {
  fileprivate init(_ datagram: clinux_datagram) {
    let isIPv6 = datagram.family == IPAddress.Family.ipv6.rawValue
    let address =
      isIPv6
      ? IPAddress(ipv6High: datagram.address_high, low: datagram.address_low)
      : IPAddress(ipv4: UInt32(truncatingIfNeeded: datagram.address_high >> 32))
    let source =
      isIPv6
      ? IPAddress(ipv6High: datagram.source_high, low: datagram.source_low)
      : IPAddress(ipv4: UInt32(truncatingIfNeeded: datagram.source_high >> 32))
    self.init(
      endpoint: Endpoint(address: address, port: datagram.port, scope: datagram.scope),
      source: source, interface: datagram.interface)
  }
}

extension clinux_datagram {
  fileprivate init(_ path: Path, trafficClass: UInt8) {
    self.init()
    address_high = path.endpoint.address.high
    address_low = path.endpoint.address.low
    source_high = path.source.high
    source_low = path.source.low
    scope = path.endpoint.scope
    interface = path.interface
    port = path.endpoint.port
    family = path.endpoint.address.family.rawValue
    traffic_class = trafficClass
  }
}

/// A local UDP socket whose clients are forwarded: bound to one address, or to all of a family, and
/// non-blocking. Nothing of the data path throws or allocates.
struct ForwardSocket: ~Copyable {
  private let descriptor: FileDescriptor

  /// What `receive` learnt besides the bytes.
  struct Received: BitwiseCopyable {
    /// Bytes in the buffer; or -errno, and then the other fields mean nothing. -EAGAIN is "no
    /// more"; any other error concerns one datagram, and receiving goes on (R37).
    var byteCount: Int
    /// The client, and which of our addresses it asked.
    var client: Path
    var trafficClass: UInt8
    /// The datagram was longer than the buffer (R1).
    var isTruncated: Bool
  }

  /// - Parameters:
  ///   - local: the unspecified address listens on all of its family. EACCES where the port needs a
  ///     right, EADDRINUSE, EADDRNOTAVAIL.
  ///   - bufferByteCount: what the kernel's buffers are raised to where it allows that.
  init(listeningOn local: Endpoint, bufferByteCount: Int32) throws(SystemError) {
    var datagram = clinux_datagram(to: Path(to: local), trafficClass: 0)
    descriptor = FileDescriptor(
      taking: try checked(clinux_forward_open(&datagram, bufferByteCount)))
  }

  private init() { descriptor = .none }

  /// No socket: every call gives -EBADF.
  static var none: ForwardSocket { ForwardSocket() }

  /// For epoll.
  var raw: Int32 { descriptor.raw }

  /// The bound port.
  func port() throws(SystemError) -> UInt16 {
    UInt16(truncatingIfNeeded: try checked(clinux_udp_port(descriptor.raw)))
  }

  /// One datagram.
  func receive(into buffer: UnsafeMutableRawBufferPointer) -> Received {
    var datagram = clinux_datagram()
    let count = clinux_udp_receive(descriptor.raw, buffer.baseAddress, buffer.count, &datagram)
    return Received(
      byteCount: count, client: datagram.client, trafficClass: datagram.traffic_class,
      isTruncated: datagram.is_truncated != 0)
  }

  /// One datagram to a client, from the address that it asked. 0, or -errno.
  ///
  /// An address that is not ours any more is an error: from another one the client would not take
  /// the answer.
  func send(
    _ bytes: UnsafeRawBufferPointer, to client: Path, trafficClass: UInt8
  ) -> Int32 {
    var datagram = clinux_datagram(to: client, trafficClass: trafficClass)
    return clinux_udp_send(descriptor.raw, bytes.baseAddress, bytes.count, &datagram)
  }
}

extension clinux_datagram {
  fileprivate init(to path: Path, trafficClass: UInt8) {
    self.init()
    address_high = path.endpoint.address.high
    address_low = path.endpoint.address.low
    source_high = path.source.high
    source_low = path.source.low
    scope = path.endpoint.scope
    interface = path.interface
    port = path.endpoint.port
    family = path.endpoint.address.family.rawValue
    traffic_class = trafficClass
  }

  fileprivate var client: Path {
    let endpoint = Endpoint(
      address: address(address_high, address_low), port: port, scope: scope)
    return Path(
      endpoint: endpoint, source: address(source_high, source_low), interface: interface)
  }

  private func address(_ high: UInt64, _ low: UInt64) -> IPAddress {
    family == IPAddress.Family.ipv6.rawValue
      ? IPAddress(ipv6High: high, low: low)
      : IPAddress(ipv4: UInt32(truncatingIfNeeded: high >> 32))
  }
}
