import Culvert

/// One peer's section of a `set` request, collected until it ends: an error in the middle of it
/// changes nothing of that peer. Its allowed IPs are staged in the tunnel, its preshared key in
/// the connection's locked memory, the rest here.
struct UAPISection: BitwiseCopyable {
  var publicKey: Key
  var isRemoved = false
  var isUpdateOnly = false
  var hasPresharedKey = false
  var endpoint: Endpoint?
  var persistentKeepalive: UInt16?

  init(publicKey: Key) {
    self.publicKey = publicKey
  }

  /// Carries the section out.
  @inline(never)
  func commit(
    to tunnel: inout Tunnel, presharedKey: UnsafeRawPointer, at now: Instant
  ) throws(ConfigurationError) {
    // Whatever happens, nothing stays staged.
    defer { tunnel.abandonAllowedIPs() }
    let existing = tunnel.findPeer(publicKey)
    if isRemoved {
      if let existing { tunnel.removePeer(existing) }
      return
    }
    // A peer with the device's own key is ignored, as by the kernel.
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
