/// A line of the device's section of a `set` request.
public enum DeviceSetting: Equatable, Sendable {
  /// 32 bytes in the parser's secret buffer, unclamped; all zero unsets the key.
  case privateKey
  /// 0 lets the system choose.
  case listenPort(UInt16)
  /// 0 removes the mark.
  case fwmark(UInt32)
  /// Peers that are not in this request go.
  case replacePeers
}
