import Culvert

/// One peer's section of a configuration file, collected until it ends; its allowed IPs are staged
/// in the tunnel, its preshared key lies in locked memory.
struct ConfigFileSection: BitwiseCopyable {
  /// It may stand behind the others.
  var publicKey = Key.zero
  var hasPresharedKey = false
  var endpoint: Endpoint?
  /// In place of `endpoint`.
  var name: ConfigFileName?
  var persistentKeepalive: UInt16?

  /// Carries the section out.
  func commit(
    to tunnel: inout Tunnel, _ settings: inout ConfigFileSettings,
    presharedKey: UnsafeRawPointer, at now: Instant
  ) throws(ConfigurationError) {
    var section = UAPISection(publicKey: publicKey)
    section.hasPresharedKey = hasPresharedKey
    section.endpoint = endpoint
    section.persistentKeepalive = persistentKeepalive
    try section.commit(to: &tunnel, presharedKey: presharedKey, at: now)
    if endpoint != nil || name != nil { settings.forgetNames(of: publicKey) }
    if var name {
      name.publicKey = publicKey
      settings.keepName(name)
    }
  }
}
