import CLinux
import Culvert

/// A raw socket that tells clients of `culvert forward` that a port is closed, as the kernel does
/// for a local port: with an ICMP "port unreachable" (R67). Needs CAP_NET_RAW.
struct RefusalSocket: ~Copyable {
  private let descriptor: FileDescriptor

  /// EPERM without CAP_NET_RAW.
  init(_ family: IPAddress.Family) throws(SystemError) {
    descriptor = FileDescriptor(taking: try checked(clinux_refusal_open(Int32(family.rawValue))))
  }

  private init() { descriptor = .none }

  /// No socket: every call returns -EBADF.
  static var none: RefusalSocket { RefusalSocket() }

  var isOpen: Bool { descriptor.isOpen }

  /// Refuses a datagram that `client` has sent to its path's source address and to `port`. Returns
  /// 0 or -errno.
  func refuse(_ client: Path, port: UInt16) -> Int32 {
    var datagram = clinux_datagram(client)
    return clinux_refusal_send(descriptor.raw, &datagram, port)
  }
}

extension ForwardSocket {
  /// Keeps the port, but receives nothing: the kernel refuses all datagrams with an ICMP "port
  /// unreachable". Datagrams that are queued already can still be received. Returns 0 or -errno.
  ///
  /// The socket is connected to itself. Nobody else sends from that port, so no datagram matches.
  func close() -> Int32 { clinux_forward_close(raw) }

  /// Ends what `close` has begun. Returns 0 or -errno.
  func reopen() -> Int32 { clinux_forward_reopen(raw) }
}
