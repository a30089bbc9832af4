import CLinux
import Culvert

/// One connection of wg(8). It reads requests line by line. Replies are sent through a fixed
/// buffer; long replies take several buffers.
struct UAPIConnection: ~Copyable {
  /// The next part to write of a reply to `get`.
  private enum Reply {
    case none
    case device
    case peer(Tunnel.PeerCursor)
    case allowedIPs(Tunnel.PeerCursor, Tunnel.AllowedIPCursor)
    /// The last part, with the error if the state cannot be listed to its end.
    case end(UAPIError?)
  }

  /// What the connection is waiting for.
  enum Outcome {
    case readable
    case writable
    /// Another connection is in the middle of a `set`.
    case turn
    case closed
    /// Nothing: it has done as much work as is allowed in one call.
    case more
  }

  /// The locked memory of one connection; keys pass in both directions.
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
  /// The most lines handled in one call, so that a configuration of 130,000 allowed IPs or of 1,000
  /// peers does not delay packets.
  private static let linesPerCall = 1024
  /// The lines that a peer's first line counts as, because it needs a Diffie-Hellman product.
  private static let linesPerPeer = 64
  /// The most buffers of a reply sent in one call.
  private static let buffersPerCall = 32

  private(set) var descriptor = FileDescriptor.none
  private var reader: LineReader
  private var writer: ByteWriter
  private var parser: UAPIParser
  private let presharedKey: UnsafeMutableRawPointer
  private var section: PeerSection?
  private var reply = Reply.none
  private var sentByteCount = 0
  /// In the middle of a `set`. This is only allowed for one connection at a time.
  private(set) var isSetting = false
  /// At the beginning of a `set`, waiting for another connection's `set` to end.
  private(set) var wantsToSet = false
  /// Everything the client has sent has been read and answered.
  private var isDrained = false
  /// The client sends no more. The connection is closed once its last request is answered.
  private var hasEnded = false
  /// When the client last sent something, or took a part of a reply, or was given its turn.
  var lastServed = Instant(nanoseconds: 0)

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

  /// Between two requests, with nothing left to read or write.
  var isIdle: Bool {
    guard case .none = reply, isDrained, parser.isIdle, reader.isEmpty else { return false }
    return !wantsToSet && sentByteCount == 0 && writer.count == 0
  }

  /// Waiting for the client, in the middle of a request or of a reply.
  var isHalfWay: Bool { isOpen && !isIdle && !wantsToSet }

  mutating func open(_ descriptor: consuming FileDescriptor) {
    self.descriptor = descriptor
  }

  /// Closes the connection and wipes its memory.
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
    hasEnded = false
  }

  /// Reads requests and writes replies until it has to wait.
  ///
  /// - Parameter isFree: whether no other connection is in the middle of a `set`.
  mutating func serve(_ interface: inout Interface, isFree: Bool, at now: Instant) -> Outcome {
    isDrained = false
    var lines = UAPIConnection.linesPerCall
    while lines > 0 {
      if let outcome = writeReply(interface) { return outcome }
      if hasEnded { return .closed }
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
        if count < 0 { return .closed }
        if count == 0 {
          guard endRequest(&interface, at: now) else { return .closed }
          hasEnded = true
        }
        reader.didReceive(byteCount: count)
      } else {
        let parsed = parser.parse(line)
        if case .peer(.publicKey) = parsed { lines -= UAPIConnection.linesPerPeer }
        apply(parsed, &interface, at: now)
      }
      lines -= 1
    }
    return .more
  }

  // MARK: Requests

  private mutating func apply(_ line: UAPILine, _ interface: inout Interface, at now: Instant) {
    switch line {
    case .beginSet: wantsToSet = true
    case .beginGet, .skipped: break
    case .device(let setting): apply(setting, &interface, at: now)
    case .peer(let setting): apply(setting, &interface, at: now)
    case .failure: dropSection(&interface)
    case .endGet: reply = .device
    case .endSet:
      isSetting = false
      writeEnd(commitSection(&interface, at: now))
    case .endFailed(let error):
      isSetting = false
      dropSection(&interface)
      writeEnd(error)
    }
  }

  /// Ends the request as a blank line would, after the client has sent everything. A line that is
  /// cut off fails it. False if there is nothing to answer, or nobody to read the answer: a client
  /// that was killed must not leave half a peer's configuration.
  private mutating func endRequest(_ interface: inout Interface, at now: Instant) -> Bool {
    guard !parser.isIdle, clinux_uapi_has_client(descriptor.raw) != 0 else { return false }
    if !reader.isEmpty { parser.fail(.inputOutput) }
    apply(
      parser.parse(UnsafeRawBufferPointer(start: nil, count: 0)), &interface, at: now)
    return true
  }

  private mutating func apply(
    _ setting: DeviceSetting, _ interface: inout Interface, at now: Instant
  ) {
    switch setting {
    case .privateKey: parser.withSecret { interface.tunnel.setPrivateKey($0, at: now) }
    case .listenPort(let port):
      do throws(SystemError) { try interface.setListenPort(port, at: now) } catch {
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

  private mutating func apply(
    _ setting: PeerSetting, _ interface: inout Interface, at now: Instant
  ) {
    if case .publicKey(let key) = setting {
      if let error = commitSection(&interface, at: now) {
        parser.fail(error)
      } else {
        section = PeerSection(publicKey: key)
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
    // Without a section, what is staged is another connection's.
    if section != nil { interface.tunnel.abandonAllowedIPs() }
    Secret.wipe(presharedKey, byteCount: WireGuard.keyByteCount)
    section = nil
  }

  /// Commits the peer's section that has ended, if there is one. Returns the error if it fails.
  private mutating func commitSection(
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

  private mutating func writeEnd(_ error: UAPIError?) {
    _ = UAPIReply.writeEnd(error, to: &writer)
  }

  /// Writes and sends the rest of the reply. Nil once all of it has been sent.
  private mutating func writeReply(_ interface: borrowing Interface) -> Outcome? {
    for _ in 0..<UAPIConnection.buffersPerCall {
      // Each part is written whole or not at all. The buffer is sent when a part does not fit.
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

  /// False if the buffer is full before the end of the reply.
  private mutating func fillBuffer(_ interface: borrowing Interface) -> Bool {
    // Part of the buffer is still to be sent.
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
        reply = interface.tunnel.firstCursor.map { .peer($0) } ?? .end(nil)
      case .peer(let position):
        guard writePeer(at: position, interface) else { return false }
      case .allowedIPs(let position, var cursor):
        // A client would take the rest of the list for all of it.
        if interface.tunnel.isVoid(cursor) {
          reply = .end(.changed)
          continue
        }
        let before = cursor
        guard let prefix = interface.tunnel.next(&cursor) else {
          reply = next(after: position, interface)
          continue
        }
        guard UAPIReply.writeAllowedIP(prefix, to: &writer) else {
          reply = .allowedIPs(position, before)
          return false
        }
        reply = .allowedIPs(position, cursor)
      case .end(let error):
        guard UAPIReply.writeEnd(error, to: &writer) else { return false }
        reply = .none
      }
    }
  }

  private func next(
    after position: Tunnel.PeerCursor, _ interface: borrowing Interface
  ) -> Reply {
    interface.tunnel.next(after: position).map { .peer($0) } ?? .end(nil)
  }

  private mutating func writePeer(
    at position: Tunnel.PeerCursor, _ interface: borrowing Interface
  ) -> Bool {
    guard let status = interface.tunnel.status(of: position.peer),
      let cursor = interface.tunnel.allowedIPs(of: position.peer)
    else {
      // Another connection has removed the peer in the meantime.
      reply = next(after: position, interface)
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
    reply = .allowedIPs(position, cursor)
    return true
  }

  /// The wall-clock time of an instant, computed back from the present. If the clock was set after
  /// the handshake, the handshake's age is still right.
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
