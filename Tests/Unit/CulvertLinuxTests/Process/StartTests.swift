import Culvert
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite struct StartTests {
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
