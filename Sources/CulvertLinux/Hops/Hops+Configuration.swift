import Culvert

/// Why the hops cannot be configured, in one line for the user.
enum HopFailure: Error {
  /// The error has already been reported.
  case file
  case lacks(HopSubject)
  case system(SystemError)
}

/// What is missing in the file of a tunnel that has no interface.
struct HopSubject: @unchecked Sendable {
  /// NUL-terminated, as the user gave it.
  let path: UnsafePointer<CChar>
  let text: StaticString
}

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
    for name in settings.names { addName(name, hop, &resolver, at: now) }
    if hop > 0 || isForwarding { try check(hop, path, settings) }
    do throws(SystemError) {
      if let port = settings.listenPort { try self[hop].setListenPort(port) }
      if let mark = settings.firewallMark { try self[hop].setFirewallMark(mark) }
      if let mtu = settings.mtu, self[hop].fixedMTU == nil {
        self[hop].fixedMTU = Int(mtu)
      }
      try setAddresses(hop, settings)
    } catch {
      throw .system(error)
    }
  }

  /// Gives a host name to the resolver, which has room for all names of the files. There is no such
  /// peer if its key is the device's own, or if a later section gives it another endpoint.
  private func addName(
    _ name: ConfigFileName, _ hop: Int, _ resolver: inout Resolver, at now: Instant
  ) {
    guard !name.publicKey.isZero, let id = self[hop].tunnel.findPeer(name.publicKey),
      let settings = self[hop].tunnel.endpointSettings(of: id)
    else { return }
    _ = resolver.add(
      name.name, port: name.port, of: name.publicKey, id, hop: hop, settings: settings, at: now)
  }

  /// Checks that nothing is missing that cannot be added later: without an interface, ip(8) cannot
  /// set addresses.
  private func check(
    _ hop: Int, _ path: UnsafePointer<CChar>, _ settings: ConfigFileSettings
  ) throws(HopFailure) {
    if settings.addresses.isEmpty {
      throw .lacks(
        HopSubject(
          path: path,
          text: hop > 0
            ? "an outer tunnel needs an Address in its [Interface] section"
            : "culvert forward needs an Address in the [Interface] section"))
    }
    if self[hop].tunnel.peerCount == 0 {
      throw .lacks(
        HopSubject(
          path: path,
          text: hop > 0
            ? "an outer tunnel needs a [Peer]"
            : "culvert forward needs a [Peer]"))
    }
  }

  /// Sets a hop's addresses: those of the innermost hop on its interface, those of the others as
  /// the source addresses of the next inner hop.
  private func setAddresses(_ hop: Int, _ settings: ConfigFileSettings) throws(SystemError) {
    if hop > 0 {
      for index in settings.addresses.indices.reversed() {
        // The first address of a family is used, so it is set last.
        channels[hop - 1].setAddress(settings.addresses[index].address)
      }
      return
    }
    if let forwarding { return setAddresses(of: forwarding, settings) }
    let mtu = innermost.fixedMTU.map { UInt16(clamping: $0) }
    guard !settings.addresses.isEmpty else {
      if let mtu { try innermost.tun.setMTU(UInt32(mtu)) }
      return
    }
    let index = try innermost.tun.interfaceIndex()
    // An adopted interface may be in another namespace, where its index is valid.
    let namespace = (try? innermost.tun.namespaceDescriptor()) ?? .none
    for address in settings.addresses {
      try LinkSetup.add(address, to: index, in: namespace.raw)
      if address.address.family == .ipv6 { innermost.hasIPv6 = true }
    }
    try LinkSetup.start(index, mtu: mtu, in: namespace.raw)
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
