import CLinux
import Culvert

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
