/// What one line of a UAPI connection means. Every request ends with exactly one of `endGet`,
/// `endSet` and `endFailed`, and each of these asks for exactly one reply.
public enum UAPILine: Equatable, Sendable {
  case beginGet
  case beginSet
  case device(DeviceSetting)
  case peer(PeerSetting)
  /// This line is wrong; the rest of the request will be skipped. What is staged for the peer
  /// whose section this is must be dropped.
  case failure(UAPIError)
  /// Nothing to do: a line after a failure, or a blank line between requests.
  case skipped
  /// The reply is the state, then errno 0.
  case endGet
  /// The reply is errno 0, where the last peer's section could be carried out.
  case endSet
  /// The reply is this errno alone.
  case endFailed(UAPIError)
}
