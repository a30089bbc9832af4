import Culvert
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite struct TextTests {
    @Test func numbers() {
      #expect(text { $0.append(decimal: 0) } == "0")
      #expect(text { $0.append(decimal: -7) } == "-7")
      #expect(text { $0.append(decimal: Int.min) } == "\(Int.min)")
      #expect(text { $0.append(decimal: UInt64.max) } == "\(UInt64.max)")
      #expect(text { $0.append(decimal: UInt64(7), width: 3) } == "007")
      #expect(text { $0.append(hex: 0) } == "0")
      #expect(text { $0.append(hex: 0xbeef) } == "beef")
      #expect(text { $0.append(hex: 0xbeef, width: 8) } == "0000beef")
      #expect(text { $0.append(hex: .max) } == "ffffffffffffffff")
    }

    @Test(arguments: [
      (UInt64(0), UInt64(0)), (0, 1), (0x2001_0db8_0000_0000, 1), (0x2001_0db8_0001_0000, 1),
      (0x2001_0db8_0000_0001, 0x0001_0001_0001_0001), (0x0001_0000_0000_0000, 0),
      (0x0000_0000_0000_0001, 0), (0x0001_0000_0000_0002, 0x0000_0000_0000_0003),
      (0x0001_0000_0000_0002, 0x0003_0000_0000_0004), (.max, .max),
      (0xfe80_0000_0000_0000, 0x0211_22ff_fe33_4455), (0x0000_0000_0001_0000, 0),
    ])
    func ipv6AddressesReadAsTheLibraryWritesThem(high: UInt64, low: UInt64) {
      let address = IPAddress(ipv6High: high, low: low)
      var raw = in6_addr()
      withUnsafeMutableBytes(of: &raw) { address.write(to: $0.baseAddress!) }
      var expected = [CChar](repeating: 0, count: 64)
      inet_ntop(AF_INET6, &raw, &expected, 64)
      let string = String(decoding: expected.prefix { $0 != 0 }.map(UInt8.init), as: UTF8.self)
      // glibc writes ::a.b.c.d for the addresses that RFC 4291 deprecated; no argument is one of
      // them.
      #expect(text { $0.append(address) } == string)
    }

    @Test func endpoints() {
      let ipv4 = Endpoint(address: IPAddress(ipv4: 0xc000_0201), port: 51_820)
      #expect(text { $0.append(ipv4) } == "192.0.2.1:51820")
      let linkLocal = IPAddress(ipv6High: 0xfe80_0000_0000_0000, low: 1)
      let ipv6 = Endpoint(address: linkLocal, port: 1, scope: 2)
      #expect(text { $0.append(ipv6) } == "[fe80::1%2]:1")
    }

    @Test func errors() {
      #expect(text { $0.append(SystemError.ENOENT) } == "No such file or directory (ENOENT)")
      #expect(text { $0.append(SystemError(code: EDOM)) }.hasSuffix(" (\(EDOM))"))
    }

    @Test func whatDoesNotFitIsCut() {
      var buffer = [UInt8](repeating: 0, count: 4)
      buffer.withUnsafeMutableBytes {
        var line = Line(into: $0)
        line.append("abcdef")
        #expect(line.isTruncated && line.count == 4)
      }
      #expect(buffer == bytes("abcd"))
    }

    @Test(arguments: [
      (UInt64(0), "1970/01/01 00:00:00"), (951_782_399, "2000/02/28 23:59:59"),
      (951_782_400, "2000/02/29 00:00:00"), (951_868_800, "2000/03/01 00:00:00"),
      (4_107_542_399, "2100/02/28 23:59:59"), (4_107_542_400, "2100/03/01 00:00:00"),
      (1_795_345_962, "2026/11/22 11:12:42"), (UInt64.max, "9999/12/31 23:59:59"),
    ])
    func datesAreCivil(seconds: UInt64, expected: String) {
      #expect(text { $0.append(WallTime(seconds: seconds, nanoseconds: 0)) } == expected)
    }

    @Test func interfaceNames() {
      #expect(InterfaceName("wg0")?.withBytes { Array($0) } == bytes("wg0"))
      #expect(InterfaceName("fifteen-letters")?.withCString { strlen($0) } == 15)
      for name in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-letters-", "tab\t"] {
        #expect(name.withCString { InterfaceName(cString: $0) } == nil)
      }
      #expect("wg0".withCString { InterfaceName(cString: $0) } == InterfaceName("wg0"))
    }

    /// What the log writes to a pipe.
    func logged(_ level: Log.Level, _ body: (inout Log) -> Void) -> String {
      var ends: [Int32] = [0, 0]
      precondition(pipe(&ends) == 0)
      var log = Log(level, InterfaceName("wg0")!, to: ends[1])
      body(&log)
      close(ends[1])
      let source = FileDescriptor(taking: ends[0])
      var buffer = [UInt8](repeating: 0, count: 65_536)
      var total = 0
      while true {
        let count = buffer.withUnsafeMutableBytes {
          source.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[total...]))
        }
        if count <= 0 { break }
        total += count
      }
      return String(decoding: buffer.prefix(total), as: UTF8.self)
    }

    @Test func logLinesLookLikeWireguardGos() {
      let line = logged(.verbose) { $0.verbose(at: Clock.boottime()) { $0.append("up") } }
      #expect(line.hasPrefix("DEBUG: (wg0) 20") && line.hasSuffix(" up\n"))
      let error = logged(.error) { log in
        log.verbose(at: Clock.boottime()) { $0.append("hidden") }
        log.error(at: Clock.boottime()) { $0.append("shown") }
      }
      #expect(error.hasPrefix("ERROR: (wg0) ") && error.hasSuffix(" shown\n"))
      #expect(logged(.silent) { $0.error(at: Clock.boottime()) { $0.append("x") } } == "")
    }

    @Test func R20_aFloodOfErrorsIsNoFloodOfLines() {
      let lines = logged(.error) { log in
        let start = Instant(nanoseconds: nanosecondsPerSecond)
        for _ in 0..<10_000 { log.error(at: start) { $0.append("no route") } }
        #expect(log.suppressedCount == 10_000 - Log.burst)
        log.error(at: start.advanced(by: nanosecondsPerSecond)) { $0.append("later") }
        // A clock that jumps back (R24).
        log.error(at: Instant(nanoseconds: 0)) { $0.append("early") }
      }.split(separator: "\n")
      #expect(lines.count == Int(Log.burst) + 1)
      #expect(lines.last?.hasSuffix("[9950 lines suppressed] later") == true)
    }

    @Test func adviceIsGivenForWhatUsersRunInto() {
      #expect(Privileges.advice(forTun: .EPERM)?.description == "needs root or CAP_NET_ADMIN")
      #expect(Privileges.advice(forTun: .ENOENT) != nil)
      #expect(Privileges.advice(forTun: .EIO) == nil)
      #expect(Privileges.advice(forUAPI: .EADDRINUSE) != nil)
    }
  }
}
