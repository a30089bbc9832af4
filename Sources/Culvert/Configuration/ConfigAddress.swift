/// An address of an interface and the length of the network that is reached through it
/// (`Address = 10.0.0.2/24`). Unlike an `IPPrefix` it keeps its host bits.
public struct ConfigAddress: Hashable, Sendable, BitwiseCopyable {
  public let address: IPAddress
  /// Bits, 0-32 or 0-128.
  public let length: UInt8

  /// Nil where `length` exceeds the family's bit count.
  public init?(_ address: IPAddress, length: Int) {
    guard length >= 0, length <= address.family.bitCount else { return nil }
    self.address = address
    self.length = UInt8(length)
  }

  /// `address/length`, or `address` for its full length. The length may have leading zeros, as for
  /// wg(8); there is no zone.
  init?(_ text: UnsafeRawBufferPointer) {
    guard let slash = text.firstPosition(of: 0x2f) else {
      guard let address = AddressText.address(text) else { return nil }
      self.init(address, length: address.family.bitCount)
      return
    }
    guard let address = AddressText.address(text.text(0, slash)),
      let length = text.text(from: slash + 1).number(maximum: 128)
    else { return nil }
    self.init(address, length: Int(length))
  }

  /// The network.
  public var prefix: IPPrefix {
    // The length was checked against the same family.
    IPPrefix(address, length: Int(length))!
  }
}
