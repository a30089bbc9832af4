import Culvert

/// Configures the hops from configuration files at startup.
extension Hops {
  /// Reads the files and applies them.
  ///
  /// - Parameters:
  ///   - memory: `ConfigFile.byteCount` bytes of locked memory; wiped.
  ///   - resolver: gets the host names of endpoints.
  func configure(
    _ options: ServiceOptions, memory: UnsafeMutableRawBufferPointer, _ resolver: inout Resolver,
    at now: Instant
  ) throws(HopFailure) {
    if options.isMTUGiven { innermost.fixedMTU = options.mtu }
    for hop in 0..<count {
      guard let path = hop == 0 ? options.config : options.outerConfigs[hop - 1] else { continue }
      try configure(hop, path, memory: memory, &resolver, at: now)
    }
  }

  /// Applies the file of one hop.
  private func configure(
    _ hop: Int, _ path: UnsafePointer<CChar>, memory: UnsafeMutableRawBufferPointer,
    _ resolver: inout Resolver, at now: Instant
  ) throws(HopFailure) {
    // The heap may be used, because the arena is not sealed yet.
    let bytes = UnsafeMutableRawBufferPointer.allocate(
      byteCount: ConfigFileSettings.byteCount, alignment: 16)
    defer { bytes.deallocate() }
    var settings = ConfigFileSettings(memory: bytes)
    do throws(ConfigFailure) {
      let file = ConfigFile(path, memory: memory)
      try file.load(into: &self[hop].tunnel, &settings, at: now)
    } catch {
      // Reported here, because the error points into memory that this function deallocates.
      error.report()
      throw .file
    }
    for name in settings.names where !name.publicKey.isZero {
      addName(name.name, name.port, of: name.publicKey, hop, &resolver, at: now)
    }
    if let mtu = settings.mtu, self[hop].fixedMTU == nil { self[hop].fixedMTU = Int(mtu) }
    do throws(SettingFailure) {
      if hop > 0 || isForwarding { try check(hop, path, settings) }
      try checkMTU(hop, path, settings)
    } catch {
      throw .setting(error)
    }
    try setListenPort(hop, path, settings)
    if hop == 0, !isForwarding { return try setAddresses(path, settings) }
    setSourceAddresses(hop, settings)
  }

  /// Sets the firewall mark and the listen port. The port is bound at once, so that the start fails
  /// if it is taken (R43).
  private func setListenPort(
    _ hop: Int, _ path: UnsafePointer<CChar>, _ settings: ConfigFileSettings
  ) throws(HopFailure) {
    do throws(SystemError) {
      if let mark = settings.firewallMark { try self[hop].setFirewallMark(mark) }
    } catch {
      throw .system(error)
    }
    guard let port = settings.listenPort else { return }
    // Without an address the interface stays down, and then no port is bound.
    let isUpSoon = !settings.addresses.isEmpty
    do throws(SystemError) { try self[hop].claimListenPort(port, staysOpen: isUpSoon) } catch {
      throw .setting(SettingFailure(path, .listenPort(port, error)))
    }
  }

  /// Checks, before anything is set, that the interface can have its IPv6 addresses: with a smaller
  /// MTU Linux would remove them without a word (R57).
  private func checkMTU(
    _ hop: Int, _ path: UnsafePointer<CChar>, _ settings: ConfigFileSettings
  ) throws(SettingFailure) {
    guard hop == 0, !isForwarding, let mtu = innermost.fixedMTU, mtu < Policy.ipv6MinimumMTU else {
      return
    }
    for address in settings.addresses where address.address.family == .ipv6 {
      throw SettingFailure(path, .smallMTU(mtu, address))
    }
  }

  /// Gives a host name to the resolver, which has room for all names of the files. There is no such
  /// peer if its key is the device's own, or if a later section gives it another endpoint.
  func addName(
    _ name: UnsafeRawBufferPointer, _ port: UInt16, of publicKey: Key, _ hop: Int,
    _ resolver: inout Resolver, at now: Instant
  ) {
    guard hop < count, let id = self[hop].tunnel.findPeer(publicKey),
      let settings = self[hop].tunnel.endpointSettings(of: id)
    else { return }
    _ = resolver.add(
      name, port: port, of: publicKey, id, hop: hop, settings: settings, at: now)
  }

  /// Checks that nothing is missing that cannot be added later: without an interface, ip(8) cannot
  /// set addresses.
  private func check(
    _ hop: Int, _ path: UnsafePointer<CChar>, _ settings: ConfigFileSettings
  ) throws(SettingFailure) {
    if settings.addresses.isEmpty {
      throw SettingFailure(
        path,
        .lacks(
          hop > 0
            ? "an outer tunnel needs an Address in its [Interface] section"
            : "culvert forward needs an Address in the [Interface] section"))
    }
    if self[hop].tunnel.peerCount == 0 {
      throw SettingFailure(
        path,
        .lacks(
          hop > 0 ? "an outer tunnel needs a [Peer]" : "culvert forward needs a [Peer]"))
    }
  }

  /// Sets the addresses of an outer hop, which are the source addresses of the next inner hop, or
  /// those of clients' datagrams.
  private func setSourceAddresses(_ hop: Int, _ settings: ConfigFileSettings) {
    if hop == 0 {
      if let forwarding { setAddresses(of: forwarding, settings) }
      return
    }
    for index in settings.addresses.indices.reversed() {
      // The first address of a family is used, so it is set last.
      channels[hop - 1].setAddress(settings.addresses[index].address)
    }
  }

  /// Sets the addresses and the MTU of the interface, and brings it up if it has an address.
  private func setAddresses(
    _ path: UnsafePointer<CChar>, _ settings: ConfigFileSettings
  ) throws(HopFailure) {
    let mtu = innermost.fixedMTU.map { UInt16(clamping: $0) }
    var refused: SettingFailure?
    do throws(SystemError) {
      guard !settings.addresses.isEmpty else {
        if let mtu { try innermost.tun.setMTU(UInt32(mtu)) }
        return
      }
      let index = try innermost.tun.interfaceIndex()
      // An adopted interface may be in another namespace, where its index is valid.
      let namespace = (try? innermost.tun.namespaceDescriptor()) ?? .none
      refused = addAddresses(path, settings, to: index, in: namespace.raw)
      if refused == nil { try LinkSetup.start(index, mtu: mtu, in: namespace.raw) }
    } catch {
      throw .system(error)
    }
    if let refused { throw .setting(refused) }
  }

  /// Adds the interface's addresses; if IPv6 is off on this host, only those of IPv4 (R57). Returns
  /// which address was refused, if any.
  private func addAddresses(
    _ path: UnsafePointer<CChar>, _ settings: ConfigFileSettings, to index: UInt32,
    in namespace: Int32
  ) -> SettingFailure? {
    var hasSkipped = false
    for address in settings.addresses {
      let isIPv6 = address.address.family == .ipv6
      do throws(SystemError) {
        try LinkSetup.add(address, to: index, in: namespace)
        if isIPv6 { innermost.hasIPv6 = true }
      } catch {
        guard isIPv6, LinkSetup.meansIPv6IsOff(error) else {
          return SettingFailure(path, .address(address, error))
        }
        if !hasSkipped { warnOfSkippedAddresses(path) }
        hasSkipped = true
      }
    }
    return nil
  }

  private func warnOfSkippedAddresses(_ path: UnsafePointer<CChar>) {
    Output.writeLine(to: Output.standardError) {
      $0.append("culvert: ")
      $0.append(cString: path)
      $0.append(": IPv6 is off on this system; going on without the IPv6 addresses")
    }
  }

  /// Sets the source addresses of clients' datagrams: the first address of each family.
  private func setAddresses(of forwarding: Forwarding, _ settings: ConfigFileSettings) {
    for index in settings.addresses.indices.reversed() {
      let address = settings.addresses[index].address
      forwarding.channel.setAddress(address)
      if address.family == .ipv6 { innermost.hasIPv6 = true }
    }
  }
}
