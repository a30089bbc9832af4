import Glibc
import Testing

@testable import Culvert

/// One end of a TCP connection in this namespace; it never blocks.
final class TCPEnd {
  private var socket: Int32
  private let family: IPAddress.Family
  private var isListening = false
  private var buffer = [UInt8](repeating: 0, count: 1 << 16)

  init(_ family: IPAddress.Family) {
    self.family = family
    socket = Glibc.socket(
      family == .ipv4 ? AF_INET : AF_INET6,
      Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
    #expect(socket >= 0)
  }

  deinit {
    close(socket)
  }

  func listen(at port: UInt16) {
    let any = family == .ipv4 ? IPAddress(ipv4: 0) : IPAddress(ipv6High: 0, low: 0)
    #expect(withAddress(any, port) { Glibc.bind(socket, $0, $1) } == 0)
    #expect(Glibc.listen(socket, 1) == 0)
    isListening = true
  }

  func connect(to address: IPAddress, port: UInt16) {
    let result = withAddress(address, port) { Glibc.connect(socket, $0, $1) }
    #expect(result == 0 || errno == EINPROGRESS)
  }

  /// Returns how many bytes the socket accepted.
  func send(_ bytes: ArraySlice<UInt8>) -> Int {
    bytes.withUnsafeBytes {
      max(
        0, Glibc.send(socket, $0.baseAddress, min($0.count, 1 << 16), Int32(MSG_NOSIGNAL)))
    }
  }

  /// Accepts the connection first, then returns received bytes.
  func receive() -> [UInt8] {
    if isListening {
      let accepted = accept(socket, nil, nil)
      guard accepted >= 0 else { return [] }
      _ = fcntl(accepted, F_SETFL, O_NONBLOCK)
      close(socket)
      socket = accepted
      isListening = false
    }
    let count = recv(socket, &buffer, buffer.count, 0)
    return Array(buffer.prefix(max(0, count)))
  }

  private func withAddress(
    _ address: IPAddress, _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
  ) -> Int32 {
    if family == .ipv4 {
      var value = sockaddr_in()
      value.sin_family = sa_family_t(AF_INET)
      value.sin_port = port.bigEndian
      value.sin_addr.s_addr = address.ipv4Bits.bigEndian
      return withUnsafePointer(to: &value) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
      }
    }
    var value = sockaddr_in6()
    value.sin6_family = sa_family_t(AF_INET6)
    value.sin6_port = port.bigEndian
    withUnsafeMutableBytes(of: &value.sin6_addr) { address.write(to: $0.baseAddress!) }
    return withUnsafePointer(to: &value) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        body($0, socklen_t(MemoryLayout<sockaddr_in6>.size))
      }
    }
  }
}
