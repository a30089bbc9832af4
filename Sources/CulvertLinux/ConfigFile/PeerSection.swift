import Culvert

/// One peer's section of a `set` request or of a configuration file. It is collected until it ends,
/// so that an error in the middle leaves the peer unchanged. Its allowed IPs are staged in the
/// tunnel, and its preshared key is in locked memory; everything else is here.
struct PeerSection: BitwiseCopyable {
  var publicKey: Key
  var isRemoved = false
  var isUpdateOnly = false
  var hasPresharedKey = false
  var endpoint: Endpoint?
  var persistentKeepalive: UInt16?

  init(publicKey: Key) {
    self.publicKey = publicKey
  }

  /// Applies the section to the tunnel.
  func commit(
    to tunnel: inout Tunnel, presharedKey: UnsafeRawPointer, at now: Instant
  ) throws(ConfigurationError) {
    // Nothing stays staged, even if this fails.
    defer { tunnel.abandonAllowedIPs() }
    let existing = tunnel.findPeer(publicKey)
    if isRemoved {
      if let existing { tunnel.removePeer(existing) }
      return
    }
    // A peer with the device's own key is ignored, as in the kernel.
    if publicKey == tunnel.publicKey || (isUpdateOnly && existing == nil) { return }
    let id = try tunnel.addPeer(publicKey)
    if hasPresharedKey { tunnel.setPresharedKey(presharedKey, of: id) }
    if let endpoint { tunnel.setEndpoint(endpoint, of: id) }
    tunnel.commitAllowedIPs(to: id)
    if let persistentKeepalive {
      tunnel.setPersistentKeepalive(persistentKeepalive, of: id, at: now)
    }
    tunnel.peerIsConfigured(id, at: now)
  }
}
