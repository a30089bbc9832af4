import CLinux
import Culvert

/// The settings of a tunnel, or of several nested ones, from the command line.
package struct ServiceOptions {
  package let name: InterfaceName
  package var limits: Limits
  package var isForeground = false
  /// Bytes. Applies to an interface that is created, not to an adopted one.
  package var mtu = Policy.defaultMTU
  /// Whether the user has set the MTU.
  package var isMTUGiven = false
  /// Receive buffer of each socket, in bytes.
  package var socketBufferByteCount = UDPSockets.defaultBufferByteCount(for: .standard)
  package var offloads = Offloads.all
  /// Whether the user has named the offloads, so that those with known bugs are used as well.
  package var areOffloadsGiven = false
  /// NUL-terminated, as long-lived as the process; nil for the default.
  package var stateDirectory: UnsafePointer<CChar>?

  /// The innermost tunnel's configuration file, NUL-terminated, as long-lived as the process; nil
  /// if it is configured through its socket.
  package var config: UnsafePointer<CChar>?
  /// The configuration files of the outer hops.
  package var outerConfigs = OuterConfigs()

  /// The ports to forward instead of creating an interface; empty for a tunnel with an interface.
  package var forwards = ForwardList()
  var isForwarding: Bool { !forwards.isEmpty }

  var hopCount: Int { outerConfigs.count + 1 }

  package init(_ name: InterfaceName, limits: Limits) {
    self.name = name
    self.limits = limits
  }

  /// For processes without a working directory. If that cannot be determined, a path stays as it
  /// is. The copies are never freed.
  mutating func makePathsAbsolute() {
    config = config.map { ServiceOptions.absolute($0) }
    stateDirectory = stateDirectory.map { ServiceOptions.absolute($0) }
    let relative = outerConfigs
    outerConfigs = OuterConfigs()
    for index in 0..<relative.count {
      guard let path = relative[index] else { continue }
      _ = outerConfigs.append(ServiceOptions.absolute(path))
    }
  }

  private static func absolute(_ path: UnsafePointer<CChar>) -> UnsafePointer<CChar> {
    clinux_process_absolute_path(path).map { UnsafePointer($0) } ?? path
  }
}

/// The configuration files of the outer hops, starting with the one next to the innermost:
/// NUL-terminated paths, as long-lived as the process.
package struct OuterConfigs: Sendable {
  private static var capacity: Int { Hops.maximum - 1 }
  private var first: UInt = 0
  private var second: UInt = 0
  private var third: UInt = 0
  package private(set) var count = 0

  package init() {}

  package var isEmpty: Bool { count == 0 }

  /// False if the list is full.
  package mutating func append(_ path: UnsafePointer<CChar>) -> Bool {
    guard count < OuterConfigs.capacity else { return false }
    let bits = UInt(bitPattern: path)
    switch count {
    case 0: first = bits
    case 1: second = bits
    default: third = bits
    }
    count += 1
    return true
  }

  /// Nil beyond the last.
  subscript(index: Int) -> UnsafePointer<CChar>? {
    switch index {
    case 0: UnsafePointer(bitPattern: first)
    case 1: UnsafePointer(bitPattern: second)
    case 2: UnsafePointer(bitPattern: third)
    default: nil
    }
  }
}

/// The mappings of a command line, as long-lived as the process. Copies of a list share them.
///
/// The list is behind a pointer, because the options that contain it are passed by value.
package struct ForwardList: @unchecked Sendable {
  /// Nil while there are none.
  private var mappings: UnsafeMutablePointer<ForwardMapping>?
  package private(set) var count = 0

  package static let capacity = Forwarder.mappingCapacity

  package init() {}

  package var isEmpty: Bool { count == 0 }

  /// False if the list is full.
  package mutating func append(_ mapping: ForwardMapping) -> Bool {
    guard count < ForwardList.capacity else { return false }
    let mappings = mappings ?? .allocate(capacity: ForwardList.capacity)
    (mappings + count).initialize(to: mapping)
    self.mappings = mappings
    count += 1
    return true
  }

  subscript(index: Int) -> ForwardMapping {
    precondition(index >= 0 && index < count)
    return mappings![index]
  }
}
