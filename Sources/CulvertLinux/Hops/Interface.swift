import Culvert

/// The tunnel together with what connects it to the system: the TUN, the sockets, and what has
/// been configured about them. Of nested tunnels only the innermost has a TUN, and only the
/// outermost sockets; the others have a channel in their place.
struct Interface: ~Copyable {
  var tunnel: Tunnel
  var tun: TunDevice
  var sockets: UDPSockets
  /// What the datagrams go through in place of the sockets: the next tunnel around this one.
  let channel: UnsafeMutablePointer<DatagramChannel>?
  var log: Log
  let stamps: TimestampFile
  /// The port wanted; what is bound once it is up. 0 lets the kernel choose.
  private(set) var listenPort: UInt16 = 0
  private(set) var firewallMark: UInt32 = 0
  /// The sockets are new, and epoll has to be told.
  var hasNewSockets = false

  /// What somebody has set the MTU to; nil where it follows from the tunnels around this one.
  var fixedMTU: Int?
  /// Whether the configuration file gives the interface an IPv6 address.
  var hasIPv6 = false
  /// What `assignMTU` has given the TUN; 0 for nothing.
  private var assignedMTU = 0
  /// What has been seen of `Tunnel.removals`.
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

  /// Whether peers have been removed since this was last asked.
  mutating func takeRemovals() -> Bool {
    defer { seenRemovals = tunnel.removals }
    return seenRemovals != tunnel.removals
  }

  // MARK: Link

  /// Follows the interface's MTU and up/down state.
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

  /// Whether somebody has set the MTU by hand, so that it no longer follows. The interface is
  /// asked: news may be older than what was assigned since.
  private var isMTUForeign: Bool {
    guard let state = try? tun.state() else { return false }
    return Int(state.mtu) != assignedMTU
  }

  /// Gives the TUN its MTU, which will be heard of through `apply`.
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
    if isUp {
      do throws(SystemError) {
        try bind(listenPort)
      } catch {
        let port = listenPort
        // What a new socket has, besides its port, that may be refused: without CAP_NET_ADMIN, or
        // by an emulator.
        let isMark = sockets.mark != 0 && (error == .EPERM || error == .ENOPROTOOPT)
        log.error(at: now) {
          $0.append(isMark ? "cannot set the firewall mark of port " : "cannot listen on port ")
          $0.append(decimal: Int(port))
          $0.append(": ")
          $0.append(error)
          $0.append(isMark ? "; take FwMark out" : "; choose another with wg set listen-port")
        }
        // Up all the same: a port that is free can still be set.
      }
    } else if let channel {
      channel.pointee.close()
    } else {
      sockets.close()
    }
    tunnel.setUp(isUp, at: now)
    log.verbose(at: now) {
      $0.append(isUp ? "interface up requested" : "interface down requested")
    }
  }

  private mutating func bind(_ port: UInt16) throws(SystemError) {
    if let channel {
      if port == 0 || port != channel.pointee.firstPort { open(channel, port) }
      listenPort = channel.pointee.firstPort
      return
    }
    if try sockets.bind(port: port) { hasNewSockets = true }
    listenPort = sockets.port
  }

  /// Inside a tunnel all ports are free. A random one is taken from where the kernel takes its own
  /// (RFC 6335 section 6).
  private func open(_ channel: UnsafeMutablePointer<DatagramChannel>, _ port: UInt16) {
    var entropy = Entropy.sodium
    let random = 49_152 + UInt16(truncatingIfNeeded: entropy.below(16_384))
    channel.pointee.open(firstPort: port == 0 ? random : port)
  }

  // MARK: Settings

  /// Setting the port that is bound already touches nothing (R39).
  mutating func setListenPort(_ port: UInt16) throws(SystemError) {
    guard tunnel.isUp else {
      listenPort = port
      return
    }
    try bind(port)
  }

  mutating func setFirewallMark(_ mark: UInt32) throws(SystemError) {
    guard mark != firewallMark else { return }
    if channel == nil { try sockets.setMark(mark) }
    firewallMark = mark
  }

  /// "peer(fE/w…FKqt) - Sending handshake initiation", as wireguard-go has it.
  mutating func log(_ event: Event, at now: Instant) {
    log.verbose(at: now) { line in
      line.append("peer(")
      line.append(abbreviated: event.peer)
      line.append(") - ")
      line.append(event.kind.text)
    }
  }

  /// Counts and logs what went wrong with a batch.
  mutating func report(_ result: LaneResult, _ what: StaticString, at now: Instant) {
    if result.failedWriteCount > 0 { tunnel.didFailToDeliver(result.failedWriteCount) }
    report(result.error, what, at: now)
    report(result.stampError, "cannot store the handshake timestamp", at: now)
    var index = 0
    while let (name, offload) = Offloads.named(index) {
      index += 1
      guard result.lost.contains(offload) else { continue }
      // Once: it is not tried again.
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
