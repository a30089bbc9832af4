/// The protocol numbers that Culvert looks at (IANA "Assigned Internet Protocol Numbers").
enum IPProtocol {
  static let hopByHop: UInt8 = 0
  static let icmp: UInt8 = 1
  static let tcp: UInt8 = 6
  static let udp: UInt8 = 17
  static let routing: UInt8 = 43
  static let fragment: UInt8 = 44
  static let icmpv6: UInt8 = 58
  static let destinationOptions: UInt8 = 60
}
