import Culvert

/// Why the hops cannot be configured, in one line for the user.
enum HopFailure: Error {
  case file(ConfigFailure)
  case lacks(HopSubject)
  case system(SystemError)
}

/// What a file lacks that configures a tunnel around another.
struct HopSubject: @unchecked Sendable {
  /// NUL-terminated, as the user gave it.
  let path: UnsafePointer<CChar>
  let text: StaticString
}

/// From configuration files to running hops, at start.
extension Hops {
  /// Reads the files and carries out what they say.
  ///
  /// - Parameter memory: `ConfigFile.byteCount` bytes of locked memory; wiped.
  func configure(
    _ options: ServiceOptions, memory: UnsafeMutableRawBufferPointer, at now: Instant
  ) throws(HopFailure) {
    if options.isMTUGiven { innermost.pointee.fixedMTU = options.mtu }
    for hop in 0..<count {
      guard let path = hop == 0 ? options.config : options.through[hop - 1] else { continue }
      try configure(hop, path, memory: memory, at: now)
    }
  }

  private func configure(
    _ hop: Int, _ path: UnsafePointer<CChar>, memory: UnsafeMutableRawBufferPointer,
    at now: Instant
  ) throws(HopFailure) {
    // Start-up: the heap may still be used.
    let bytes = UnsafeMutableRawBufferPointer.allocate(
      byteCount: ConfigFileSettings.byteCount, alignment: 16)
    defer { bytes.deallocate() }
    var settings = ConfigFileSettings(memory: bytes)
    do throws(ConfigFailure) {
      var file = ConfigFile(path, memory: memory)
      try file.load(into: &self[hop].pointee.tunnel, &settings, at: now)
    } catch {
      // Reported here: what it points to ends with this function.
      error.report()
      throw .file(error)
    }
    if hop > 0 || isForwarding { try check(hop, path, settings) }
    do throws(SystemError) {
      if let port = settings.listenPort { try self[hop].pointee.setListenPort(port) }
      if let mark = settings.firewallMark { try self[hop].pointee.setFirewallMark(mark) }
      if let mtu = settings.mtu, self[hop].pointee.fixedMTU == nil {
        self[hop].pointee.fixedMTU = Int(mtu)
      }
      try setAddresses(hop, settings)
    } catch {
      throw .system(error)
    }
  }

  /// Who has no interface cannot be completed later by ip(8).
  private func check(
    _ hop: Int, _ path: UnsafePointer<CChar>, _ settings: ConfigFileSettings
  ) throws(HopFailure) {
    if settings.addresses.isEmpty {
      throw .lacks(
        HopSubject(
          path: path,
          text: hop > 0
            ? "a tunnel around another needs an Address in its [Interface] section"
            : "culvert forward needs an Address in the [Interface] section to send from"))
    }
    if self[hop].pointee.tunnel.peerCount == 0 {
      throw .lacks(
        HopSubject(
          path: path,
          text: hop > 0
            ? "a tunnel around another needs a [Peer] to go through"
            : "culvert forward needs a [Peer] to go through"))
    }
  }

  /// Of the innermost they are the interface's, of the others what the hop inside sends from.
  private func setAddresses(_ hop: Int, _ settings: ConfigFileSettings) throws(SystemError) {
    if hop > 0 {
      for index in settings.addresses.indices.reversed() {
        // The first of a family is the one that is used.
        (channels + (hop - 1)).pointee.setAddress(settings.addresses[index].address)
      }
      return
    }
    if let forwarding { return setAddresses(settings, of: forwarding) }
    let mtu = innermost.pointee.fixedMTU.map { UInt16(clamping: $0) }
    guard !settings.addresses.isEmpty else {
      if let mtu { try innermost.pointee.tun.setMTU(UInt32(mtu)) }
      return
    }
    let index = try innermost.pointee.tun.interfaceIndex()
    // An interface that was handed over may be in another namespace, where the index is good.
    let namespace = (try? innermost.pointee.tun.namespaceDescriptor()) ?? .none
    for address in settings.addresses {
      try LinkSetup.add(address, to: index, in: namespace.raw)
      if address.address.family == .ipv6 { innermost.pointee.hasIPv6 = true }
    }
    try LinkSetup.start(index, mtu: mtu, in: namespace.raw)
  }
}
