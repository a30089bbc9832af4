import CLinux
import Culvert

/// Reads the configuration files of a running tunnel again and applies what has changed, as
/// `wg syncconf` does: peers that are no longer in a file are removed, and the sessions of the
/// others go on (R58). Addresses and the MTU are not changed.
///
/// It runs in a process of its own, because files may block. The files are loaded into a second
/// tunnel, which has the same limits and never runs, so that an error changes nothing.
struct Reload: ~Copyable {
  private var tunnel: Tunnel
  private var settings: ConfigFileSettings
  private let memory: Memory

  /// Copied into the helper process when that starts. Nothing changes it afterwards.
  private nonisolated(unsafe) static var options: ServiceOptions?

  /// What the helper process calls; see helper.h.
  ///
  /// - Parameter options: kept; its paths are absolute.
  static func function(_ options: ServiceOptions) -> clinux_reload {
    Reload.options = options
    return { name in
      guard let options = Reload.options, let name, let name = InterfaceName(cString: name) else {
        return Helper.ReloadResult.failed(.EINVAL).code
      }
      return Reload.run(options, name).code
    }
  }

  private static func run(
    _ options: ServiceOptions, _ name: InterfaceName
  ) -> Helper.ReloadResult {
    _ = Hardening.forbidCoreDumps()
    if options.isForwarding {
      return refuse("culvert forward reads its file at startup only: restart it")
    }
    if options.config == nil, options.outerConfigs.isEmpty {
      return refuse("there is no configuration file to read again: use wg syncconf")
    }
    do throws(SystemError) {
      // Of several files, all are checked before the first is applied.
      if options.hopCount > 1, try !read(options, name, isApplying: false) { return .refused }
      return try read(options, name, isApplying: true) ? .applied : .refused
    } catch {
      return .failed(error)
    }
  }

  /// Reads the files of all hops. False, with the reason printed, if one has an error.
  private static func read(
    _ options: ServiceOptions, _ name: InterfaceName, isApplying: Bool
  ) throws(SystemError) -> Bool {
    for hop in 0..<options.hopCount {
      guard let path = hop == 0 ? options.config : options.outerConfigs[hop - 1],
        let name = name.ofHop(hop)
      else { continue }
      var reload = try Reload(options.limits)
      do throws(ConfigFailure) { try reload.load(path) } catch {
        error.report()
        return false
      }
      guard isApplying else { continue }
      try reload.apply(to: name)
      try reload.sendNames(of: hop)
    }
    return true
  }

  private static func refuse(_ reason: StaticString) -> Helper.ReloadResult {
    _ = Service.fail { $0.append(reason) }
    return .refused
  }

  // MARK: The file

  private init(_ limits: Limits) throws(SystemError) {
    memory = try Memory(limits)
    var arena = Arena(region: memory.region.bytes)
    tunnel = Tunnel(carvingFrom: &arena, limits: limits)
    _ = MemoryRegion.protect(arena.secrets)
    _ = MemoryRegion.protect(memory.texts.bytes)
    tunnel.start()
    settings = ConfigFileSettings(memory: memory.settings)
  }

  private mutating func load(_ path: UnsafePointer<CChar>) throws(ConfigFailure) {
    let file = ConfigFile(path, memory: memory.lines)
    try file.load(into: &tunnel, &settings, at: Clock.boottime())
  }

  // MARK: The running tunnel

  /// Removes the peers that the file no longer has, and sets everything that it has.
  private mutating func apply(to name: InterfaceName) throws(SystemError) {
    var client = try UAPIClient(name, memory: memory.client)
    let removed = try removedPeers(&client)
    try client.write("set=1\n")
    let fwmark = settings.firewallMark ?? 0
    try client.write {
      UAPIReply.writeDevice(
        privateKey: tunnel.privateKey, listenPort: settings.listenPort ?? 0, fwmark: fwmark,
        to: &$0)
    }
    // A mark of 0 is left out there.
    if fwmark == 0 { try client.write("fwmark=0\n") }
    for index in 0..<removed {
      try client.write { UAPIRequest.writeRemoval(of: memory.keys[index], to: &$0) }
    }
    var next = tunnel.firstPeer
    while let id = next {
      try write(id, to: &client)
      next = tunnel.peer(after: id)
    }
    try client.finish { _ in }
  }

  /// Stores the public keys of the peers that the file does not have. Returns their number.
  private func removedPeers(_ client: inout UAPIClient) throws(SystemError) -> Int {
    var count = 0
    try client.write("get=1\n")
    try client.finish { line in
      guard let digits = UAPIClient.value(of: "public_key=", in: line), count < memory.keys.count
      else { return }
      guard Hex.decodeKey(digits, into: memory.keys.baseAddress! + count),
        tunnel.findPeer(memory.keys[count]) == nil
      else { return }
      count += 1
    }
    return count
  }

  private func write(_ id: PeerID, to client: inout UAPIClient) throws(SystemError) {
    guard let status = tunnel.status(of: id), var cursor = tunnel.allowedIPs(of: id) else { return }
    try client.write {
      UAPIRequest.writePeer(
        status.publicKey, status.endpoint, presharedKey: status.presharedKey,
        persistentKeepalive: status.persistentKeepalive, to: &$0)
    }
    while let prefix = tunnel.next(&cursor) {
      try client.write { UAPIReply.writeAllowedIP(prefix, to: &$0) }
    }
  }

  /// Gives the host names of the file to the running tunnel, which looks them up.
  private func sendNames(of hop: Int) throws(SystemError) {
    try Helper.reply(.forgetNames, of: hop)
    for name in settings.names where !name.publicKey.isZero {
      try Helper.reply(.name, of: hop, Helper.HostName(name.publicKey, name.name, name.port))
    }
  }

  // MARK: Memory

  private struct Memory: ~Copyable {
    let region: MemoryRegion
    /// Locked, because keys pass through it.
    let texts: MemoryRegion
    private let rest: MemoryRegion
    let keys: UnsafeMutableBufferPointer<Key>

    init(_ limits: Limits) throws(SystemError) {
      var arena = Arena.measuring
      _ = Tunnel(carvingFrom: &arena, limits: limits)
      let region = try MemoryRegion(byteCount: arena.budget.total)
      let texts = try MemoryRegion(byteCount: ConfigFile.byteCount + UAPIClient.byteCount)
      let keyByteCount = limits.peers * MemoryLayout<Key>.stride
      let rest = try MemoryRegion(byteCount: keyByteCount + ConfigFileSettings.byteCount)
      keys = UnsafeMutableRawBufferPointer(rebasing: rest.bytes[..<keyByteCount])
        .bindMemory(to: Key.self)
      self.region = region
      self.texts = texts
      self.rest = rest
    }

    var lines: UnsafeMutableRawBufferPointer {
      UnsafeMutableRawBufferPointer(rebasing: texts.bytes[..<ConfigFile.byteCount])
    }
    var client: UnsafeMutableRawBufferPointer {
      UnsafeMutableRawBufferPointer(rebasing: texts.bytes[ConfigFile.byteCount...])
    }
    var settings: UnsafeMutableRawBufferPointer {
      UnsafeMutableRawBufferPointer(
        rebasing: rest.bytes[(keys.count * MemoryLayout<Key>.stride)...])
    }
  }
}
