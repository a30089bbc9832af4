import Culvert

/// One pass over a configuration file: checks its statements, or applies them.
struct ConfigFilePass {
  private let path: UnsafePointer<CChar>
  /// False for the pass that only looks for errors.
  private let isApplying: Bool
  /// The preshared key of the current section, in locked memory.
  private let presharedKey: UnsafeMutableRawPointer
  /// The peer's section that is being read. Its public key need not be the first key.
  private var section: PeerSection?
  /// The host name of that section's endpoint.
  private var name: ConfigFileName?
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

  /// Applies a statement, or checks whether it could be applied.
  ///
  /// - Parameter parser: the statement's parser, which holds its secret or its name.
  mutating func apply(
    _ statement: ConfigStatement, _ parser: borrowing ConfigParser, _ tunnel: inout Tunnel,
    _ settings: inout ConfigFileSettings, at now: Instant
  ) throws(ConfigFailure) {
    switch statement {
    case .beginInterface: try commitSection(&tunnel, &settings, at: now)
    case .beginPeer:
      try commitSection(&tunnel, &settings, at: now)
      section = PeerSection(publicKey: .zero)
      name = nil
      if isApplying { tunnel.stageReplaceAllowedIPs() }
    default: break
    }
    line = parser.line
    switch statement {
    case .beginInterface, .beginPeer: break
    case .device(let setting): apply(setting, parser, &tunnel, &settings, at: now)
    case .address(let address):
      guard settings.append(address) else {
        throw failure(.addresses(ConfigFileSettings.maximumAddresses))
      }
    case .mtu(let mtu):
      // R33: an MTU that exceeds the buffers is refused, with the limit in the message.
      let limit = tunnel.limits.maximumMTU
      guard Int(mtu) <= limit else { throw failure(.mtu(limit)) }
      settings.mtu = mtu
    case .ignored(let key): settings.ignoredKeys |= key.bit
    case .peer(let setting): try apply(setting, parser, &tunnel, settings)
    case .namedEndpoint(let port):
      guard let held = settings.hold(parser.name, port: port, line: line) else {
        throw failure(.names(ConfigFileSettings.maximumNames))
      }
      name = held
    case .failure(let error):
      throw ConfigFailure(
        .wrong(error.reason), path: path, line: error.line, subject: settings.quote(parser.key))
    }
  }

  private func apply(
    _ setting: DeviceSetting, _ parser: borrowing ConfigParser, _ tunnel: inout Tunnel,
    _ settings: inout ConfigFileSettings, at now: Instant
  ) {
    switch setting {
    case .privateKey: if isApplying { parser.withSecret { tunnel.setPrivateKey($0, at: now) } }
    case .listenPort(let port): settings.listenPort = port
    case .fwmark(let mark): settings.firewallMark = mark
    case .replacePeers: break
    }
  }

  private mutating func apply(
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
    // A configuration file cannot express these.
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

  /// Applies the peer's section that has ended, if there is one.
  mutating func commitSection(
    _ tunnel: inout Tunnel, _ settings: inout ConfigFileSettings, at now: Instant
  ) throws(ConfigFailure) {
    guard let section else { return }
    self.section = nil
    defer { Secret.wipe(presharedKey, byteCount: WireGuard.keyByteCount) }
    guard isApplying else {
      if let name { settings.keepName(name) }
      return
    }
    do throws(ConfigurationError) {
      try section.commit(to: &tunnel, presharedKey: presharedKey, at: now)
    } catch {
      throw failure(.peers(tunnel.limits.peers))
    }
    if section.endpoint != nil || name != nil { settings.forgetNames(of: section.publicKey) }
    if var name {
      name.publicKey = section.publicKey
      settings.keepName(name)
    }
  }
}
