import Culvert
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite struct EventTests {
    /// Waits, and returns tokens and readiness of all descriptors that have become ready.
    func wait(_ epoll: borrowing Epoll, _ milliseconds: Int32 = 1000) -> [EpollEvent] {
      var events = [EpollEvent](repeating: EpollEvent(), count: 8)
      let count = events.withUnsafeMutableBufferPointer {
        epoll.wait(into: $0, timeoutMilliseconds: milliseconds)
      }
      return Array(events.prefix(max(0, count)))
    }

    @Test func layoutIsTheShims() {
      #expect(MemoryLayout<EpollEvent>.size == 16)
      #expect(MemoryLayout<EpollEvent>.stride == 16)
      #expect(MemoryLayout<EpollEvent>.offset(of: \.readiness) == 8)
    }

    @Test func epollTellsTokensAndReadiness() throws {
      var ends: [Int32] = [0, 0]
      #expect(pipe(&ends) == 0)
      let source = FileDescriptor(taking: ends[0])
      let epoll = try Epoll()
      try epoll.add(source.raw, token: 0xfedc_ba98_7654_3210)
      #expect(wait(epoll, 0).isEmpty)
      do {
        let target = FileDescriptor(taking: ends[1])
        #expect(bytes("ab").withUnsafeBytes { target.write($0) } == 2)
        let ready = wait(epoll)
        #expect(ready.count == 1 && ready.first?.token == 0xfedc_ba98_7654_3210)
        #expect(ready.first?.readiness == .readable)
        try epoll.modify(source.raw, [.readable, .once], token: 7)
        #expect(wait(epoll).first?.token == 7)
        #expect(wait(epoll, 0).isEmpty)
        try epoll.modify(source.raw, .readable, token: 8)
      }
      #expect(wait(epoll).first?.readiness.contains(.failed) == true)
      try epoll.remove(source.raw)
      #expect(wait(epoll, 0).isEmpty)
      #expect(throws: SystemError.ENOENT) { try epoll.remove(source.raw) }
    }

    @Test func theTimerFiresAtItsInstantAndNotBefore() throws {
      var timer = try Timer()
      let epoll = try Epoll()
      try epoll.add(timer.raw, token: 1)
      let start = Clock.boottime()
      let due = start.advanced(by: 30 * nanosecondsPerMillisecond)
      timer.arm(Deadline(due))
      #expect(wait(epoll).count == 1)
      #expect(Clock.boottime() >= due)
      #expect(timer.acknowledge() == true)
      #expect(timer.acknowledge() == false)
      #expect(wait(epoll, 0).isEmpty)
    }

    @Test func R24_aPastOrDistantInstantIsFine() throws {
      var timer = try Timer()
      let epoll = try Epoll()
      try epoll.add(timer.raw, token: 1)
      for past in [UInt64(0), 1, 1_000_000_000] {
        timer.arm(Deadline(Instant(nanoseconds: past)))
        #expect(wait(epoll).count == 1)
        #expect(timer.acknowledge() == true)
      }
      timer.arm(Deadline(Instant(nanoseconds: .max - 1)))
      #expect(wait(epoll, 5).isEmpty)
      timer.arm(.never)
      #expect(wait(epoll, 5).isEmpty)
      timer.arm(Deadline(Clock.boottime().advanced(by: 5 * nanosecondsPerMillisecond)))
      timer.arm(.never)
      #expect(wait(epoll, 20).isEmpty)
    }

    @Test func signalsAreRead() throws {
      var before = sigset_t()
      pthread_sigmask(SIG_BLOCK, nil, &before)
      defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
      let signals = try Signals()
      #expect(signals.next() == nil)
      pthread_kill(pthread_self(), SIGUSR1)
      #expect(signals.next() == .counters)
      pthread_kill(pthread_self(), SIGTERM)
      #expect(signals.next() == .terminate)
      #expect(signals.next() == nil)
    }

    @Test func clocksGoOn() {
      let first = Clock.boottime()
      let second = Clock.boottime()
      #expect(second >= first && first.nanoseconds > 0)
      let difference = Int64(Clock.realtime().seconds) - Int64(time(nil))
      #expect(abs(difference) <= 1)
    }
  }
}
