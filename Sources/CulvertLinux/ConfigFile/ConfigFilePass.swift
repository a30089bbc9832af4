import Culvert

/// One reading of a configuration file: what its statements do.
struct ConfigFilePass {
  private let path: UnsafePointer<CChar>
  /// False for the reading that only looks for errors.
  private let isApplying: Bool
  /// Of the section that is being read.
  private let presharedKey: UnsafeMutableRawPointer
  private var section: ConfigFileSection?
  private var line: UInt32 = 0

  init(
    path: UnsafePointer<CChar>, isApplying: Bool, presharedKey: UnsafeMutableRawPointer
  ) {
    self.path = path
    self.isApplying = isApplying
    self.presharedKey = presharedKey
  }

  private func failure(_ reason: ConfigFailure.Reason) -> ConfigFailure {
    ConfigFailure(reason, path: path, line: line)
  }

  /// Carries a statement out.
  ///
  /// - Parameter parser: that the statement is of, and that holds its secret or its name.
  mutating func take(
    _ statement: ConfigStatement, _ parser: borrowing ConfigParser, _ tunnel: inout Tunnel,
    _ settings: inout ConfigFileSettings, at now: Instant
  ) throws(ConfigFailure) {
    switch statement {
    case .beginInterface: try endSection(&tunnel, &settings, at: now)
    case .beginPeer:
      try endSection(&tunnel, &settings, at: now)
      section = ConfigFileSection()
      if isApplying { tunnel.stageReplaceAllowedIPs() }
    default: break
    }
    line = parser.line
    switch statement {
    case .beginInterface, .beginPeer: break
    case .device(let setting): set(setting, parser, &tunnel, &settings)
    case .address(let address):
      guard settings.append(address) else {
        throw failure(.addresses(ConfigFileSettings.maximumAddresses))
      }
    case .mtu(let mtu):
      // R33: what is larger than the buffers is refused, with the limit in the message.
      let limit = tunnel.limits.maximumMTU
      guard Int(mtu) <= limit else { throw failure(.mtu(limit)) }
      settings.mtu = mtu
    case .ignored(let key): settings.ignoredKeys |= key.bit
    case .peer(let setting): try set(setting, parser, &tunnel, settings)
    case .namedEndpoint(let port):
      guard let name = settings.hold(parser.name, port: port, line: line) else {
        throw failure(.names(ConfigFileSettings.maximumNames))
      }
      section?.name = name
    case .failure(let error):
      throw ConfigFailure(
        .wrong(error.reason), path: path, line: error.line, subject: settings.quote(parser.key))
    }
  }

  private func set(
    _ setting: DeviceSetting, _ parser: borrowing ConfigParser, _ tunnel: inout Tunnel,
    _ settings: inout ConfigFileSettings
  ) {
    switch setting {
    case .privateKey: if isApplying { parser.withSecret { tunnel.setPrivateKey($0) } }
    case .listenPort(let port): settings.listenPort = port
    case .fwmark(let mark): settings.firewallMark = mark
    case .replacePeers: break
    }
  }

  private mutating func set(
    _ setting: PeerSetting, _ parser: borrowing ConfigParser, _ tunnel: inout Tunnel,
    _ settings: ConfigFileSettings
  ) throws(ConfigFailure) {
    switch setting {
    case .publicKey(let key): section?.publicKey = key
    case .presharedKey:
      let presharedKey = presharedKey
      parser.withSecret {
        presharedKey.copyMemory(from: $0, byteCount: WireGuard.keyByteCount)
      }
      section?.hasPresharedKey = true
    case .endpoint(var endpoint):
      if parser.name.count > 0 {
        guard let scope = InterfaceIndex.find(parser.name) else {
          throw ConfigFailure(
            .noInterface, path: path, line: line, subject: settings.quote(parser.name))
        }
        endpoint.scope = scope
      }
      section?.endpoint = endpoint
    case .persistentKeepalive(let seconds): section?.persistentKeepalive = seconds
    case .allowedIP(let prefix): try stage(prefix, add: true, &tunnel)
    case .removeAllowedIP(let prefix): try stage(prefix, add: false, &tunnel)
    // A configuration file has no words for these.
    case .remove, .updateOnly, .replaceAllowedIPs, .protocolVersion1: break
    }
  }

  private func stage(
    _ prefix: IPPrefix, add: Bool, _ tunnel: inout Tunnel
  ) throws(ConfigFailure) {
    guard isApplying else { return }
    do throws(ConfigurationError) {
      try tunnel.stageAllowedIP(prefix, add: add)
    } catch {
      throw failure(.allowedIPs(tunnel.limits.allowedIPs))
    }
  }

  /// Carries out the peer's section that ends here, if there is one.
  mutating func endSection(
    _ tunnel: inout Tunnel, _ settings: inout ConfigFileSettings, at now: Instant
  ) throws(ConfigFailure) {
    guard let section else { return }
    self.section = nil
    defer { Secret.wipe(presharedKey, byteCount: WireGuard.keyByteCount) }
    guard isApplying else {
      if let name = section.name { settings.keepName(name) }
      return
    }
    do throws(ConfigurationError) {
      try section.commit(to: &tunnel, &settings, presharedKey: presharedKey, at: now)
    } catch {
      throw failure(.peers(tunnel.limits.peers))
    }
  }
}

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
