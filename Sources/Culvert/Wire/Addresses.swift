/// An IPv4 or IPv6 address, left-aligned in 128 bits with the most significant bit first. A prefix
/// of either family is thus a prefix of these bits.
public struct IPAddress: Hashable, Sendable, BitwiseCopyable {
  public enum Family: UInt8, Sendable, BitwiseCopyable {
    case ipv4 = 4
    case ipv6 = 6

    /// Bits of an address: 32 or 128.
    public var bitCount: Int { self == .ipv4 ? 32 : 128 }
    /// Bytes of an address: 4 or 16.
    public var byteCount: Int { self == .ipv4 ? 4 : 16 }
  }

  /// First 64 bits; an IPv4 address fills the upper 32 of them.
  public let high: UInt64
  /// Last 64 bits; 0 for IPv4.
  public let low: UInt64
  public let family: Family

  @inline(__always)
  public init(ipv4 bits: UInt32) {
    high = UInt64(bits) << 32
    low = 0
    family = .ipv4
  }

  @inline(__always)
  public init(ipv6High: UInt64, low: UInt64) {
    high = ipv6High
    self.low = low
    family = .ipv6
  }

  /// Reads 4 or 16 bytes in network order. The caller has checked the length.
  @inline(__always)
  public init(_ family: Family, at bytes: UnsafeRawPointer) {
    switch family {
    case .ipv4: self.init(ipv4: bytes.loadBig(0, as: UInt32.self))
    case .ipv6:
      self.init(ipv6High: bytes.loadBig(0, as: UInt64.self), low: bytes.loadBig(8, as: UInt64.self))
    }
  }

  /// Writes 4 or 16 bytes in network order.
  @inline(__always)
  public func write(to bytes: UnsafeMutableRawPointer) {
    switch family {
    case .ipv4: bytes.storeBig(ipv4Bits, 0)
    case .ipv6:
      bytes.storeBig(high, 0)
      bytes.storeBig(low, 8)
    }
  }

  /// The 32 bits of an IPv4 address.
  @inline(__always)
  public var ipv4Bits: UInt32 { UInt32(truncatingIfNeeded: high >> 32) }

  /// 0.0.0.0 or ::.
  public var isUnspecified: Bool { high == 0 && low == 0 }

  /// 224.0.0.0/4 or ff00::/8.
  public var isMulticast: Bool {
    switch family {
    case .ipv4: high >> 60 == 0xe
    case .ipv6: high >> 56 == 0xff
    }
  }

  /// Whether the address is only unique on one link: fe80::/10, and multicast to an interface or a
  /// link (ff01::/16, ff02::/16). The kernel ignores the scope of all others.
  public var needsScope: Bool {
    guard family == .ipv6 else { return false }
    let first = high >> 48
    return first & 0xffc0 == 0xfe80 || first & 0xff0f == 0xff01 || first & 0xff0f == 0xff02
  }

  /// False for addresses that do not name one other host: unspecified ("this network"), loopback,
  /// multicast, and IPv4 class E, which includes the limited broadcast.
  public var isSingleHost: Bool {
    switch family {
    case .ipv4:
      let network = high >> 56
      return network != 0 && network != 127 && network < 224
    case .ipv6:
      return !isMulticast && !(high == 0 && low <= 1)
    }
  }

  /// An IPv4-mapped address (::ffff:0:0/96) as IPv4 (RFC 4291 section 2.5.5.2), or this address.
  public var unmapped: IPAddress {
    family == .ipv6 && high == 0 && low >> 32 == 0xffff
      ? IPAddress(ipv4: UInt32(truncatingIfNeeded: low)) : self
  }

  /// This address with every bit after the first `length` cleared. `length` is at most the
  /// family's bit count.
  @inline(__always)
  public func masked(to length: Int) -> IPAddress {
    switch family {
    case .ipv4: IPAddress(ipv4: ipv4Bits & (length == 0 ? 0 : UInt32.max << (32 - UInt32(length))))
    case .ipv6:
      if length == 0 {
        IPAddress(ipv6High: 0, low: 0)
      } else if length <= 64 {
        IPAddress(ipv6High: high & (UInt64.max << (64 - UInt64(length))), low: 0)
      } else {
        IPAddress(ipv6High: high, low: low & (UInt64.max << (128 - UInt64(length))))
      }
    }
  }
}

/// An allowed IP: an address and the number of its significant leading bits. The host bits are
/// cleared, as in the kernel and wireguard-go.
public struct IPPrefix: Hashable, Sendable, BitwiseCopyable {
  public let address: IPAddress
  /// Bits, 0-32 or 0-128.
  public let length: UInt8

  /// Nil if `length` exceeds the family's bit count.
  public init?(_ address: IPAddress, length: Int) {
    guard length >= 0, length <= address.family.bitCount else { return nil }
    self.address = address.masked(to: length)
    self.length = UInt8(length)
  }
}

/// The UDP address of a peer and, for link-local IPv6, the interface index.
public struct Endpoint: Hashable, Sendable, BitwiseCopyable {
  public var address: IPAddress
  /// Whether the user has written the IPv4 address as ::ffff:192.0.2.1. It is shown as it was given
  /// (R60), but it is the same endpoint.
  public var isMapped = false
  public var port: UInt16
  /// Interface index of a link-local address, otherwise 0.
  public var scope: UInt32

  public init(address: IPAddress, port: UInt16, scope: UInt32 = 0) {
    self.address = address
    self.port = port
    self.scope = scope
  }

  @inline(__always)
  public static func == (left: Endpoint, right: Endpoint) -> Bool {
    left.address == right.address && left.port == right.port && left.scope == right.scope
  }

  public func hash(into hasher: inout Hasher) {
    hasher.combine(address)
    hasher.combine(port)
    hasher.combine(scope)
  }
}

/// The two ends of a path: the peer's endpoint, and the local address and interface on which its
/// last datagram arrived. A host with several addresses thus answers from the right one ("sticky
/// source", as in the kernel).
public struct Path: Hashable, Sendable, BitwiseCopyable {
  public var endpoint: Endpoint
  /// The local address, of the same family; unspecified leaves the choice to the routing table.
  public var source: IPAddress
  /// The interface on which the datagram to `source` arrived; 0 if unknown.
  public var interface: UInt32

  public init(endpoint: Endpoint, source: IPAddress, interface: UInt32 = 0) {
    self.endpoint = endpoint
    self.source = source
    self.interface = interface
  }

  /// A path without a local address: the routing table chooses it.
  public init(to endpoint: Endpoint) {
    self.endpoint = endpoint
    source =
      endpoint.address.family == .ipv4
      ? IPAddress(ipv4: 0) : IPAddress(ipv6High: 0, low: 0)
    interface = 0
  }
}
