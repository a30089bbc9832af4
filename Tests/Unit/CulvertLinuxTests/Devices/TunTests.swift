import CLinux
import Culvert
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite(.enabled(if: canMakeNamespaces)) struct TunTests {
    let name = InterfaceName("cvt0")!

    func create(_ name: InterfaceName) throws -> TunDevice {
      try TunDevice.create(name, offloads: .none)
    }

    /// An ICMP echo request of 28 bytes from 10.9.0.2 to 10.9.0.1.
    var echoRequest: [UInt8] {
      var packet: [UInt8] = [
        0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1,
        8, 0, 0, 0, 0, 7, 0, 1,
      ]
      func checksum(_ range: Range<Int>) -> UInt16 {
        var sum: UInt32 = 0
        for index in stride(from: range.lowerBound, to: range.upperBound, by: 2) {
          sum += UInt32(packet[index]) << 8 | UInt32(packet[index + 1])
        }
        while sum > 0xffff { sum = sum >> 16 + sum & 0xffff }
        return ~UInt16(sum)
      }
      let header = checksum(0..<20)
      packet[10] = UInt8(header >> 8)
      packet[11] = UInt8(header & 0xff)
      let message = checksum(20..<28)
      packet[22] = UInt8(message >> 8)
      packet[23] = UInt8(message & 0xff)
      return packet
    }

    @Test func createsWithMTUAndReportsItself() throws {
      try inFreshNamespace { () throws in
        let tun = try create(name)
        #expect(try tun.state() == LinkState(name: name, mtu: 1420, isUp: false))
        let index = try tun.interfaceIndex()
        #expect(index == if_nametoindex("cvt0") && index > 0)
        #expect(try tun.isPersistent() == false)
        try tun.setMTU(1280)
        try tun.setUp(true)
        #expect(try tun.state() == LinkState(name: name, mtu: 1280, isUp: true))
        #expect(throws: SystemError.EINVAL) { try tun.setMTU(67) }
        #expect(throws: SystemError.EINVAL) { try tun.setMTU(70_000) }
        #expect(tun.isAttached == true)
      }
    }

    @Test func theKernelNumbersAName() throws {
      try inFreshNamespace { () throws in
        let tun = try create(InterfaceName("cvt%d")!)
        #expect(try tun.name() == name)
      }
    }

    @Test func anInterfaceInUseIsBusyAndAnotherKindIsRefused() throws {
      try inFreshNamespace { () throws in
        let tun = try create(name)
        #expect(throws: SystemError.EBUSY) { _ = try create(name) }
        #expect(throws: SystemError.EINVAL) { _ = try create(InterfaceName("lo")!) }
        #expect(tun.isAttached == true)
        #expect(shell("ip tuntap add mode tun name cvt1") == 0)
        let persistent = try create(InterfaceName("cvt1")!)
        #expect(try persistent.isPersistent() == true)
      }
    }

    @Test func theInterfaceGoesWithItsDevice() throws {
      try inFreshNamespace { () throws in
        do {
          let tun = try create(name)
          #expect(tun.isAttached == true)
        }
        #expect(if_nametoindex("cvt0") == 0)
      }
    }

    @Test func packetsGoInAndOut() throws {
      try inFreshNamespace { () throws in
        let tun = try create(name)
        var buffer = [UInt8](repeating: 0, count: 2048)
        #expect(buffer.withUnsafeMutableBytes { tun.read(into: $0).byteCount } == -Int(EAGAIN))
        #expect(write(echoRequest, to: tun) == -Int(EIO))
        try tun.setUp(true)
        #expect(shell("ip addr add 10.9.0.1/24 dev cvt0") == 0)
        #expect(write(echoRequest, to: tun) == 28)
        // On a new interface the kernel also sends IPv6 packets; the reply is among them.
        let isAnswered = eventually {
          let count = buffer.withUnsafeMutableBytes { tun.read(into: $0).byteCount }
          return count == 28 && buffer[9] == 1 && buffer[20] == 0
        }
        #expect(isAnswered)
        #expect(Array(buffer[12..<20]) == [10, 9, 0, 1, 10, 9, 0, 2])
        let nonsense = [UInt8](repeating: 0, count: 20)
        #expect(write(nonsense, to: tun) == -Int(EINVAL))
      }
    }

    /// A launcher may pass a descriptor with virtio headers: reading removes them, and writing adds
    /// them in the headroom.
    @Test func aDeviceWithPacketHeadersIsAdopted() throws {
      try inFreshNamespace { () throws in
        let raw = name.withCString { clinux_tun_open($0, UInt32(CLINUX_TUN_VNET_HDR)) }
        #expect(raw >= 0)
        let tun = try TunDevice.adopt(raw, offloads: .none)
        try tun.setUp(true)
        #expect(shell("ip addr add 10.9.0.1/24 dev cvt0") == 0)
        #expect(write(echoRequest, to: tun) == 28)
        var buffer = [UInt8](repeating: 0, count: 2048)
        let isAnswered = eventually {
          buffer.withUnsafeMutableBytes {
            let room = UnsafeMutableRawBufferPointer(rebasing: $0[TunDevice.headroom...])
            return tun.read(into: room).byteCount == 28 && room[9] == 1 && room[20] == 0
          }
        }
        #expect(isAnswered)
      }
    }

    /// Writes a packet with the headroom that `write` asks for.
    private func write(_ packet: [UInt8], to tun: borrowing TunDevice) -> Int {
      var bytes = [UInt8](repeating: 0xee, count: TunDevice.headroom) + packet
      return bytes.withUnsafeMutableBytes {
        tun.write(UnsafeMutableRawBufferPointer(rebasing: $0[TunDevice.headroom...]))
      }
    }

    @Test func anOpenDeviceIsAdopted() throws {
      try inFreshNamespace { () throws in
        let tun = try create(name)
        try tun.setMTU(1300)
        let adopted = try TunDevice.adopt(dup(tun.raw), offloads: .none)
        #expect(try adopted.state() == LinkState(name: name, mtu: 1300, isUp: false))
        #expect(throws: SystemError.self) {
          _ = try TunDevice.adopt(open("/dev/null", O_RDWR), offloads: .none)
        }
        #expect(throws: SystemError.EBADF) { _ = try TunDevice.adopt(900, offloads: .none) }
      }
    }

    @Test func R25_deletionIsNoticed() throws {
      try inFreshNamespace { () throws in
        let tun = try create(name)
        let index = try tun.interfaceIndex()
        let netlink = try Netlink.open()
        #expect(shell("ip link del cvt0") == 0)
        #expect(netlink.news(about: index).contains(.linkDeleted))
        #expect(tun.isAttached == false)
        var buffer = [UInt8](repeating: 0, count: 64)
        #expect(buffer.withUnsafeMutableBytes { tun.read(into: $0).byteCount } == -Int(EBADFD))
        #expect(throws: SystemError.EBADFD) { _ = try tun.state() }
      }
    }

    @Test func aMoveToAnotherNamespaceIsFollowed() throws {
      try inFreshNamespace { () throws in
        let other = "culvert-test-\(getpid())"
        #expect(shell("ip netns add \(other)") == 0)
        defer { shell("ip netns del \(other)") }
        var tun = try create(name)
        let here = try Netlink.open()
        #expect(shell("ip link set cvt0 netns \(other)") == 0)
        let index = try tun.name().withCString { if_nametoindex($0) }
        #expect(index == 0)
        #expect(tun.isAttached == true)
        #expect(throws: SystemError.ENODEV) { _ = try tun.state() }
        #expect(here.raw >= 0)

        let namespace = try tun.followNamespace()
        let netlink = try Netlink.open(in: namespace)
        let there = try tun.interfaceIndex()
        try tun.setMTU(1333)
        let state = LinkState(name: name, mtu: 1333, isUp: false)
        #expect(try tun.state() == state)
        #expect(netlink.news(about: there).contains(.linkChanged(state)))
        #expect(shell("ip -n \(other) link del cvt0") == 0)
        #expect(netlink.news(about: there).contains(.linkDeleted))
        #expect(tun.isAttached == false)
        // This thread is still in its own namespace.
        #expect(shell("ip link show cvt0") != 0)
      }
    }
  }

  @Suite(.enabled(if: canMakeNamespaces)) struct NetlinkTests {
    @Test func changesOfOneInterfaceAreToldApart() throws {
      try inFreshNamespace { () throws in
        let name = InterfaceName("cvt0")!
        let tun = try TunDevice.create(name, offloads: .none)
        let index = try tun.interfaceIndex()
        let netlink = try Netlink.open()
        #expect(netlink.next(about: index) == .drained)
        try tun.setMTU(1300)
        let changed = LinkState(name: name, mtu: 1300, isUp: false)
        #expect(netlink.news(about: index).last == .linkChanged(changed))
        #expect(shell("ip link set lo mtu 1400") == 0)
        #expect(netlink.news(about: index).allSatisfy { $0 == .unrelated })
        #expect(shell("ip link set cvt0 name cvt9") == 0)
        try tun.setUp(true)
        let renamed = LinkState(name: InterfaceName("cvt9")!, mtu: 1300, isUp: true)
        #expect(netlink.news(about: index).last == .linkChanged(renamed))
        #expect(try tun.state() == renamed)
      }
    }

    @Test func lostNewsIsReported() throws {
      try inFreshNamespace { () throws in
        let tun = try TunDevice.create(InterfaceName("cvt0")!, offloads: .none)
        let index = try tun.interfaceIndex()
        let netlink = try Netlink.open()
        var small: Int32 = 1
        setsockopt(netlink.raw, SOL_SOCKET, SO_RCVBUF, &small, 4)
        for mtu in 0..<100 { try tun.setMTU(1280 + UInt32(mtu)) }
        #expect(netlink.news(about: index).contains(.overflow))
        try tun.setMTU(1400)
        let state = try tun.state()
        #expect(netlink.news(about: index).last == .linkChanged(state))
      }
    }
  }
}

extension Netlink {
  /// All pending events.
  borrowing func news(about index: UInt32) -> [Event] {
    var events: [Event] = []
    while true {
      let event = next(about: index)
      if event == .drained { return events }
      events.append(event)
      if case .failed = event { return events }
    }
  }
}

extension LinuxTests {
  @Suite(.enabled(if: canMakeNamespaces)) struct LinkSetupTests {
    private let name = InterfaceName("cvt0")!

    private func address(_ bits: UInt32, _ length: Int) -> ConfigAddress {
      ConfigAddress(IPAddress(ipv4: bits), length: length)!
    }

    /// Whether `ip addr` shows this for the interface.
    private func shows(_ text: String) -> Bool {
      shell("ip addr show dev cvt0 | grep -qF '\(text)'") == 0
    }

    @Test func addressesAreAddedOnce() throws {
      try inFreshNamespace { () throws in
        let tun = try TunDevice.create(name, offloads: .none)
        let index = try tun.interfaceIndex()
        try LinkSetup.add(address(0x0a09_0002, 24), to: index)
        #expect(shows("inet 10.9.0.2/24"))
        let six = ConfigAddress(IPAddress(ipv6High: 0xfd00_0009_0000_0000, low: 2), length: 64)!
        try LinkSetup.add(six, to: index)
        #expect(shows("inet6 fd00:9::2/64"))
        #expect(shows("nodad"), "programs can use it at once")
        // The same address again, and a second one.
        try LinkSetup.add(address(0x0a09_0002, 24), to: index)
        try LinkSetup.add(six, to: index)
        try LinkSetup.add(address(0x0a09_0103, 32), to: index)
        #expect(shows("inet 10.9.1.3/32"))
        #expect(shell("test $(ip -o addr show dev cvt0 | grep -c 'scope global') = 3") == 0)
      }
    }

    @Test func theLinkComesUpWithItsMTU() throws {
      try inFreshNamespace { () throws in
        let tun = try TunDevice.create(name, offloads: .none)
        let index = try tun.interfaceIndex()
        try LinkSetup.start(index, mtu: 1333)
        #expect(try tun.state() == LinkState(name: name, mtu: 1333, isUp: true))
        try tun.setUp(false)
        try LinkSetup.start(index)
        #expect(try tun.state() == LinkState(name: name, mtu: 1333, isUp: true))
      }
    }

    @Test func errorsAreTheKernels() throws {
      try inFreshNamespace { () throws in
        let tun = try TunDevice.create(name, offloads: .none)
        let index = try tun.interfaceIndex()
        #expect(throws: SystemError.ENODEV) { try LinkSetup.add(address(0x0a09_0002, 24), to: 999) }
        #expect(throws: SystemError.ENODEV) { try LinkSetup.start(999) }
        #expect(throws: SystemError.EINVAL) { try LinkSetup.start(index, mtu: 67) }
        #expect(throws: SystemError.EINVAL) { try LinkSetup.start(index, mtu: 0) }
        #expect(try tun.state().isUp == false)
        // A host without IPv6 (R23).
        shell("sysctl -w net.ipv6.conf.cvt0.disable_ipv6=1")
        let six = ConfigAddress(IPAddress(ipv6High: 0xfd00 << 48, low: 2), length: 64)!
        #expect(throws: SystemError.EACCES) { try LinkSetup.add(six, to: index) }
        let status = statusOfFork {
          setgid(65_534)
          setuid(65_534)
          do throws(SystemError) {
            try LinkSetup.start(index)
            exit(1)
          } catch {
            exit(error == .EPERM ? 0 : 2)
          }
        }
        #expect(status == 0)
      }
    }

    @Test func theMTUOfARoute() throws {
      try inFreshNamespace { () throws in
        let there = IPAddress(ipv4: 0x0a09_0007)
        let six = IPAddress(ipv6High: 0xfd00_0009_0000_0000, low: 7)
        #expect(RouteMTU.find(to: there) == nil)
        #expect(RouteMTU.find(to: six) == nil)
        #expect(RouteMTU.find(to: loopback4) == 65_535)
        #expect(RouteMTU.find(to: loopback6) == 65_536)
        let tun = try TunDevice.create(name, offloads: .none)
        let index = try tun.interfaceIndex()
        try LinkSetup.add(address(0x0a09_0002, 24), to: index)
        try LinkSetup.add(
          ConfigAddress(IPAddress(ipv6High: 0xfd00_0009_0000_0000, low: 2), length: 64)!,
          to: index)
        try LinkSetup.start(index, mtu: 1380)
        #expect(RouteMTU.find(to: there) == 1380)
        #expect(RouteMTU.find(to: six) == 1380)
        #expect(RouteMTU.find(to: IPAddress(ipv4: 0x0a09_0107)) == nil)
        // A route may set its own MTU.
        shell("ip route add 10.9.1.0/24 dev cvt0 mtu 1300")
        #expect(RouteMTU.find(to: IPAddress(ipv4: 0x0a09_0107)) == 1300)
        // A link-local address needs its interface.
        let link = IPAddress(ipv6High: 0xfe80 << 48, low: 7)
        #expect(RouteMTU.find(to: link, scope: index) == 1380)
        #expect(RouteMTU.find(to: link) == nil)
      }
    }
  }
}
