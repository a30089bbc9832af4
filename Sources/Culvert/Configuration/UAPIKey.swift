/// The keys of a `set` request (wireguard.com/xplatform, "Configuration Protocol").
enum UAPIKey {
  // The device's section.
  case privateKey, listenPort, fwmark, replacePeers
  // Opens a peer's section.
  case publicKey
  // A peer's section.
  case remove, updateOnly, presharedKey, endpoint, persistentKeepalive, replaceAllowedIPs
  case allowedIP, protocolVersion

  /// Nil where the key is unknown.
  init?(_ text: UnsafeRawBufferPointer) {
    // Most frequent first: a large configuration is mostly allowed IPs.
    if text.isText("allowed_ip") {
      self = .allowedIP
    } else if text.isText("public_key") {
      self = .publicKey
    } else if text.isText("endpoint") {
      self = .endpoint
    } else if text.isText("preshared_key") {
      self = .presharedKey
    } else if text.isText("persistent_keepalive_interval") {
      self = .persistentKeepalive
    } else if text.isText("replace_allowed_ips") {
      self = .replaceAllowedIPs
    } else if text.isText("remove") {
      self = .remove
    } else if text.isText("update_only") {
      self = .updateOnly
    } else if text.isText("protocol_version") {
      self = .protocolVersion
    } else if text.isText("private_key") {
      self = .privateKey
    } else if text.isText("listen_port") {
      self = .listenPort
    } else if text.isText("fwmark") {
      self = .fwmark
    } else if text.isText("replace_peers") {
      self = .replacePeers
    } else {
      return nil
    }
  }

  /// True for the keys that stand before the first `public_key`.
  var isOfDevice: Bool {
    switch self {
    case .privateKey, .listenPort, .fwmark, .replacePeers: true
    default: false
    }
  }
}
