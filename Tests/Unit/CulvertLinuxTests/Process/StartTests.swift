import Culvert
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite struct StartTests {
    @Test func R43_thePauseDoublesUpToAMinute() {
      var pause = BackOff()
      var now = Instant(nanoseconds: 5)
      #expect(pause.deadline == .never)
      for seconds in [1, 2, 4, 8, 16, 32, 60, 60] as [UInt64] {
        pause.fail(at: now)
        #expect(pause.deadline == .after(seconds * nanosecondsPerSecond, from: now))
        now = now.advanced(by: seconds * nanosecondsPerSecond)
      }
      pause.reset()
      #expect(pause.deadline == .never)
      pause.fail(at: now)
      #expect(pause.deadline == .after(nanosecondsPerSecond, from: now))
    }

    @Test func R61_pathsThatNameDescriptors() {
      for (path, number) in [
        ("/dev/fd/63", 63), ("/proc/self/fd/7", 7), ("/dev/fd/", -1), ("/dev/fd/6x", -1),
        ("/dev/fd/1234567890", -1), ("wg0.conf", -1), ("", -1), ("/dev", -1),
      ] {
        let found = path.withCString { InheritedDescriptors.number(of: $0) }
        #expect(found == Int32(number), "\(path)")
      }
    }
  }
}
