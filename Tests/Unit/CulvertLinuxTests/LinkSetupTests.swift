import Culvert
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite(.enabled(if: canMakeNamespaces)) struct LinkSetupTests {
    private let name = InterfaceName("cvt0")!

    private func address(_ bits: UInt32, _ length: Int) -> ConfigAddress {
      ConfigAddress(IPAddress(ipv4: bits), length: length)!
    }

    /// True where `ip addr` shows this of the interface.
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
        // Again, and beside it.
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
        // A route may have an MTU of its own.
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
