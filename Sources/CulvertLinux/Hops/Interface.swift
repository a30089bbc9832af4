import Culvert

/// A tunnel with its connections to the system: the TUN, the sockets, and their settings. Of nested
/// tunnels, only the innermost has a TUN and only the outermost has sockets; the others have a
/// channel instead of sockets.
///
/// The tunnel and the log are used under the tunnel's lock. The leader reads the TUN and the
/// sockets; the worker whose ticket is next writes to them. Everything else changes only while no
/// batch is in flight.
struct Interface: ~Copyable {
  var tunnel: Tunnel
  var tun: TunDevice
  var sockets: UDPSockets
  /// Instead of sockets; leads into the next outer tunnel. Nil for the outermost hop.
  let channel: UnsafeMutablePointer<DatagramChannel>?
  var log: Log
  let stamps: TimestampFile
  /// The port to bind: the configured one, or the last one that the kernel chose; 0 lets the kernel
  /// choose.
  private var wantedPort: UInt16 = 0
  /// Runs while the tunnel is up without sockets, because the port could not be bound.
  private var bindPause = BackOff()
  private(set) var firewallMark: UInt32 = 0
  /// The sockets are new and must still be registered with epoll.
  var hasNewSockets = false

  /// The MTU that the user has set; nil if it is derived from the outer tunnels.
  var fixedMTU: Int?
  /// Whether the configuration file gives the interface an IPv6 address.
  var hasIPv6 = false
  /// The TUN's MTU as set by `assignMTU`; 0 if never.
  private var assignedMTU = 0
  /// The last seen value of `Tunnel.removals`.
  private var seenRemovals: UInt64 = 0

  init(
    tunnel: consuming Tunnel, tun: consuming TunDevice, sockets: consuming UDPSockets,
    channel: UnsafeMutablePointer<DatagramChannel>?, log: Log, stamps: TimestampFile
  ) {
    self.tunnel = tunnel
    self.tun = tun
    self.sockets = sockets
    self.channel = channel
    self.log = log
    self.stamps = stamps
  }

  /// The bound port; while the tunnel is down, the one that it will bind. 0 for none, also while
  /// the port is taken (R43).
  var listenPort: UInt16 { bindPause.deadline.isSet ? 0 : wantedPort }

  /// When to try again to bind the port; never if that is not needed.
  var bindDeadline: Deadline { bindPause.deadline }

  /// Whether peers have been removed since the last call.
  mutating func noticesRemovals() -> Bool {
    defer { seenRemovals = tunnel.removals }
    return seenRemovals != tunnel.removals
  }

  // MARK: Link

  /// Applies the interface's MTU and up/down state to the tunnel.
  mutating func apply(_ state: LinkState, at now: Instant) {
    log.name = state.name
    let mtu = Int(state.mtu)
    if assignedMTU > 0, mtu != assignedMTU, isMTUForeign { fixedMTU = mtu }
    if mtu != tunnel.mtu {
      if mtu > tunnel.limits.maximumMTU {
        let limit = tunnel.limits.maximumMTU
        log.error(at: now) {
          $0.append("MTU ")
          $0.append(decimal: mtu)
          $0.append(" is more than the limit of ")
          $0.append(decimal: limit)
          $0.append("; larger packets are dropped: ip link set mtu ")
          $0.append(decimal: limit)
        }
      } else {
        log.verbose(at: now) {
          $0.append("MTU updated: ")
          $0.append(decimal: mtu)
        }
      }
      tunnel.setMTU(min(mtu, tunnel.limits.maximumMTU))
    }
    if state.isUp != tunnel.isUp { setUp(state.isUp, at: now) }
  }

  /// Whether another process has set the MTU, so that it is no longer derived. Asks the interface,
  /// because notifications may be older than the last assignment.
  private var isMTUForeign: Bool {
    guard let state = try? tun.state() else { return false }
    return Int(state.mtu) != assignedMTU
  }

  /// Sets the TUN's MTU. The kernel's notification then causes a call of `apply`.
  mutating func assignMTU(_ mtu: Int, at now: Instant) {
    guard fixedMTU == nil, mtu != assignedMTU, tun.isOpen else { return }
    do throws(SystemError) {
      let before = assignedMTU
      assignedMTU = mtu
      do throws(SystemError) { try tun.setMTU(UInt32(mtu)) } catch {
        assignedMTU = before
        throw error
      }
    } catch {
      report(error, "cannot set the interface's MTU", at: now)
    }
  }

  mutating func setUp(_ isUp: Bool, at now: Instant) {
    bindPause.reset()
    if isUp {
      bindOrRetry(at: now)
    } else if let channel {
      channel[0].close()
    } else {
      sockets.close()
    }
    tunnel.setUp(isUp, at: now)
    log.verbose(at: now) {
      $0.append(isUp ? "interface up requested" : "interface down requested")
    }
  }

  /// Binds the port. If that fails, the tunnel is up without sockets, and `bindDeadline` is set.
  mutating func bindOrRetry(at now: Instant) {
    let port = wantedPort
    let isRetry = bindPause.deadline.isSet
    do throws(SystemError) {
      try bind(port)
      if isRetry {
        let bound = wantedPort
        // At the level of the first line, which would otherwise be the last word.
        log.error(at: now) {
          $0.append("listening on port ")
          $0.append(decimal: Int(bound))
          $0.append(" now")
        }
      }
    } catch {
      bindPause.fail(at: now)
      if !isRetry { report(error, port: port, "; trying again until it is free", at: now) }
    }
  }

  private mutating func bind(_ port: UInt16) throws(SystemError) {
    if let channel {
      if port == 0 || port != channel[0].firstPort { open(&channel[0], port) }
      wantedPort = channel[0].firstPort
      return
    }
    if try sockets.bind(port: port) { hasNewSockets = true }
    wantedPort = sockets.port
    bindPause.reset()
  }

  /// Whether the mark was refused instead of the port: without CAP_NET_ADMIN, or by an emulator.
  private func isAboutMark(_ error: SystemError) -> Bool {
    sockets.mark != 0 && (error == .EPERM || error == .ENOPROTOOPT)
  }

  private mutating func report(
    _ error: SystemError, port: UInt16, _ outcome: StaticString, at now: Instant
  ) {
    let isMark = isAboutMark(error)
    log.error(at: now) {
      $0.append(isMark ? "cannot set the firewall mark of port " : "cannot listen on port ")
      $0.append(decimal: Int(port))
      $0.append(": ")
      $0.append(error)
      $0.append(outcome)
      $0.append(isMark ? "; take FwMark out" : "; choose another with wg set listen-port")
    }
  }

  /// Inside a tunnel, all ports are free. A random port is chosen from the dynamic range (RFC 6335
  /// section 6).
  private func open(_ channel: inout DatagramChannel, _ port: UInt16) {
    var entropy = Entropy.sodium
    let random = 49_152 + UInt16(truncatingIfNeeded: entropy.below(16_384))
    channel.open(firstPort: port == 0 ? random : port)
  }

  // MARK: Settings

  /// Sets the listen port. Nothing changes if it is already bound (R39). If it cannot be bound, the
  /// old one stays, and the log says why.
  mutating func setListenPort(_ port: UInt16, at now: Instant) throws(SystemError) {
    guard tunnel.isUp else {
      wantedPort = port
      return
    }
    do throws(SystemError) { try bind(port) } catch {
      report(error, port: port, "", at: now)
      throw error
    }
  }

  /// Sets the listen port at startup, and binds it although the tunnel may still be down.
  ///
  /// - Parameter staysOpen: whether the tunnel will be up soon. Otherwise the port is only tried.
  mutating func claimListenPort(_ port: UInt16, staysOpen: Bool) throws(SystemError) {
    wantedPort = port
    // Any port: one will be free.
    if port == 0, !tunnel.isUp { return }
    do throws(SystemError) { try bind(port) } catch {
      // The tunnel works without the mark once somebody removes it.
      if isAboutMark(error) { return }
      throw error
    }
    if staysOpen || tunnel.isUp || channel != nil { return }
    sockets.close()
    hasNewSockets = false
  }

  mutating func setFirewallMark(_ mark: UInt32) throws(SystemError) {
    guard mark != firewallMark else { return }
    if channel == nil { try setMarkOfSockets(mark) }
    firewallMark = mark
  }

  /// Rules may send datagrams with another mark by another interface, so the local addresses are
  /// checked again (R40).
  mutating func setMarkOfSockets(_ mark: UInt32) throws(SystemError) {
    try sockets.setMark(mark)
    tunnel.recheckSources()
  }

  /// See `RouteCheck`; for the datagrams of the sockets.
  func judgeSource(of path: Path, _ routes: borrowing RouteCheck) -> SourceVerdict {
    routes.judgeSource(of: path, port: sockets.port, mark: sockets.mark)
  }

  /// Logs "peer(fE/w…FKqt) - Sending handshake initiation", as in wireguard-go.
  mutating func log(_ event: Event, at now: Instant) {
    let describe = { (line: inout Line) in
      line.append("peer(")
      line.append(abbreviated: event.peer)
      line.append(") - ")
      line.append(event.kind.text)
    }
    if event.kind.isError { log.error(at: now, describe) } else { log.verbose(at: now, describe) }
  }

  /// Counts and logs the errors of a batch.
  mutating func report(_ result: LaneResult, _ what: StaticString, at now: Instant) {
    if result.failedWriteCount > 0 { tunnel.didFailToDeliver(result.failedWriteCount) }
    report(result.error, what, at: now)
    report(result.stampError, "cannot store the handshake timestamp", at: now)
    var index = 0
    while let (name, offload) = Offloads.named(index) {
      index += 1
      guard result.lost.contains(offload) else { continue }
      // Logged only once, because the offload is not tried again.
      log.error(at: now) {
        $0.append("the kernel refuses the offload ")
        $0.append(name)
        $0.append("; going on without it")
      }
    }
  }

  /// Logs an error of the data path; the log limits its own rate (R20).
  mutating func report(_ error: SystemError?, _ what: StaticString, at now: Instant) {
    guard let error else { return }
    log.verbose(at: now) {
      $0.append(what)
      $0.append(": ")
      $0.append(error)
    }
  }
}

/// When to repeat something that has failed: after one second, then after twice as long each time,
/// up to a minute.
struct BackOff: BitwiseCopyable {
  /// Never until the first failure.
  private(set) var deadline = Deadline.never
  /// Seconds.
  private var pause: UInt64 = 0

  static let longestPause: UInt64 = 60

  mutating func fail(at now: Instant) {
    pause = pause == 0 ? 1 : min(pause * 2, BackOff.longestPause)
    deadline = .after(pause * nanosecondsPerSecond, from: now)
  }

  /// The next failure is a first one.
  mutating func reset() {
    deadline = .never
    pause = 0
  }
}

/// The results of one batch's system calls, for the log. The tunnel counts the packets themselves.
struct LaneResult {
  /// The descriptor has no more data. Otherwise the batch was full and there may be more.
  var isDrained = true
  /// The last error of a send, receive, read or write, if any.
  var error: SystemError?
  /// Offloads that the kernel has refused and that are not used again.
  var lost = Offloads.none
  /// Packets that the TUN refused.
  var failedWriteCount = 0
  /// Why the handshake timestamp could not be stored.
  var stampError: SystemError?

  /// The TUN has refused `count` packets, with the error `code`.
  mutating func didFailToWrite(_ count: Int, _ code: Int) {
    failedWriteCount += count
    error = SystemError(code: Int32(truncatingIfNeeded: code))
  }

  var needsReport: Bool {
    error != nil || stampError != nil || failedWriteCount > 0 || !lost.isEmpty
  }
}
