/// A peer as a `get` reply shows it, without its preshared key and its allowed IPs.
public struct UAPIPeerState: Sendable {
  public var publicKey: Key
  /// Nil where none is known yet.
  public var endpoint: Endpoint?
  /// Time of the last handshake since the Unix epoch; 0 and 0 for never.
  public var lastHandshakeSeconds: UInt64
  /// 0 to 999,999,999.
  public var lastHandshakeNanoseconds: UInt32
  /// Bytes of whole messages sent (R36).
  public var sentByteCount: UInt64
  /// Bytes of whole messages received (R36).
  public var receivedByteCount: UInt64
  /// Seconds; 0 is off.
  public var persistentKeepalive: UInt16

  public init(
    publicKey: Key, endpoint: Endpoint?, lastHandshakeSeconds: UInt64,
    lastHandshakeNanoseconds: UInt32, sentByteCount: UInt64, receivedByteCount: UInt64,
    persistentKeepalive: UInt16
  ) {
    self.publicKey = publicKey
    self.endpoint = endpoint
    self.lastHandshakeSeconds = lastHandshakeSeconds
    self.lastHandshakeNanoseconds = lastHandshakeNanoseconds
    self.sentByteCount = sentByteCount
    self.receivedByteCount = receivedByteCount
    self.persistentKeepalive = persistentKeepalive
  }
}
