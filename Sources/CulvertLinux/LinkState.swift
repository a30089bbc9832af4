/// What the rest of the program needs to know of the tunnel's interface.
public struct LinkState: Equatable, Sendable, BitwiseCopyable {
  public var name: InterfaceName
  /// Bytes.
  public var mtu: UInt32
  /// Administratively up: `ip link set up`.
  public var isUp: Bool
}
