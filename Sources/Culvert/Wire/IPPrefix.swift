/// An allowed IP: an address and the number of its leading bits that count. The host bits are
/// cleared, as the kernel and wireguard-go do.
public struct IPPrefix: Hashable, Sendable, BitwiseCopyable {
  public let address: IPAddress
  /// Bits, 0-32 or 0-128.
  public let length: UInt8

  /// Nil where `length` exceeds the family's bit count.
  public init?(_ address: IPAddress, length: Int) {
    guard length >= 0, length <= address.family.bitCount else { return nil }
    self.address = address.masked(to: length)
    self.length = UInt8(length)
  }
}
