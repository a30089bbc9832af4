import CLinux

/// The version of a Linux kernel, from the release that uname(2) reports.
package struct KernelRelease: Comparable, Sendable, BitwiseCopyable {
  private let major: UInt32
  private let minor: UInt32
  private let patch: UInt32

  package init(_ major: UInt32, _ minor: UInt32, _ patch: UInt32 = 0) {
    self.major = major
    self.minor = minor
    self.patch = patch
  }

  /// Parses "6.12.57+deb13-amd64" or "7.1-rc3": numbers that are missing are 0, and what follows
  /// them is ignored. Nil unless there are at least two numbers.
  package init?(_ text: UnsafeRawBufferPointer) {
    var numbers = InlineArray<3, UInt32>(repeating: 0)
    var index = 0
    var count = 0
    while count < 3 {
      let start = index
      var number: UInt32 = 0
      while index < text.count, index - start < 6 {
        let byte = text[index]
        guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { break }
        number = number * 10 + UInt32(byte - UInt8(ascii: "0"))
        index += 1
      }
      guard index > start else { break }
      numbers[count] = number
      count += 1
      guard index < text.count, text[index] == UInt8(ascii: ".") else { break }
      index += 1
    }
    guard count >= 2 else { return nil }
    self.init(numbers[0], numbers[1], numbers[2])
  }

  package static func < (left: KernelRelease, right: KernelRelease) -> Bool {
    if left.major != right.major { return left.major < right.major }
    return left.minor != right.minor ? left.minor < right.minor : left.patch < right.patch
  }

  /// Whether this kernel corrupts UDP GSO batches of equal segments on some network devices: Linux
  /// 7.0 to 7.1.4 (R63). The test over loopback cannot show it, because the device's driver is part
  /// of the bug. Kernels of distributions to which the correction was added are not recognised.
  package var corruptsSegments: Bool {
    self >= KernelRelease(7, 0) && self < KernelRelease(7, 1, 5)
  }

  /// The running kernel; nil if it does not say.
  package static func current() -> KernelRelease? {
    withUnsafeTemporaryAllocation(byteCount: 65, alignment: 1) { buffer in
      let text = buffer.baseAddress!.assumingMemoryBound(to: CChar.self)
      guard clinux_process_kernel_release(text, buffer.count) == 0 else { return nil }
      var count = 0
      while buffer[count] != 0 { count += 1 }
      return KernelRelease(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
    }
  }
}

extension ServiceOptions {
  /// Leaves out the offloads that this kernel gets wrong, unless the user has named them. Returns
  /// whether anything was left out.
  mutating func avoidKnownBugs(of kernel: KernelRelease?) -> Bool {
    guard !areOffloadsGiven, offloads.contains(.gso), let kernel, kernel.corruptsSegments else {
      return false
    }
    offloads.subtract(.gso)
    return true
  }
}
