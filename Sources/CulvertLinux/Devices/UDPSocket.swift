import CLinux
import Culvert

/// A bound, non-blocking UDP socket of one family. No call of the data path throws or allocates;
/// results below zero are -errno.
struct UDPSocket: ~Copyable {
  private let descriptor: FileDescriptor

  /// Binds to all addresses of `family`.
  ///
  /// - Parameters:
  ///   - port: 0 for any free one.
  ///   - mark: SO_MARK; 0 for none. EPERM without CAP_NET_ADMIN.
  ///   - bufferByteCount: size of the kernel's receive and send buffers, as far as the system
  ///     permits. This is kernel memory, in addition to the arena.
  init(
    _ family: IPAddress.Family, port: UInt16, mark: UInt32, bufferByteCount: Int32
  ) throws(SystemError) {
    let raw = clinux_udp_open(Int32(family.rawValue), port, mark, bufferByteCount)
    descriptor = FileDescriptor(taking: try checked(raw))
  }

  private init() { descriptor = .none }

  /// No socket: every call returns -EBADF.
  static var none: UDPSocket { UDPSocket() }

  @inline(__always)
  var isOpen: Bool { descriptor.isOpen }

  /// For epoll; -1 if there is no socket.
  @inline(__always)
  var raw: Int32 { descriptor.raw }

  /// The bound port.
  func port() throws(SystemError) -> UInt16 {
    UInt16(truncatingIfNeeded: try checked(clinux_udp_port(descriptor.raw)))
  }

  func setMark(_ mark: UInt32) throws(SystemError) {
    try checked(clinux_udp_set_mark(descriptor.raw, mark))
  }

  // MARK: Receiving

  /// The result of receiving a datagram into a buffer.
  struct Received: Sendable, BitwiseCopyable {
    /// Bytes in the buffer, or -errno; with -errno the other fields have no meaning. -EAGAIN means
    /// that no datagram is queued. Any other error concerns one datagram, and receiving continues
    /// (R37).
    var byteCount: Int
    /// The sender, and the local address and interface on which the datagram arrived.
    var path: Path
    /// TOS or traffic class of the outer header: DSCP and ECN.
    var trafficClass: UInt8
    /// The datagram was longer than the buffer; it must be dropped and counted (R1).
    var isTruncated: Bool
    /// If the buffer holds several datagrams (UDP_GRO), the size of each but the last, which may be
    /// shorter; otherwise 0.
    var segmentByteCount = 0
  }

  /// Receives one datagram, or several of one sender if GRO is on.
  func receive(into buffer: UnsafeMutableRawBufferPointer) -> Received {
    var datagram = clinux_datagram()
    let count = clinux_udp_receive(
      descriptor.raw, buffer.baseAddress, buffer.count, &datagram)
    return Received(byteCount: count, datagram)
  }

  /// The fixed tables for receiving several datagrams in one call.
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

    /// A datagram that the last call received.
    subscript(index: Int) -> Received {
      Received(byteCount: Int(byteCounts[index]), datagrams[index])
    }

    /// Receives up to `count` datagrams of up to `capacity` bytes each, the one at index i into
    /// `start` + i * `stride`. Returns how many, or -errno.
    fileprivate func receive(
      _ raw: Int32, into start: UnsafeMutableRawPointer, stride: Int, capacity: Int, count: Int
    ) -> Int {
      Int(
        clinux_udp_receive_many(
          raw, start, stride, capacity, Int32(truncatingIfNeeded: count), datagrams, byteCounts))
    }
  }

  /// Receives several datagrams in one call; see `Messages.receive`.
  func receive(
    _ messages: Messages, into start: UnsafeMutableRawPointer, stride: Int, capacity: Int,
    count: Int
  ) -> Int {
    messages.receive(descriptor.raw, into: start, stride: stride, capacity: capacity, count: count)
  }

  /// Turns GRO on or off: several datagrams of one sender in one buffer. False if the kernel does
  /// not support it.
  func setGRO(_ isOn: Bool) -> Bool { clinux_udp_set_gro(descriptor.raw, isOn ? 1 : 0) == 0 }

  // MARK: Sending

  /// The result of sending a datagram.
  struct Sent: Sendable, BitwiseCopyable {
    /// 0, or -errno of the last attempt.
    var result: Int32
    /// The path's source address is no longer ours, so the caller must make it unspecified. The
    /// datagram was sent, or tried, again without it.
    var isSourceGone: Bool
  }

  /// Sends one datagram along `path`, whose endpoint has this socket's family.
  ///
  /// The path's source address is used if it is specified. If the kernel reports that this address
  /// is no longer ours (EINVAL or EADDRNOTAVAIL; for IPv4 ENETUNREACH on Linux 6.18; ENODEV for the
  /// interface of a link-local address), the datagram is sent again without it, as in the kernel's
  /// WireGuard.
  ///
  /// - Parameter trafficClass: the whole octet, DSCP and ECN.
  func send(
    _ bytes: UnsafeRawBufferPointer, to path: Path, trafficClass: UInt8 = 0
  ) -> Sent {
    var datagram = clinux_datagram(path, trafficClass: trafficClass)
    let result = clinux_udp_send(descriptor.raw, bytes.baseAddress, bytes.count, &datagram)
    let isRefused =
      result == -SystemError.EINVAL.code || result == -SystemError.EADDRNOTAVAIL.code
      || result == -SystemError.ENODEV.code || result == -SystemError.ENETUNREACH.code
    if !isRefused || path.source.isUnspecified { return Sent(result: result, isSourceGone: false) }
    datagram.source_high = 0
    datagram.source_low = 0
    let again = clinux_udp_send(descriptor.raw, bytes.baseAddress, bytes.count, &datagram)
    // If the error is the same without a source address, the source was not the cause.
    return Sent(result: again, isSourceGone: again != result)
  }

  /// Sends datagrams along one path in one call. Returns how many were sent, at least 1, or -errno
  /// of the first.
  func sendMany(
    _ datagrams: UnsafePointer<clinux_slice>, count: Int, to path: Path, trafficClass: UInt8
  ) -> Int32 {
    var datagram = clinux_datagram(path, trafficClass: trafficClass)
    return clinux_udp_send_many(
      descriptor.raw, datagrams, Int32(truncatingIfNeeded: count), &datagram)
  }

  /// Whether the kernel supports `sendSegments`.
  var hasSegmentation: Bool { clinux_udp_has_segmentation(descriptor.raw) == 0 }

  /// Sends a buffer as datagrams of `segmentByteCount` bytes, the last one with the rest. All are
  /// sent or none. Returns 0 or -errno.
  func sendSegments(
    _ bytes: UnsafeRawBufferPointer, segmentByteCount: Int, to path: Path, trafficClass: UInt8
  ) -> Int32 {
    var datagram = clinux_datagram(path, trafficClass: trafficClass)
    return clinux_udp_send_segments(
      descriptor.raw, bytes.baseAddress, bytes.count,
      UInt16(truncatingIfNeeded: segmentByteCount), &datagram)
  }
}

extension UDPSocket.Received {
  fileprivate init(byteCount: Int, _ datagram: clinux_datagram) {
    self.init(
      byteCount: byteCount, path: datagram.path, trafficClass: datagram.traffic_class,
      isTruncated: datagram.is_truncated != 0, segmentByteCount: Int(datagram.segment_byte_count))
  }
}

/// A non-blocking UDP socket to which local clients send datagrams that are forwarded through the
/// tunnel. It is bound to one address, or to all of a family. No call of the data path throws or
/// allocates.
struct ForwardSocket: ~Copyable {
  private let descriptor: FileDescriptor

  /// - Parameters:
  ///   - local: the unspecified address listens on all of its family. EACCES if the port needs
  ///     privileges, EADDRINUSE, EADDRNOTAVAIL.
  ///   - bufferByteCount: size of the kernel's buffers, as far as the system permits.
  init(listeningOn local: Endpoint, bufferByteCount: Int32) throws(SystemError) {
    var datagram = clinux_datagram(to: local)
    descriptor = FileDescriptor(
      taking: try checked(clinux_forward_open(&datagram, bufferByteCount)))
  }

  private init() { descriptor = .none }

  /// No socket: every call returns -EBADF.
  static var none: ForwardSocket { ForwardSocket() }

  /// For epoll.
  var raw: Int32 { descriptor.raw }

  /// The bound port.
  func port() throws(SystemError) -> UInt16 {
    UInt16(truncatingIfNeeded: try checked(clinux_udp_port(descriptor.raw)))
  }

  /// The result of receiving a datagram into a buffer.
  struct Received: BitwiseCopyable {
    /// Bytes in the buffer, or -errno; with -errno the other fields have no meaning. -EAGAIN means
    /// that no datagram is queued. Any other error concerns one datagram, and receiving continues
    /// (R37).
    var byteCount: Int
    /// The client, and the local address to which it sent the datagram.
    var client: Path
    var trafficClass: UInt8
    /// The datagram was longer than the buffer (R1).
    var isTruncated: Bool
  }

  /// Receives one datagram.
  func receive(into buffer: UnsafeMutableRawBufferPointer) -> Received {
    var datagram = clinux_datagram()
    let count = clinux_udp_receive(descriptor.raw, buffer.baseAddress, buffer.count, &datagram)
    return Received(
      byteCount: count, client: datagram.path, trafficClass: datagram.traffic_class,
      isTruncated: datagram.is_truncated != 0)
  }

  /// Sends one datagram to a client, from the address to which the client sent. Returns 0 or
  /// -errno.
  ///
  /// If that address is no longer ours, this fails: the client would not accept an answer from
  /// another address.
  func send(
    _ bytes: UnsafeRawBufferPointer, to client: Path, trafficClass: UInt8
  ) -> Int32 {
    var datagram = clinux_datagram(client, trafficClass: trafficClass)
    return clinux_udp_send(descriptor.raw, bytes.baseAddress, bytes.count, &datagram)
  }
}
