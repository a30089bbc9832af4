@testable import Culvert

func ipv4(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) -> IPAddress {
  IPAddress(ipv4: UInt32(a) << 24 | UInt32(b) << 16 | UInt32(c) << 8 | UInt32(d))
}

func ipv6(_ high: UInt64, _ low: UInt64) -> IPAddress {
  IPAddress(ipv6High: high, low: low)
}
