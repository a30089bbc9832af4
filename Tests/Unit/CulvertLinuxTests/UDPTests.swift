import Culvert
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite struct UDPTests {
    /// Waits for one datagram.
    func receive(
      _ sockets: borrowing UDPSockets, _ family: IPAddress.Family, capacity: Int = 2048
    ) -> (bytes: [UInt8], received: UDPSocket.Received) {
      var buffer = [UInt8](repeating: 0, count: capacity)
      var received = UDPSocket.Received(
        byteCount: -1, path: Path(to: Endpoint(address: loopback4, port: 0)), trafficClass: 0,
        isTruncated: false)
      for _ in 0..<1000 {
        received = buffer.withUnsafeMutableBytes { sockets.receive(into: $0, family) }
        if received.byteCount != -Int(EAGAIN) { break }
        usleep(1000)
      }
      return (Array(buffer.prefix(max(0, received.byteCount))), received)
    }

    func send(
      _ sockets: borrowing UDPSockets, _ text: String, to path: Path, trafficClass: UInt8 = 0
    ) -> UDPSocket.Sent {
      bytes(text).withUnsafeBytes { sockets.send($0, to: path, trafficClass: trafficClass) }
    }

    @Test(arguments: [loopback4, loopback6])
    func pathAndTrafficClassArrive(address: IPAddress) throws {
      var left = UDPSockets()
      var right = UDPSockets()
      try left.bind(port: 0)
      try right.bind(port: 0)
      let target = Endpoint(address: address, port: right.port)
      let sent = send(left, "hello", to: Path(to: target), trafficClass: 0xb9)
      #expect(sent.result == 0 && !sent.isSourceGone)
      let (bytes, received) = receive(right, address.family)
      #expect(bytes == Array("hello".utf8))
      #expect(received.path.endpoint == Endpoint(address: address, port: left.port))
      #expect(received.path.source == address)
      #expect(received.path.interface == 1)
      #expect(received.trafficClass == 0xb9)
      #expect(!received.isTruncated)
      // And back along the path, without a class.
      #expect(send(right, "world", to: received.path).result == 0)
      let (answer, back) = receive(left, address.family)
      #expect(answer == Array("world".utf8))
      #expect(back.path.endpoint == target)
      #expect(back.trafficClass == 0)
    }

    @Test func answersComeFromTheAddressThatWasAsked() throws {
      var left = UDPSockets()
      var right = UDPSockets()
      try left.bind(port: 0)
      try right.bind(port: 0)
      let asked = IPAddress(ipv4: 0x7f00_0063)
      _ = send(left, "?", to: Path(to: Endpoint(address: asked, port: right.port)))
      let (_, received) = receive(right, .ipv4)
      #expect(received.path.source == asked)
      _ = send(right, "!", to: received.path)
      #expect(receive(left, .ipv4).received.path.endpoint.address == asked)
    }

    @Test(arguments: [
      (loopback4, IPAddress(ipv4: 0xc000_0263)),
      (loopback6, IPAddress(ipv6High: 0x2001_0db8_0000_0000, low: 99)),
    ])
    func aSourceThatIsGoneIsLeftOutAndReported(
      address: IPAddress, gone: IPAddress
    ) throws {
      var sockets = UDPSockets()
      try sockets.bind(port: 0)
      let endpoint = Endpoint(address: address, port: sockets.port)
      let sent = send(sockets, "x", to: Path(endpoint: endpoint, source: gone))
      #expect(sent.result == 0 && sent.isSourceGone)
      #expect(receive(sockets, address.family).received.path.endpoint == endpoint)
    }

    @Test(arguments: [loopback4, loopback6])
    func R1_aDatagramLongerThanTheBufferIsFlaggedAndReceivingGoesOn(address: IPAddress) throws {
      var sockets = UDPSockets()
      try sockets.bind(port: 0)
      let path = Path(to: Endpoint(address: address, port: sockets.port))
      _ = send(sockets, String(repeating: "a", count: 100), to: path)
      _ = send(sockets, "short", to: path)
      let (cut, first) = receive(sockets, address.family, capacity: 64)
      #expect(cut.count == 64 && first.isTruncated)
      let (whole, second) = receive(sockets, address.family, capacity: 64)
      #expect(whole == Array("short".utf8) && !second.isTruncated)
      _ = send(sockets, String(repeating: "b", count: 64), to: path)
      #expect(!receive(sockets, address.family, capacity: 64).received.isTruncated)
    }

    @Test func R37_aReceiveErrorDoesNotEndReception() throws {
      var sockets = UDPSockets()
      try sockets.bind(port: 0)
      let path = Path(to: Endpoint(address: loopback4, port: sockets.port))
      _ = send(sockets, "lost", to: path)
      _ = send(sockets, "kept", to: path)
      let nowhere = UnsafeMutableRawBufferPointer(
        start: UnsafeMutableRawPointer(bitPattern: 4096), count: 64)
      #expect(sockets.receive(into: nowhere, .ipv4).byteCount == -Int(EFAULT))
      #expect(receive(sockets, .ipv4).bytes == Array("kept".utf8))
      var buffer = [UInt8](repeating: 0, count: 64)
      let empty = buffer.withUnsafeMutableBytes { sockets.receive(into: $0, .ipv4).byteCount }
      #expect(empty == -Int(EAGAIN))
    }

    @Test(.enabled(if: canMakeNamespaces))
    func R20_sendErrorsAreResultsAndTheSocketGoesOn() throws {
      try inFreshNamespace { () throws in
        var sockets = UDPSockets()
        try sockets.bind(port: 0)
        let far = Endpoint(address: IPAddress(ipv4: 0xc633_6401), port: 9)
        #expect(send(sockets, "x", to: Path(to: far)).result == -ENETUNREACH)
        let own = Path(to: Endpoint(address: loopback4, port: sockets.port))
        let huge = String(repeating: "h", count: 70_000)
        #expect(send(sockets, huge, to: own).result == -EMSGSIZE)
        // A peer's path with a source fails in the same way, and it is not the source's fault.
        let asked = Path(endpoint: far, source: loopback4)
        let sent = send(sockets, "x", to: asked)
        #expect(sent.result < 0)
        #expect(send(sockets, "y", to: own).result == 0)
        #expect(receive(sockets, .ipv4).bytes == Array("y".utf8))
      }
    }

    @Test(.enabled(if: canMakeNamespaces))
    func linkLocalPathsCarryTheirScope() throws {
      try inFreshNamespace { () throws in
        #expect(shell("ip link add a0 type veth peer name b0 && ip link set a0 up") == 0)
        #expect(shell("ip link set b0 up && ip addr add fe80::77/64 dev a0 nodad") == 0)
        var sockets = UDPSockets()
        try sockets.bind(port: 0)
        let index = if_nametoindex("a0")
        let address = IPAddress(ipv6High: 0xfe80_0000_0000_0000, low: 0x77)
        let endpoint = Endpoint(address: address, port: sockets.port, scope: index)
        #expect(send(sockets, "ll", to: Path(to: endpoint)).result == 0)
        let (_, received) = receive(sockets, .ipv6)
        #expect(received.path.endpoint == endpoint)
        #expect(received.path.source == address)
        #expect(received.path.interface == index)
        let sent = send(sockets, "back", to: received.path)
        #expect(sent.result == 0 && !sent.isSourceGone)
      }
    }

    @Test(.enabled(if: canMakeNamespaces))
    func outerDatagramsMayBeFragmented() throws {
      try inFreshNamespace { () throws in
        #expect(shell("ip link set lo mtu 1300") == 0)
        var sockets = UDPSockets()
        try sockets.bind(port: 0)
        for address in [loopback4, loopback6] {
          let path = Path(to: Endpoint(address: address, port: sockets.port))
          let large = String(repeating: "l", count: 1900)
          #expect(send(sockets, large, to: path).result == 0)
          #expect(receive(sockets, address.family).received.byteCount == 1900)
        }
      }
    }
  }
}
