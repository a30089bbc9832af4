import CLinux
import Culvert

/// The descriptors that a daemon keeps of those that its caller has left open, for example the lock
/// of flock(1). All others are closed (R61): nobody could close them while the tunnel runs.
struct InheritedDescriptors: BitwiseCopyable {
  /// -1 for none: the interface, the configuration socket, and one for each configuration file.
  private var numbers = InlineArray<6, Int32>(repeating: -1)

  private static let firstFile = 2

  /// - Parameter options: `--config <(wg-quick strip wg0)` gives a file as /dev/fd/63.
  init(_ options: ServiceOptions) {
    // A number that is invalid here is reported where it is used.
    numbers[0] = InheritedDescriptors.inEnvironment("WG_TUN_FD")
    numbers[1] = InheritedDescriptors.inEnvironment("WG_UAPI_FD")
    for hop in 0..<min(options.hopCount, Hops.maximum) {
      guard let path = hop == 0 ? options.config : options.outerConfigs[hop - 1] else { continue }
      numbers[InheritedDescriptors.firstFile + hop] = InheritedDescriptors.number(of: path)
    }
  }

  private static func inEnvironment(_ name: StaticString) -> Int32 {
    Int32(truncatingIfNeeded: Environment.integer(name) ?? -1)
  }

  /// The descriptor that a path names; -1 if it names none.
  static func number(of path: UnsafePointer<CChar>) -> Int32 {
    let digits: Int
    if isPrefix("/dev/fd/", of: path) {
      digits = 8
    } else if isPrefix("/proc/self/fd/", of: path) {
      digits = 14
    } else {
      return -1
    }
    var number: Int32 = 0
    var index = digits
    while path[index] != 0 {
      let byte = UInt8(bitPattern: path[index])
      guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9"), index < digits + 9 else {
        return -1
      }
      number = number * 10 + Int32(byte - UInt8(ascii: "0"))
      index += 1
    }
    return index > digits ? number : -1
  }

  private static func isPrefix(_ text: StaticString, of path: UnsafePointer<CChar>) -> Bool {
    for index in 0..<text.utf8CodeUnitCount
    where UInt8(bitPattern: path[index]) != text.utf8Start[index] { return false }
    return true
  }

  /// Closes all descriptors from 3 on but these and `report`. Before the first one is opened.
  func closeOthers(_ report: Int32) {
    withUnsafeTemporaryAllocation(of: Int32.self, capacity: 8) { kept in
      for index in 0..<6 { kept[index] = numbers[index] }
      kept[6] = report
      Sodium.reopening { clinux_process_close_inherited(kept.baseAddress, 7) }
    }
  }

  /// Closes those of the configuration files, which have been read.
  func closeFiles() {
    for index in InheritedDescriptors.firstFile..<6 where numbers[index] > 2 {
      _ = clinux_file_close(numbers[index])
    }
  }
}
