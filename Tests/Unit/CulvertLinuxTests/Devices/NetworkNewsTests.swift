import CLinux
import Culvert
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite struct NetworkNewsTests {
    /// A netlink message with an interface index in an attribute, or else in the body.
    func isNews(_ type: Int, body: [UInt32], interface: UInt32? = nil) -> Bool {
      var words = [0, UInt32(type), 0, 0] + body
      // RTA_OIF, 8 bytes.
      if let interface { words += [4 << 16 | 8, interface] }
      words[0] = UInt32(4 * words.count)
      return words.withUnsafeBytes { clinux_news_in($0.baseAddress, $0.count, 7) == 1 }
    }

    @Test func R40_ourOwnInterfaceIsNoNews() {
      // struct ifinfomsg: family, type; index; flags; change.
      #expect(isNews(16, body: [0, 3, 0, 0]))
      #expect(!isNews(16, body: [0, 7, 0, 0]))
      // struct ifaddrmsg: family, prefix, flags, scope; index.
      #expect(isNews(20, body: [2, 3]))
      #expect(!isNews(21, body: [2, 7]))
      // struct rtmsg: family, lengths; table, protocol, scope, type; flags.
      #expect(isNews(24, body: [2, 0, 0], interface: 3))
      #expect(!isNews(24, body: [2, 0, 0], interface: 7))
      #expect(!isNews(24, body: [2, 0, 0x200], interface: 3))
      #expect(isNews(25, body: [10, 0, 0]))
      #expect(isNews(32, body: [2, 0, 0]))
      // Neighbours, and messages that are cut short.
      #expect(!isNews(28, body: [2, 3, 0]))
      #expect(!isNews(24, body: [2]))
    }

    @Test func R40_aBurstOfNewsIsOneCheck() {
      var delay = NewsDelay()
      #expect(delay.deadline == .never)
      delay.notice(at: Instant(nanoseconds: 1000))
      let first = delay.deadline
      delay.notice(at: Instant(nanoseconds: 5000))
      #expect(delay.deadline == first)
      #expect(first == .after(NewsDelay.interval, from: Instant(nanoseconds: 1000)))
      delay.finish()
      #expect(delay.deadline == .never)
    }

    @Test func R40_aForeignSourceLeavesByNoInterface() {
      let home = Endpoint(address: IPAddress(ipv4: 0x7f00_0001), port: 9)
      let ours = Path(endpoint: home, source: IPAddress(ipv4: 0x7f00_0001), interface: 1)
      #expect(RouteCheck.leavesByInterface(of: ours, mark: 0))
      let foreign = Path(endpoint: home, source: IPAddress(ipv4: 0xc000_0207), interface: 1)
      #expect(!RouteCheck.leavesByInterface(of: foreign, mark: 0))
    }
  }
}
