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
      for _ in 0..<10_000 {
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
      // Back along the path, without a traffic class.
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
        // Sending with a source address fails too, but not because of the source.
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
        #expect(shell("ip link set b0 up") == 0)
        try #require(addIPv6Address("fe80::77", length: 64, to: "a0"))
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

extension LinuxTests {
  @Suite struct UDPBindTests {
    func portIs(_ sockets: borrowing UDPSockets) throws -> Bool {
      let port4 = try sockets.ipv4.port()
      let port6 = try sockets.ipv6.port()
      return port4 == sockets.port && port6 == sockets.port && port4 != 0
    }

    @Test func bothFamiliesShareARandomPort() throws {
      var sockets = UDPSockets()
      #expect(!sockets.isOpen && sockets.port == 0)
      #expect(try sockets.bind(port: 0) == true)
      #expect(try portIs(sockets))
      sockets.close()
      #expect(!sockets.isOpen && sockets.port == 0 && sockets.ipv4.raw == -1)
    }

    @Test(.enabled(if: canMakeNamespaces))
    func R22_aRandomPortTakenForIPv6IsTriedAgain() throws {
      try inFreshNamespace { () throws in
        // 16 ports, half of which are taken for IPv6: about half of the first tries fail.
        #expect(shell("echo 40000 40015 > /proc/sys/net/ipv4/ip_local_port_range") == 0)
        var taken: [Int32] = []
        defer { for raw in taken { close(raw) } }
        for port in stride(from: UInt16(40_000), to: 40_016, by: 2) {
          let socket = try UDPSocket(.ipv6, port: port, mark: 0, bufferByteCount: 4096)
          taken.append(dup(socket.raw))
        }
        for _ in 0..<30 {
          var sockets = UDPSockets()
          try sockets.bind(port: 0)
          #expect(try portIs(sockets))
          #expect(sockets.port % 2 == 1 && sockets.port > 40_000)
        }
      }
    }

    @Test(.enabled(if: canMakeNamespaces))
    func aFixedPortTakenForIPv6IsRefusedAndTheOldPairStays() throws {
      try inFreshNamespace { () throws in
        let obstacle = try UDPSocket(.ipv6, port: 5555, mark: 0, bufferByteCount: 4096)
        var sockets = UDPSockets()
        try sockets.bind(port: 4444)
        let before = sockets.ipv4.raw
        #expect(throws: SystemError.EADDRINUSE) { try sockets.bind(port: 5555) }
        #expect(sockets.ipv4.raw == before && sockets.port == 4444)
        #expect(try portIs(sockets))
        _ = obstacle.raw
      }
    }

    @Test(.enabled(if: canMakeNamespaces))
    func R39_bindingToThePortItHasTouchesNothing() throws {
      try inFreshNamespace { () throws in
        var sockets = UDPSockets()
        #expect(try sockets.bind(port: 4444) == true)
        let ipv4 = sockets.ipv4.raw
        let ipv6 = sockets.ipv6.raw
        #expect(try sockets.bind(port: 4444) == false)
        #expect(sockets.ipv4.raw == ipv4 && sockets.ipv6.raw == ipv6)
        #expect(try sockets.bind(port: 4445) == true)
        #expect(try portIs(sockets))
      }
    }

    @Test(.enabled(if: canMakeNamespaces))
    func R27_rebindingLeaksNoDescriptor() throws {
      try inFreshNamespace { () throws in
        var sockets = UDPSockets()
        try sockets.bind(port: 0)
        let before = openDescriptorCount()
        for _ in 0..<1000 { try sockets.bind(port: 0) }
        #expect(openDescriptorCount() == before)
      }
    }

    /// The number of open descriptors below 1024.
    func openDescriptorCount() -> Int {
      (Int32(0)..<1024).count { isOpen($0) }
    }

    @Test(.enabled(if: canMakeNamespaces))
    func R23_worksWhereIPv6IsSwitchedOffBySysctl() throws {
      try inFreshNamespace { () throws in
        #expect(shell("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6") == 0)
        var sockets = UDPSockets()
        try sockets.bind(port: 0)
        #expect(sockets.ipv4.isOpen == true)
        let byte: [UInt8] = [1]
        let own = Path(to: Endpoint(address: loopback4, port: sockets.port))
        #expect(byte.withUnsafeBytes { sockets.send($0, to: own).result } == 0)
        let other = Path(to: Endpoint(address: loopback6, port: sockets.port))
        #expect(byte.withUnsafeBytes { sockets.send($0, to: other).result } < 0)
      }
    }

    @Test(.enabled(if: canFilterCalls), arguments: [IPAddress.Family.ipv4, .ipv6])
    func R23_worksWhereTheKernelLacksAFamily(missing: IPAddress.Family) {
      // The filter cannot be removed, so the test forks a process; its exit status is the result.
      let status = statusOfFork {
        guard refuseSockets(of: missing == .ipv4 ? AF_INET : AF_INET6) else { _exit(10) }
        var sockets = UDPSockets()
        guard (try? sockets.bind(port: 0)) == true else { _exit(11) }
        let isRight =
          sockets.port != 0 && sockets.ipv4.isOpen == (missing != .ipv4)
          && sockets.ipv6.isOpen == (missing != .ipv6)
        let address = missing == .ipv4 ? loopback4 : loopback6
        let byte: UInt8 = 1
        let result = withUnsafeBytes(of: byte) {
          sockets.send($0, to: Path(to: Endpoint(address: address, port: 9))).result
        }
        _exit(isRight ? (result == -EAFNOSUPPORT ? 0 : 12) : 13)
      }
      #expect(status == 0)
    }

    @Test(.enabled(if: canMakeNamespaces))
    func theMarkIsSetLiveAndOnNewSockets() throws {
      try inFreshNamespace { () throws in
        var sockets = UDPSockets()
        try sockets.bind(port: 0)
        try sockets.setMark(0x1234)
        #expect(mark(of: sockets.ipv4.raw) == 0x1234 && mark(of: sockets.ipv6.raw) == 0x1234)
        try sockets.bind(port: 0)
        #expect(mark(of: sockets.ipv4.raw) == 0x1234 && mark(of: sockets.ipv6.raw) == 0x1234)
        try sockets.setMark(0)
        #expect(mark(of: sockets.ipv4.raw) == 0)
      }
    }

    func mark(of raw: Int32) -> UInt32 {
      var mark: UInt32 = 0
      var length = socklen_t(4)
      getsockopt(raw, SOL_SOCKET, SO_MARK, &mark, &length)
      return mark
    }
  }
}

/// Whether the descriptor is open.
func isOpen(_ raw: Int32) -> Bool {
  var status = stat()
  return fstat(raw, &status) == 0
}

/// The filter below uses x86-64's system call number.
let canFilterCalls: Bool = {
  #if arch(x86_64)
    return geteuid() == 0
  #else
    return false
  #endif
}()

/// A BPF instruction (linux/filter.h).
private struct Instruction {
  var code: UInt16
  var ifTrue: UInt8
  var ifFalse: UInt8
  var operand: UInt32
}

private struct Program {
  var count: UInt16
  var instructions: UnsafePointer<Instruction>
}

/// Makes socket(`domain`) fail with EAFNOSUPPORT from now on, as on a kernel without that family.
private func refuseSockets(of domain: Int32) -> Bool {
  var code = (
    Instruction(code: 0x20, ifTrue: 0, ifFalse: 0, operand: 0),  // the call's number
    Instruction(code: 0x15, ifTrue: 0, ifFalse: 3, operand: 41),  // socket
    Instruction(code: 0x20, ifTrue: 0, ifFalse: 0, operand: 16),  // its first argument
    Instruction(code: 0x15, ifTrue: 0, ifFalse: 1, operand: UInt32(domain)),
    Instruction(code: 0x06, ifTrue: 0, ifFalse: 0, operand: 0x5_0000 | UInt32(EAFNOSUPPORT)),
    Instruction(code: 0x06, ifTrue: 0, ifFalse: 0, operand: 0x7fff_0000)
  )
  let prctl = Hidden.find("prctl", as: Hidden.Prctl.self)
  return withUnsafeBytes(of: &code) { bytes in
    var program = Program(
      count: 6, instructions: bytes.baseAddress!.assumingMemoryBound(to: Instruction.self))
    // PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with SECCOMP_MODE_FILTER.
    return withUnsafePointer(to: &program) {
      prctl(38, 1, 0, 0, 0) == 0 && prctl(22, 2, UInt(bitPattern: $0), 0, 0) == 0
    }
  }
}
