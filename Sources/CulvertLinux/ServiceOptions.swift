import Culvert

/// What the command line decides about a tunnel.
public struct ServiceOptions {
  public let name: InterfaceName
  public var limits: Limits
  public var isForeground = false
  /// Bytes; of an interface that is created, not of one that is handed over.
  public var mtu = Policy.defaultMTU
  /// Bytes that the kernel may buffer of what each socket receives.
  public var socketBufferByteCount = UDPSockets.defaultBufferByteCount(for: .standard)
  public var offloads = Offloads.all
  /// NUL-terminated, as long-lived as the process; nil for the default.
  public var stateDirectory: UnsafePointer<CChar>?

  public init(_ name: InterfaceName, limits: Limits) {
    self.name = name
    self.limits = limits
  }
}
