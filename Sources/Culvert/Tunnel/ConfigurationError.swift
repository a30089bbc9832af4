/// Why a setting was refused. The shell turns each into the errno that wg(8) shows.
public enum ConfigurationError: Error, Sendable {
  /// `Limits.peers` are configured.
  case tooManyPeers
  /// `Limits.allowedIPs` are configured.
  case tooManyAllowedIPs
  /// The peer has been removed.
  case noSuchPeer
}
