/// Explicit congestion notification across the tunnel (RFC 6040). The codepoints are the two low
/// bits of a traffic class.
enum ECN {
  static let mask: UInt8 = 0b11
  static let notCapable: UInt8 = 0b00
  static let capable1: UInt8 = 0b01
  static let capable0: UInt8 = 0b10
  static let congestionExperienced: UInt8 = 0b11

  /// The outer traffic class of a packet: its ECN codepoint (RFC 6040 section 4.1, normal mode).
  /// The DSCP stays inside; it would tell an observer what kind of packet this is.
  @inline(__always)
  static func encapsulate(_ trafficClass: UInt8) -> UInt8 {
    trafficClass & mask
  }

  /// The codepoint that a packet leaves the tunnel with, or nil where it has to be dropped: the
  /// network marked a packet whose sender does not react to marks (RFC 6040 section 4.2,
  /// figure 4).
  @inline(__always)
  static func combine(inner: UInt8, outer: UInt8) -> UInt8? {
    let inner = inner & mask
    switch outer & mask {
    case congestionExperienced: return inner == notCapable ? nil : congestionExperienced
    case capable1: return inner == capable0 ? capable1 : inner
    default: return inner
    }
  }
}
