/// Why a UAPI request failed, as the errno that the reply carries negated (`errno=-22`). The
/// numbers are those of the generic Linux ABI, which all boards share.
public enum UAPIError: Int32, Error, Sendable {
  /// EIO: the request could not be read or carried out.
  case inputOutput = 5
  /// EINVAL: a malformed value, an unknown key, an overlong line.
  case invalid = 22
  /// ENOSPC: a table that was sized at start is full.
  case full = 28
  /// ENOANO, wireguard-go's errno for what has no other.
  case unknown = 55
  /// EPROTO: an unknown operation, a line without `=`, or keys in the wrong order.
  case wrongOrder = 71
  /// EADDRINUSE: the listen port or the firewall mark could not be set.
  case addressInUse = 98
}
