/// What a line of a configuration file says, or one element of it where it holds a list.
public enum ConfigStatement: Equatable, Sendable {
  /// A peer's section begins: what was said of the peer before is complete.
  case beginPeer
  /// The interface's section begins, or goes on; a peer's section before it is complete.
  case beginInterface
  /// `privateKey`, `listenPort` or `fwmark`.
  case device(DeviceSetting)
  /// An address of the interface (wg-quick(8)).
  case address(ConfigAddress)
  /// Bytes, 68-65535 (wg-quick(8)).
  case mtu(UInt16)
  /// Known and not carried out (wg-quick(8)).
  case ignored(ConfigKey)
  /// `publicKey`, `presharedKey`, `endpoint`, `persistentKeepalive`, `allowedIP` or
  /// `removeAllowedIP`. The public key need not be the first of its section.
  case peer(PeerSetting)
  /// An endpoint given by a host name, which is in `ConfigParser.name`, and its port.
  case namedEndpoint(port: UInt16)
  /// The file is wrong; nothing follows.
  case failure(ConfigError)
}
