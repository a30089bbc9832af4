/// What UAPI gets.
extension Tunnel {
  /// One peer as `wg show` prints it.
  public struct PeerStatus {
    public let publicKey: Key
    /// 32 bytes in locked memory, valid until the next call that changes the tunnel; all zero for
    /// none.
    public let presharedKey: UnsafeRawPointer
    public let endpoint: Endpoint?
    public let lastHandshake: Instant?
    /// Whole messages, in bytes (R36).
    public let receivedByteCount: UInt64
    public let sentByteCount: UInt64
    /// Seconds; 0 for off.
    public let persistentKeepalive: UInt16
  }

  /// Where a listing of allowed IPs stands.
  public struct AllowedIPCursor {
    fileprivate var cursor: AllowedIPs.Cursor
  }

  public var firstPeer: PeerID? { peerTable.firstPeer }

  /// The peer configured after `id`; nil also where `id` has been removed meanwhile.
  public func peer(after id: PeerID) -> PeerID? { peerTable.peer(after: id) }

  public func status(of id: PeerID) -> PeerStatus? {
    guard let peer = peer(id) else { return nil }
    return PeerStatus(
      publicKey: peer.pointee.publicKey,
      presharedKey: UnsafeRawPointer(peer.pointee.handshake.presharedKey),
      endpoint: peer.pointee.path?.endpoint, lastHandshake: peer.pointee.lastHandshake,
      receivedByteCount: peer.pointee.receivedByteCount,
      sentByteCount: peer.pointee.sentByteCount,
      persistentKeepalive: peer.pointee.timers.persistentKeepaliveInterval)
  }

  public func allowedIPs(of id: PeerID) -> AllowedIPCursor? {
    guard peer(id) != nil else { return nil }
    return AllowedIPCursor(cursor: allowedIPs.cursor(of: id.index))
  }

  public func next(_ cursor: inout AllowedIPCursor) -> IPPrefix? {
    allowedIPs.next(&cursor.cursor)
  }

  /// The oldest event that has not been read; for a log.
  public mutating func nextEvent() -> Event? { events.next() }

  public var hasEvents: Bool { events.count > 0 }

  /// Handshake messages wait for `advance`.
  public var hasHandshakes: Bool { !handshakeRing.isEmpty }

  /// The horizon of timestamps that the shell should store now; seldom other than nil (R28).
  public mutating func timestampToPersist() -> TAI64N? { timestamps.floorToPersist() }

  /// The last timestamp sent, to be stored at a clean end; nil where none was.
  public var lastTimestamp: TAI64N? { timestamps.lastSent }

  /// Starts timestamps at what an earlier run stored.
  public mutating func restoreTimestamp(_ floor: TAI64N) {
    timestamps = TimestampSource(floor: floor)
  }
}
