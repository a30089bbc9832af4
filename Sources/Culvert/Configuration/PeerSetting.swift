/// A line of a peer's section of a `set` request.
public enum PeerSetting: Equatable, Sendable {
  /// Ends the section before and opens this peer's.
  case publicKey(Key)
  case remove
  /// The peer is changed where it exists, never created.
  case updateOnly
  /// 32 bytes in the parser's secret buffer; all zero means none.
  case presharedKey
  /// Where the zone was given by name, `UAPIParser.zoneName` holds it and the scope is 0.
  case endpoint(Endpoint)
  /// Seconds; 0 turns it off.
  case persistentKeepalive(UInt16)
  case replaceAllowedIPs
  case allowedIP(IPPrefix)
  case removeAllowedIP(IPPrefix)
  case protocolVersion1
}
