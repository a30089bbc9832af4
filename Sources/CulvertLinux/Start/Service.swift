import CLinux
import Culvert

/// Starts and runs a tunnel with the settings of the command line, and prints errors.
///
/// It is in this module and not in the executable, because Embedded Swift only destroys move-only
/// values in the module that declares them.
package enum Service {
  /// Creates the interface, serves it until the end, and returns the exit status.
  package static func run(_ options: ServiceOptions) -> Int32 {
    let level = Log.Level.fromEnvironment()
    var daemon = Daemon.foreground
    if !options.isForeground {
      do throws(SystemError) {
        daemon = try Daemon.fork(keeping: InheritedDescriptors(options))
      } catch {
        return fail("cannot go into the background", error, nil)
      }
    }
    // The helper has no working directory.
    var absolute = options
    absolute.makePathsAbsolute()
    do throws(SystemError) {
      try Helper.start(absolute.stateDirectory, reload: Reload.function(absolute))
    } catch {
      let status = fail("cannot start the helper process", error, nil)
      daemon.reportFailure(status: UInt8(status))
      return status
    }
    let status = serve(options, level, &daemon)
    // Whoever waits for this process then finds the last lines written.
    Helper.end()
    if status != 0 { daemon.reportFailure(status: UInt8(truncatingIfNeeded: status)) }
    return status
  }

  /// The list of the memory that these limits need. That memory is not mapped.
  ///
  /// - Parameters:
  ///   - hops: number of nested tunnels.
  ///   - isForwarding: whether there are local sockets instead of an interface.
  package static func budget(
    _ limits: Limits, hops: Int = 1, isForwarding: Bool = false
  ) -> (budget: Budget, lockedByteCount: Int) {
    var arena = Arena.measuring
    DriverMemory(carvingFrom: &arena, limits: limits, hops: hops, isForwarding: isForwarding)
      .discard()
    return (arena.budget, arena.secretByteCount)
  }

  private static func serve(
    _ options: ServiceOptions, _ level: Log.Level, _ daemon: inout Daemon
  ) -> Int32 {
    var log = Log(level, options.name)
    var options = options
    if options.avoidKnownBugs(of: KernelRelease.current()) {
      log.error(at: Clock.boottime()) {
        $0.append("not using the offload gso: Linux 7.0 to 7.1.4 can corrupt what it sends; ")
        $0.append("update the kernel, or use --offload all if your network card is not affected")
      }
    }
    let region: MemoryRegion
    do throws(SystemError) {
      region = try MemoryRegion(
        byteCount: budget(
          options.limits, hops: options.hopCount, isForwarding: options.isForwarding
        ).budget.total)
    } catch {
      return fail("cannot map the memory; culvert budget prints how much is needed", error, nil)
    }
    var arena = Arena(region: region.bytes)
    let memory = DriverMemory(
      carvingFrom: &arena, limits: options.limits, hops: options.hopCount,
      isForwarding: options.isForwarding)
    harden(arena.secrets, &log)

    // From here on, a failure leaves nothing behind: the TUN is deleted when its descriptor is
    // closed.
    let tun: TunDevice
    do throws(SystemError) {
      tun = try openTUN(options)
    } catch {
      return failTUN(options.name, error)
    }
    var servers = UAPIServers(memory: memory.uapi)
    do throws(SystemError) {
      // From here on, signals stay pending until the event loop reads them: if one killed the
      // process, the sockets' files would remain. Forwarding has no configuration socket, because
      // it runs without root, and the sockets' directory belongs to root.
      try Signals.hold()
      if tun.isOpen { try openListeners(&servers, try tun.name(), options.hopCount) }
    } catch {
      let name = options.name.ofHop(servers.count) ?? options.name
      return fail { line in
        line.append("cannot open the configuration socket of ")
        line.append(name)
        line.append(": ")
        describe(error, Privileges.advice(forUAPI: error), &line)
      }
    }
    do throws(SystemError) {
      if tun.isOpen { log.name = try tun.name() }
      let driver = try Driver.make(
        memory, Driver.Parts(tun: tun, uapi: servers, log: log, options: options))
      defer { driver.destroy() }
      guard listen(driver, options), configure(driver, options, memory),
        startForwarding(driver, options)
      else { return 1 }
      // Without a configuration socket, the port could not be changed later.
      if driver.hops.isForwarding, !driver.hops.outermost.sockets.isOpen {
        return fail("cannot listen for the peer", .EADDRINUSE, nil)
      }
      try driver.startWorkers()
      // Nothing is allocated after this line.
      arena.seal()
      let keepsOutput = Environment.bytes("LOG_LEVEL") != nil && level != .silent
      if daemon.isBackground, !keepsOutput { driver.hops.discardOutput() }
      daemon.reportSuccess(keepsOutput: keepsOutput)
      driver.run()
      return 0
    } catch {
      return fail("cannot start", error, nil)
    }
  }

  /// False if the configuration is invalid. The error has then been reported.
  private static func configure(
    _ driver: Driver, _ options: ServiceOptions, _ memory: DriverMemory
  ) -> Bool {
    guard options.config != nil || !options.outerConfigs.isEmpty else { return true }
    do throws(HopFailure) {
      // No client is connected yet, so the connections' memory is free for use.
      try driver.configure(options, memory: memory.uapi)
      return true
    } catch {
      switch error {
      case .file: break
      case .setting(let failure): _ = fail { failure.append(to: &$0) }
      case .system(let error):
        _ = fail("cannot configure the interface", error, Privileges.advice(forTun: error))
      }
      return false
    }
  }

  private static func openTUN(
    _ options: ServiceOptions
  ) throws(SystemError) -> TunDevice {
    if options.isForwarding { return .none }
    if let raw = try descriptor(in: "WG_TUN_FD") {
      return try TunDevice.adopt(raw, offloads: options.offloads)
    }
    return try TunDevice.create(
      options.name, mtu: UInt32(options.mtu), offloads: options.offloads)
  }

  /// The number in an environment variable; nil if it is not set. Throws EBADF if it is not a
  /// number.
  private static func descriptor(in name: StaticString) throws(SystemError) -> Int32? {
    guard Environment.bytes(name) != nil else { return nil }
    guard let raw = Environment.integer(name) else { throw .EBADF }
    return Int32(truncatingIfNeeded: raw)
  }

  /// Opens the configuration sockets. Only that of the innermost hop can be inherited from the
  /// caller.
  private static func openListeners(
    _ servers: inout UAPIServers, _ name: InterfaceName, _ count: Int
  ) throws(SystemError) {
    servers.append(try openListener(name))
    for hop in 1..<max(1, count) {
      guard let name = name.ofHop(hop) else { throw .ENAMETOOLONG }
      servers.append(try UAPIListener.open(name))
    }
  }

  private static func openListener(
    _ name: InterfaceName
  ) throws(SystemError) -> UAPIListener {
    if let raw = try descriptor(in: "WG_UAPI_FD") { return try UAPIListener.adopt(raw, name) }
    return try UAPIListener.open(name)
  }

  /// Keeps keys in RAM and out of core dumps (R9). If the system refuses, this is logged and the
  /// tunnel runs anyway.
  private static func harden(_ secrets: UnsafeMutableRawBufferPointer, _ log: inout Log) {
    if let error = MemoryRegion.protect(secrets) {
      log.verbose(at: Clock.boottime()) {
        $0.append("keys cannot be locked in RAM: ")
        $0.append(error)
        $0.append("; raise ulimit -l")
      }
    }
    if let error = Hardening.forbidCoreDumps() {
      log.verbose(at: Clock.boottime()) {
        $0.append("core dumps cannot be forbidden: ")
        $0.append(error)
      }
    }
  }

  private static func failTUN(_ name: InterfaceName, _ error: SystemError) -> Int32 {
    fail { line in
      line.append("cannot create ")
      line.append(name)
      line.append(": ")
      describe(error, Privileges.advice(forTun: error), &line)
    }
  }

  private static func fail(
    _ what: StaticString, _ error: SystemError, _ advice: StaticString?
  ) -> Int32 {
    fail { line in
      line.append(what)
      line.append(": ")
      describe(error, advice, &line)
    }
  }

  static func fail(_ body: (inout Line) -> Void) -> Int32 {
    Output.writeLine(to: Output.standardError) {
      $0.append("culvert: ")
      body(&$0)
    }
    return 1
  }

  private static func describe(
    _ error: SystemError, _ advice: StaticString?, _ line: inout Line
  ) {
    if let advice {
      line.append(advice)
    } else {
      line.append(error)
    }
  }

  // MARK: Forwarding

  /// False if a socket cannot be opened. The error has then been reported.
  static func listen(
    _ driver: Driver, _ options: ServiceOptions
  ) -> Bool {
    do throws(ForwardFailure) {
      try driver.listen(options)
      return true
    } catch {
      return report(error)
    }
  }

  /// False if the tunnel has no route to a destination. The error has then been reported.
  static func startForwarding(
    _ driver: Driver, _ options: ServiceOptions
  ) -> Bool {
    guard options.isForwarding else { return true }
    do throws(ForwardFailure) {
      try driver.startForwarding(options.forwards)
      return true
    } catch {
      return report(error)
    }
  }

  private static func report(_ failure: ForwardFailure) -> Bool {
    _ = fail { failure.append(to: &$0) }
    return false
  }
}

/// Advice for startup errors that the user can fix, mostly missing privileges.
enum Privileges {
  /// Advice if the TUN cannot be created or adopted; nil if the error explains itself.
  static func advice(forTun error: SystemError) -> StaticString? {
    switch error {
    case .EPERM, .EACCES: "needs root or CAP_NET_ADMIN"
    case .ENOENT, .ENODEV:
      "/dev/net/tun is missing: modprobe tun, or in a container --device /dev/net/tun"
    case .EBUSY: "the interface is in use by another process"
    case .EINVAL: "the interface exists but is not a suitable TUN (ip tuntap add mode tun)"
    case .EBADF: "WG_TUN_FD is not an open descriptor"
    default: nil
    }
  }

  /// The same for the configuration socket.
  static func advice(forUAPI error: SystemError) -> StaticString? {
    switch error {
    case .EPERM, .EACCES: "needs root to write to /var/run/wireguard"
    case .EADDRINUSE: "another process serves this interface"
    case .EBADF: "WG_UAPI_FD is not an open descriptor"
    case .EINVAL: "WG_UAPI_FD is not a listening socket"
    case .ENOENT: "the parent of the socket's directory does not exist"
    default: nil
    }
  }
}
