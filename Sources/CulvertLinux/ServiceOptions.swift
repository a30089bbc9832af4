import Culvert

/// What the command line decides about a tunnel.
public struct ServiceOptions {
  public let name: InterfaceName
  public var limits: Limits
  public var isForeground = false
  /// Bytes; of an interface that is created, not of one that is handed over.
  public var mtu = Policy.defaultMTU
  /// Whether somebody has asked for that MTU.
  public var isMTUGiven = false
  /// Bytes that the kernel may buffer of what each socket receives.
  public var socketBufferByteCount = UDPSockets.defaultBufferByteCount(for: .standard)
  public var offloads = Offloads.all
  /// NUL-terminated, as long-lived as the process; nil for the default.
  public var stateDirectory: UnsafePointer<CChar>?

  /// The innermost tunnel's configuration file, NUL-terminated, as long-lived as the process; nil
  /// where it is configured from outside.
  public var config: UnsafePointer<CChar>?
  /// Those of the tunnels around it.
  public var through = ThroughList()

  /// What is forwarded in the place of an interface; empty for a tunnel with one.
  public var forwards = ForwardList()
  var isForwarding: Bool { !forwards.isEmpty }

  /// Tunnels, one inside the other.
  var hopCount: Int { through.count + 1 }

  public init(_ name: InterfaceName, limits: Limits) {
    self.name = name
    self.limits = limits
  }
}
