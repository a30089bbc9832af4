/// The meaning of a line of a UAPI connection. Every request ends with exactly one of `endGet`,
/// `endSet` and `endFailed`, each of which needs exactly one reply.
public enum UAPILine: Equatable, Sendable {
  case beginGet
  case beginSet
  case device(DeviceSetting)
  case peer(PeerSetting)
  /// The line is wrong, and the rest of the request will be skipped. Drop what is staged for the
  /// peer of this section.
  case failure(UAPIError)
  /// Nothing to do: a line after a failure, or a blank line between requests.
  case skipped
  /// Reply with the state, then errno 0.
  case endGet
  /// Reply with errno 0, if the last peer's section could be applied.
  case endSet
  /// Reply with this errno only.
  case endFailed(UAPIError)
}

/// Why a UAPI request failed: an errno, which the reply carries negated (`errno=-22`). The numbers
/// are those of the generic Linux ABI, which all boards share.
public enum UAPIError: Int32, Error, Sendable {
  /// EIO: the request could not be read or applied.
  case inputOutput = 5
  /// EAGAIN: the state changed while it was listed. The client may try again.
  case changed = 11
  /// EINVAL: a malformed value, an unknown key, an overlong line.
  case invalid = 22
  /// ENOSPC: a table, whose size is fixed at start, is full.
  case full = 28
  /// ENOANO: any other failure, as in wireguard-go.
  case unknown = 55
  /// EPROTO: an unknown operation, a line without `=`, or keys in the wrong order.
  case wrongOrder = 71
  /// EADDRINUSE: the listen port or the firewall mark could not be set.
  case addressInUse = 98
}

/// A line of the device's section of a `set` request.
public enum DeviceSetting: Equatable, Sendable {
  /// 32 bytes in the parser's secret buffer, unclamped; all zero unsets the key.
  case privateKey
  /// 0 lets the system choose.
  case listenPort(UInt16)
  /// 0 removes the mark.
  case fwmark(UInt32)
  /// Removes all peers that are not in this request.
  case replacePeers
}

/// A line of a peer's section of a `set` request.
public enum PeerSetting: Equatable, Sendable {
  /// Ends the previous section and begins this peer's.
  case publicKey(Key)
  case remove
  /// Changes the peer if it exists, and does not create it.
  case updateOnly
  /// 32 bytes in the parser's secret buffer; all zero means none.
  case presharedKey
  /// If the zone was given by name, `UAPIParser.zoneName` holds it and the scope is 0.
  case endpoint(Endpoint)
  /// Seconds; 0 disables it.
  case persistentKeepalive(UInt16)
  case replaceAllowedIPs
  case allowedIP(IPPrefix)
  case removeAllowedIP(IPPrefix)
  case protocolVersion1
}
