import Culvert
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite struct ForwardSocketTests {
    private func open(_ address: IPAddress, port: UInt16 = 0) throws -> ForwardSocket {
      try ForwardSocket(
        listeningOn: Endpoint(address: address, port: port), bufferByteCount: 1 << 18)
    }

    /// Waits for one datagram.
    private func receive(
      _ socket: borrowing ForwardSocket, capacity: Int = 2048
    ) -> (bytes: [UInt8], received: ForwardSocket.Received) {
      var buffer = [UInt8](repeating: 0, count: capacity)
      var received = buffer.withUnsafeMutableBytes { socket.receive(into: $0) }
      for _ in 0..<10_000 where received.byteCount == -Int(EAGAIN) {
        usleep(1000)
        received = buffer.withUnsafeMutableBytes { socket.receive(into: $0) }
      }
      return (Array(buffer.prefix(max(0, received.byteCount))), received)
    }

    private func send(
      _ socket: borrowing ForwardSocket, _ text: String, to client: Path, trafficClass: UInt8 = 0
    ) -> Int32 {
      bytes(text).withUnsafeBytes { socket.send($0, to: client, trafficClass: trafficClass) }
    }

    private func path(_ address: IPAddress, _ port: UInt16) -> Path {
      Path(to: Endpoint(address: address, port: port))
    }

    @Test(arguments: [loopback4, loopback6])
    func clientsAreHeardAndAnswered(address: IPAddress) throws {
      let socket = try open(address)
      let client = try open(address)
      let port = try socket.port()
      #expect(send(client, "?", to: path(address, port), trafficClass: 0xb8) == 0)
      let (question, received) = receive(socket)
      #expect(question == bytes("?") && received.trafficClass == 0xb8 && !received.isTruncated)
      let clientPort = try client.port()
      #expect(received.client.endpoint == Endpoint(address: address, port: clientPort))
      #expect(received.client.source == address)
      #expect(send(socket, "!", to: received.client, trafficClass: 0x02) == 0)
      let (answer, back) = receive(client)
      #expect(answer == bytes("!") && back.trafficClass == 0x02)
      #expect(back.client.endpoint == Endpoint(address: address, port: port))
    }

    @Test func answersComeFromTheAddressThatWasAsked() throws {
      let socket = try open(IPAddress(ipv4: 0))
      let client = try open(loopback4)
      let asked = IPAddress(ipv4: 0x7f00_0063)
      let port = try socket.port()
      _ = send(client, "?", to: path(asked, port))
      let (_, received) = receive(socket)
      #expect(received.client.source == asked)
      #expect(send(socket, "!", to: received.client) == 0)
      #expect(receive(client).received.client.endpoint == Endpoint(address: asked, port: port))
    }

    /// The client would reject an answer from another address.
    @Test func anAnswerFromAnAddressThatIsGoneIsAnError() throws {
      let socket = try open(IPAddress(ipv4: 0))
      let client = try open(loopback4)
      var path = path(loopback4, try client.port())
      path.source = IPAddress(ipv4: 0xc000_0263)
      #expect(send(socket, "!", to: path) < 0)
    }

    /// A socket bound to one address does not receive datagrams to another.
    @Test func onlyItsOwnAddressIsListenedOn() throws {
      let socket = try open(loopback4)
      let other = try open(IPAddress(ipv4: 0x7f00_0002), port: try socket.port())
      let client = try open(loopback4)
      _ = send(client, "other", to: path(IPAddress(ipv4: 0x7f00_0002), try socket.port()))
      #expect(receive(other).bytes == bytes("other"))
      var buffer = [UInt8](repeating: 0, count: 64)
      let left = buffer.withUnsafeMutableBytes { socket.receive(into: $0).byteCount }
      #expect(left == -Int(EAGAIN))
    }

    @Test func R1_aLongerDatagramIsFlaggedAndReceivingGoesOn() throws {
      let socket = try open(loopback4)
      let client = try open(loopback4)
      let path = path(loopback4, try socket.port())
      _ = send(client, String(repeating: "a", count: 100), to: path)
      _ = send(client, "short", to: path)
      #expect(receive(socket, capacity: 64).received.isTruncated)
      let (whole, second) = receive(socket, capacity: 64)
      #expect(whole == bytes("short") && !second.isTruncated)
    }

    @Test func whatCannotBeBoundIsTold() throws {
      let socket = try open(loopback4)
      let port = try socket.port()
      #expect(throws: SystemError.EADDRINUSE) { _ = try open(loopback4, port: port) }
      #expect(throws: SystemError.EADDRNOTAVAIL) { _ = try open(IPAddress(ipv4: 0xc000_0263)) }
      // Both families on one port: an IPv6 socket does not receive IPv4.
      let six = try open(IPAddress(ipv6High: 0, low: 0), port: port)
      #expect(try six.port() == port)
    }

    @Test(.enabled(if: canMakeNamespaces))
    func linkLocalAddressesCarryTheirScope() throws {
      try inFreshNamespace { () throws in
        #expect(shell("ip link add a0 type veth peer name b0 && ip link set a0 up") == 0)
        #expect(shell("ip link set b0 up") == 0)
        try #require(addIPv6Address("fe80::77", length: 64, to: "a0"))
        let address = IPAddress(ipv6High: 0xfe80 << 48, low: 0x77)
        let local = Endpoint(address: address, port: 0, scope: if_nametoindex("a0"))
        let socket = try ForwardSocket(listeningOn: local, bufferByteCount: 1 << 18)
        let client = try ForwardSocket(listeningOn: local, bufferByteCount: 1 << 18)
        var target = local
        target.port = try socket.port()
        #expect(send(client, "ll", to: Path(to: target)) == 0)
        let (_, received) = receive(socket)
        #expect(received.client.endpoint.scope == local.scope)
        #expect(send(socket, "back", to: received.client) == 0)
        #expect(receive(client).bytes == bytes("back"))
      }
    }
  }
}
