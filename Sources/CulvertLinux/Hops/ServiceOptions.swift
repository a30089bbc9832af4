import Culvert

/// What the command line decides about a tunnel.
package struct ServiceOptions {
  package let name: InterfaceName
  package var limits: Limits
  package var isForeground = false
  /// Bytes; of an interface that is created, not of one that is handed over.
  package var mtu = Policy.defaultMTU
  /// Whether somebody has asked for that MTU.
  package var isMTUGiven = false
  /// Bytes that the kernel may buffer of what each socket receives.
  package var socketBufferByteCount = UDPSockets.defaultBufferByteCount(for: .standard)
  package var offloads = Offloads.all
  /// NUL-terminated, as long-lived as the process; nil for the default.
  package var stateDirectory: UnsafePointer<CChar>?

  /// The innermost tunnel's configuration file, NUL-terminated, as long-lived as the process; nil
  /// where it is configured from outside.
  package var config: UnsafePointer<CChar>?
  /// Those of the tunnels around it.
  package var through = ThroughList()

  /// What is forwarded in the place of an interface; empty for a tunnel with one.
  package var forwards = ForwardList()
  var isForwarding: Bool { !forwards.isEmpty }

  /// Tunnels, one inside the other.
  var hopCount: Int { through.count + 1 }

  package init(_ name: InterfaceName, limits: Limits) {
    self.name = name
    self.limits = limits
  }
}

/// The configuration files of the tunnels around the innermost, the nearest first: NUL-terminated
/// paths, as long-lived as the process.
package struct ThroughList: Sendable {
  private static var capacity: Int { Hops.maximum - 1 }
  private var first: UInt = 0
  private var second: UInt = 0
  private var third: UInt = 0
  package private(set) var count = 0

  package init() {}

  package var isEmpty: Bool { count == 0 }

  /// False where there are as many as can be.
  package mutating func append(_ path: UnsafePointer<CChar>) -> Bool {
    guard count < ThroughList.capacity else { return false }
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
/// They stand behind a pointer, since the options that hold them are handed on by value.
package struct ForwardList: @unchecked Sendable {
  /// Nil while there are none.
  private var mappings: UnsafeMutablePointer<ForwardMapping>?
  package private(set) var count = 0

  package static let capacity = Forwarder.mappingCapacity

  package init() {}

  package var isEmpty: Bool { count == 0 }

  /// False where there are as many as can be.
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
