import Culvert
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite struct KernelReleaseTests {
    private func release(_ text: String) -> KernelRelease? {
      Array(text.utf8).withUnsafeBytes { KernelRelease($0) }
    }

    @Test func releasesAreParsed() {
      #expect(release("6.12.57+deb13-amd64") == KernelRelease(6, 12, 57))
      #expect(release("7.1-rc3") == KernelRelease(7, 1))
      #expect(release("7.0.0-14-generic") == KernelRelease(7, 0, 0))
      #expect(release("5.10") == KernelRelease(5, 10))
      #expect(release("4.4.0.1") == KernelRelease(4, 4, 0))
      #expect(release("7.1.") == KernelRelease(7, 1))
      #expect(release("7.1.x") == KernelRelease(7, 1))
      for wrong in ["", "7", "7.", "x.1", "-7.1", "linux"] {
        #expect(release(wrong) == nil, "\(wrong)")
      }
      #expect(release("999999.999999.999999") == KernelRelease(999_999, 999_999, 999_999))
      #expect(release("7.1234567.3") == KernelRelease(7, 123_456))
      #expect(KernelRelease.current() != nil)
    }

    @Test func R63_kernelsThatCorruptSegments() {
      let sound = [
        "6.6.44", "6.18.44-fc-v669", "6.19.99", "7.1.5", "7.1.12-1-MANJARO", "7.2.0-rc1", "7.10.1",
        "8.0.2", "4.19.0-7.0.3",
      ]
      let wrong = [
        "7.0-rc1", "7.0.0", "7.0.0-14-generic", "7.0.14-pve", "7.0.99", "7.1.0-rc5", "7.1.0",
        "7.1.4", "7.1.4-arch1-1",
      ]
      for text in sound { #expect(release(text)?.corruptsSegments == false, "\(text)") }
      for text in wrong { #expect(release(text)?.corruptsSegments == true, "\(text)") }
    }

    @Test func R63_onlyOffloadsThatNobodyHasNamedAreLeftOut() throws {
      let name = try #require(InterfaceName("wg0"))
      for (kernel, isGiven, offloads, isAvoided) in [
        (KernelRelease(7, 0, 3), false, Offloads.all, true),
        (KernelRelease(7, 0, 3), true, .all, false),
        (KernelRelease(7, 0, 3), false, .none, false),
        (KernelRelease(7, 1, 5), false, .all, false),
        (nil, false, .all, false),
      ] as [(KernelRelease?, Bool, Offloads, Bool)] {
        var options = ServiceOptions(name, limits: Profile.tiny.limits)
        options.offloads = offloads
        options.areOffloadsGiven = isGiven
        #expect(options.avoidKnownBugs(of: kernel) == isAvoided)
        #expect(options.offloads == (isAvoided ? offloads.subtracting(.gso) : offloads))
      }
    }
  }
}
