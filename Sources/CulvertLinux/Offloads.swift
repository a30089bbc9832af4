/// Work that the kernel can do for many packets at once. Each is used where the kernel has it, and
/// can be switched off (`--offload`, `--no-offload`).
public struct Offloads: OptionSet, Sendable, BitwiseCopyable {
  public let rawValue: UInt8

  @inline(__always)
  public init(rawValue: UInt8) {
    self.rawValue = rawValue
  }

  /// Checksums of packets from and to the TUN (IFF_VNET_HDR, TUN_F_CSUM).
  public static var checksum: Offloads { Offloads(rawValue: 1) }
  /// TCP segments cut and joined by us; TUN_F_TSO4 and TUN_F_TSO6. Needs `checksum`.
  public static var tso: Offloads { Offloads(rawValue: 2) }
  /// The same for UDP: TUN_F_USO4 and TUN_F_USO6, Linux 6.2. Needs `checksum`.
  public static var uso: Offloads { Offloads(rawValue: 4) }
  /// Many datagrams in one send: UDP_SEGMENT, Linux 4.18.
  public static var gso: Offloads { Offloads(rawValue: 8) }
  /// Many datagrams in one receive: UDP_GRO, Linux 5.0.
  public static var gro: Offloads { Offloads(rawValue: 16) }
  /// recvmmsg(2) and sendmmsg(2), where the two above are missing.
  public static var mmsg: Offloads { Offloads(rawValue: 32) }

  public static var none: Offloads { Offloads(rawValue: 0) }
  public static var all: Offloads { Offloads(rawValue: 63) }

  /// What is left when those are taken out that need another that is not there.
  public var consistent: Offloads {
    contains(.checksum) ? self : subtracting(.tso).subtracting(.uso)
  }

  /// The offload of a name on the command line, one of `names`.
  public static func named(_ index: Int) -> (name: StaticString, offload: Offloads)? {
    switch index {
    case 0: ("checksum", .checksum)
    case 1: ("tso", .tso)
    case 2: ("uso", .uso)
    case 3: ("gso", .gso)
    case 4: ("gro", .gro)
    case 5: ("mmsg", .mmsg)
    default: nil
    }
  }
}
