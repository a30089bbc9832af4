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

    @Test func R40_newsIsCheckedAtOnceAndOnceMore() {
      var delay = NewsDelay()
      #expect(delay.deadline == .never)
      let now = at(10_000)
      delay.notice(at: now)
      #expect(delay.deadline == Deadline(now))
      delay.finish(at: now)
      #expect(delay.deadline == Deadline(at(10_150)))
      // Further news does not wait for that.
      var busy = delay
      busy.notice(at: at(10_010))
      #expect(busy.deadline == Deadline(at(10_010)))
      delay.finish(at: at(10_150))
      #expect(delay.deadline == .never)
    }

    @Test func R40_newsAllTheTimeIsCheckedSeldom() {
      var delay = NewsDelay()
      var checks: [Int] = []
      for milliseconds in 10_000..<13_000 {
        delay.notice(at: at(milliseconds))
        if delay.deadline.isDue(at: at(milliseconds)) {
          delay.finish(at: at(milliseconds))
          checks.append(milliseconds - 10_000)
        }
      }
      #expect(checks == Array(0..<8) + [300, 600, 900, 1200, 1500, 1800, 2100, 2400, 2700])
    }

    func at(_ milliseconds: Int) -> Instant {
      Instant(nanoseconds: UInt64(milliseconds) * nanosecondsPerMillisecond)
    }

    @Test func R40_aForeignSourceIsRefused() throws {
      let routes = try RouteCheck()
      let home = Endpoint(address: IPAddress(ipv4: 0x7f00_0001), port: 9)
      let verdict = { (source: UInt32) in
        let path = Path(endpoint: home, source: IPAddress(ipv4: source), interface: 1)
        return routes.judgeSource(of: path, port: 51_820, mark: 0)
      }
      #expect(verdict(0x7f00_0001) == .implied)
      #expect(verdict(0x7f00_0002) == .needed)
      #expect(verdict(0xc000_0207) == .refused)
      // No unicast route leads there, with or without a source.
      let nowhere = Endpoint(address: IPAddress(ipv4: 0xe000_0001), port: 9)
      let path = Path(endpoint: nowhere, source: IPAddress(ipv4: 0x7f00_0001), interface: 1)
      #expect(routes.judgeSource(of: path, port: 51_820, mark: 0) == .implied)
    }
  }
}
