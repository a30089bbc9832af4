import CLinux
import Culvert

/// One connection of wg(8): requests come in as lines, replies go out through a fixed buffer, in
/// pieces where they are long.
struct UAPIConnection: ~Copyable {
  /// What has been written of a reply to `get`.
  private enum Reply {
    case none
    case device
    case peer(PeerID)
    case allowedIPs(PeerID, Tunnel.AllowedIPCursor)
    case end
  }

  /// What the connection waits for.
  enum Outcome {
    case readable
    case writable
    /// Another connection is in the middle of a `set`.
    case turn
    case closed
    /// It has done its share for now.
    case more
  }

  /// Locked memory of one connection: both directions carry keys.
  private enum Layout {
    static let secret = 0
    static let presharedKey = 32
    static let lines = 64
    static let lineByteCount = 2048
    static let replies = lines + lineByteCount
    static let replyByteCount = 2048
    static let byteCount = replies + replyByteCount
  }
  static let byteCount = Layout.byteCount
  /// Work done in one call, so that a configuration of 130,000 allowed IPs or of 1,000 peers does
  /// not hold up the packets: lines, of which a peer's first costs a Diffie-Hellman product.
  private static let linesPerCall = 1024
  private static let linesPerPeer = 64
  /// Buffers of a reply sent in one call.
  private static let buffersPerCall = 32

  private(set) var descriptor = FileDescriptor.none
  private var reader: LineReader
  private var writer: ByteWriter
  private var parser: UAPIParser
  private let presharedKey: UnsafeMutableRawPointer
  private var section: UAPISection?
  private var reply = Reply.none
  private var sentByteCount = 0
  /// In the middle of a `set`, which only one connection may be at a time.
  private(set) var isSetting = false
  /// At the beginning of a `set`, and waits until the other one is through.
  private(set) var wantsToSet = false
  /// Everything sent has been read, and everything read has been answered.
  private var isDrained = false
  /// When it was last served, in calls: the connection idle for longest makes room for a new one.
  var lastServed: UInt64 = 0

  /// - Parameter memory: `byteCount` bytes of locked memory.
  init(memory: UnsafeMutableRawBufferPointer) {
    precondition(memory.count >= Layout.byteCount)
    let base = memory.baseAddress!
    reader = LineReader(
      buffer: UnsafeMutableRawBufferPointer(
        start: base + Layout.lines, count: Layout.lineByteCount))
    writer = ByteWriter(
      UnsafeMutableRawBufferPointer(
        start: base + Layout.replies, count: Layout.replyByteCount))
    parser = UAPIParser(secret: base + Layout.secret)
    presharedKey = base + Layout.presharedKey
  }

  var isOpen: Bool { descriptor.isOpen }

  /// Between two requests, with nothing on its way in or out.
  var isIdle: Bool {
    guard case .none = reply, isDrained, parser.isIdle, reader.isEmpty else { return false }
    return !wantsToSet && sentByteCount == 0 && writer.count == 0
  }

  mutating func open(_ descriptor: consuming FileDescriptor) {
    self.descriptor = descriptor
  }

  /// Ends the connection and wipes what it held.
  mutating func close(_ interface: inout Interface) {
    if section != nil { interface.tunnel.abandonAllowedIPs() }
    descriptor = .none
    reader.reset()
    writer.rewind()
    parser.reset()
    Secret.wipe(presharedKey, byteCount: WireGuard.keyByteCount)
    section = nil
    reply = .none
    sentByteCount = 0
    isSetting = false
    wantsToSet = false
    isDrained = false
  }

  /// Goes on reading requests and writing replies as far as that goes.
  ///
  /// - Parameter isFree: no other connection is in the middle of a `set`.
  mutating func serve(_ interface: inout Interface, isFree: Bool, at now: Instant) -> Outcome {
    isDrained = false
    var lines = UAPIConnection.linesPerCall
    while lines > 0 {
      if let outcome = writeReply(interface) { return outcome }
      if wantsToSet {
        guard isFree else { return .turn }
        wantsToSet = false
        isSetting = true
      }
      let line = reader.next()
      if case .incomplete = line {
        let count = descriptor.read(into: reader.makeRoom())
        if count == -Int(SystemError.EAGAIN.code) {
          isDrained = true
          return .readable
        }
        if count <= 0 { return .closed }
        reader.didReceive(byteCount: count)
      } else {
        let parsed = parser.parse(line)
        if case .peer(.publicKey) = parsed { lines -= UAPIConnection.linesPerPeer }
        take(parsed, &interface, at: now)
      }
      lines -= 1
    }
    return .more
  }

  // MARK: Requests

  private mutating func take(_ line: UAPILine, _ interface: inout Interface, at now: Instant) {
    switch line {
    case .beginSet: wantsToSet = true
    case .beginGet, .skipped: break
    case .device(let setting): set(setting, &interface, at: now)
    case .peer(let setting): set(setting, &interface, at: now)
    case .failure: dropSection(&interface)
    case .endGet: reply = .device
    case .endSet:
      isSetting = false
      end(endSection(&interface, at: now))
    case .endFailed(let error):
      isSetting = false
      end(error)
    }
  }

  private mutating func set(
    _ setting: DeviceSetting, _ interface: inout Interface, at now: Instant
  ) {
    switch setting {
    case .privateKey: parser.withSecret { interface.tunnel.setPrivateKey($0) }
    case .listenPort(let port):
      do throws(SystemError) { try interface.setListenPort(port) } catch {
        interface.report(error, "cannot set the listen port", at: now)
        parser.fail(.addressInUse)
      }
    case .fwmark(let mark):
      do throws(SystemError) { try interface.setFirewallMark(mark) } catch {
        interface.report(error, "cannot set the firewall mark", at: now)
        parser.fail(.addressInUse)
      }
    case .replacePeers: interface.tunnel.removeAllPeers()
    }
  }

  private mutating func set(
    _ setting: PeerSetting, _ interface: inout Interface, at now: Instant
  ) {
    if case .publicKey(let key) = setting {
      if let error = endSection(&interface, at: now) {
        parser.fail(error)
      } else {
        section = UAPISection(publicKey: key)
      }
      return
    }
    switch setting {
    case .publicKey, .protocolVersion1: break
    case .remove: section?.isRemoved = true
    case .updateOnly: section?.isUpdateOnly = true
    case .presharedKey:
      let presharedKey = presharedKey
      parser.withSecret {
        presharedKey.copyMemory(from: $0, byteCount: WireGuard.keyByteCount)
      }
      section?.hasPresharedKey = true
    case .endpoint(var endpoint):
      if parser.zoneName.count > 0 {
        guard let scope = InterfaceIndex.find(parser.zoneName) else { return refuse(&interface) }
        endpoint.scope = scope
      }
      section?.endpoint = endpoint
    case .persistentKeepalive(let seconds): section?.persistentKeepalive = seconds
    case .replaceAllowedIPs: interface.tunnel.stageReplaceAllowedIPs()
    case .allowedIP(let prefix): stage(prefix, add: true, &interface)
    case .removeAllowedIP(let prefix): stage(prefix, add: false, &interface)
    }
  }

  private mutating func stage(_ prefix: IPPrefix, add: Bool, _ interface: inout Interface) {
    do throws(ConfigurationError) {
      try interface.tunnel.stageAllowedIP(prefix, add: add)
    } catch {
      parser.fail(.full)
      dropSection(&interface)
    }
  }

  private mutating func refuse(_ interface: inout Interface) {
    parser.fail(.invalid)
    dropSection(&interface)
  }

  private mutating func dropSection(_ interface: inout Interface) {
    interface.tunnel.abandonAllowedIPs()
    Secret.wipe(presharedKey, byteCount: WireGuard.keyByteCount)
    section = nil
  }

  /// Carries out the section that ends here. The error where it could not be.
  private mutating func endSection(
    _ interface: inout Interface, at now: Instant
  ) -> UAPIError? {
    guard let section else { return nil }
    defer { dropSection(&interface) }
    do throws(ConfigurationError) {
      try section.commit(to: &interface.tunnel, presharedKey: presharedKey, at: now)
      return nil
    } catch {
      return .full
    }
  }

  // MARK: Replies

  private mutating func end(_ error: UAPIError?) {
    _ = UAPIReply.writeEnd(error, to: &writer)
  }

  /// Writes and sends what is to be replied. Nil when that is all out.
  private mutating func writeReply(_ interface: borrowing Interface) -> Outcome? {
    for _ in 0..<UAPIConnection.buffersPerCall {
      // Each part is written whole or not at all; when one does not fit, the buffer goes out.
      let isFull = !fillBuffer(interface)
      while sentByteCount < writer.count {
        let rest = UnsafeRawBufferPointer(rebasing: writer.written[sentByteCount...])
        let count = descriptor.write(rest)
        if count == -Int(SystemError.EAGAIN.code) { return .writable }
        if count <= 0 { return .closed }
        sentByteCount += count
      }
      if sentByteCount > 0 {
        writer.rewind()
        sentByteCount = 0
      }
      if !isFull { return nil }
    }
    return .writable
  }

  /// False where the buffer is full before the reply is at its end.
  private mutating func fillBuffer(_ interface: borrowing Interface) -> Bool {
    // What is on its way out is not overwritten.
    if sentByteCount > 0 { return false }
    while true {
      switch reply {
      case .none: return true
      case .device:
        guard
          UAPIReply.writeDevice(
            privateKey: interface.tunnel.privateKey, listenPort: interface.listenPort,
            fwmark: interface.firewallMark, to: &writer)
        else { return false }
        reply = interface.tunnel.firstPeer.map { .peer($0) } ?? .end
      case .peer(let id):
        guard writePeer(id, interface) else { return false }
      case .allowedIPs(let id, var cursor):
        let before = cursor
        guard let prefix = interface.tunnel.next(&cursor) else {
          reply = interface.tunnel.peer(after: id).map { .peer($0) } ?? .end
          continue
        }
        guard UAPIReply.writeAllowedIP(prefix, to: &writer) else {
          reply = .allowedIPs(id, before)
          return false
        }
        reply = .allowedIPs(id, cursor)
      case .end:
        guard UAPIReply.writeEnd(nil, to: &writer) else { return false }
        reply = .none
      }
    }
  }

  private mutating func writePeer(_ id: PeerID, _ interface: borrowing Interface) -> Bool {
    guard let status = interface.tunnel.status(of: id),
      let cursor = interface.tunnel.allowedIPs(of: id)
    else {
      // Removed by another connection meanwhile.
      reply = .end
      return true
    }
    let handshake = UAPIConnection.epochTime(of: status.lastHandshake)
    let state = UAPIPeerState(
      publicKey: status.publicKey, endpoint: status.endpoint,
      lastHandshakeSeconds: handshake.seconds, lastHandshakeNanoseconds: handshake.nanoseconds,
      sentByteCount: status.sentByteCount, receivedByteCount: status.receivedByteCount,
      persistentKeepalive: status.persistentKeepalive)
    guard UAPIReply.writePeer(state, presharedKey: status.presharedKey, to: &writer) else {
      return false
    }
    reply = .allowedIPs(id, cursor)
    return true
  }

  /// The epoch time of an instant, as the wall clock stands now: a clock that was set after the
  /// handshake does not make the handshake look old.
  private static func epochTime(of instant: Instant?) -> WallTime {
    guard let instant else { return WallTime(seconds: 0, nanoseconds: 0) }
    let wall = Clock.realtime()
    let age = Clock.boottime().since(instant)
    let now = wall.seconds &* nanosecondsPerSecond &+ UInt64(wall.nanoseconds)
    guard now > age else { return WallTime(seconds: 0, nanoseconds: 1) }
    let then = now - age
    return WallTime(
      seconds: then / nanosecondsPerSecond, nanoseconds: UInt32(then % nanosecondsPerSecond))
  }
}

/// One peer's section of a `set` request, collected until it ends: an error in the middle of it
/// changes nothing of that peer. Its allowed IPs are staged in the tunnel, its preshared key in
/// the connection's locked memory, the rest here.
struct UAPISection: BitwiseCopyable {
  var publicKey: Key
  var isRemoved = false
  var isUpdateOnly = false
  var hasPresharedKey = false
  var endpoint: Endpoint?
  var persistentKeepalive: UInt16?

  init(publicKey: Key) {
    self.publicKey = publicKey
  }

  /// Carries the section out.
  func commit(
    to tunnel: inout Tunnel, presharedKey: UnsafeRawPointer, at now: Instant
  ) throws(ConfigurationError) {
    // Whatever happens, nothing stays staged.
    defer { tunnel.abandonAllowedIPs() }
    let existing = tunnel.findPeer(publicKey)
    if isRemoved {
      if let existing { tunnel.removePeer(existing) }
      return
    }
    // A peer with the device's own key is ignored, as by the kernel.
    if publicKey == tunnel.publicKey || (isUpdateOnly && existing == nil) { return }
    let id = try tunnel.addPeer(publicKey)
    if hasPresharedKey { tunnel.setPresharedKey(presharedKey, of: id) }
    if let endpoint { tunnel.setEndpoint(endpoint, of: id) }
    tunnel.commitAllowedIPs(to: id)
    if let persistentKeepalive {
      tunnel.setPersistentKeepalive(persistentKeepalive, of: id, at: now)
    }
    tunnel.peerIsConfigured(id, at: now)
  }
}
