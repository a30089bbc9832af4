#if !ONE_MODULE
  @testable import Culvert
#endif

/// The configuration door: valid, nearly valid and invalid lines, in arbitrary pieces, applied to a
/// tunnel as the shell does. Nothing is allocated after `init`.
final class UAPIDoor {
  private let end = DoorEnd(seed: 3)
  private let memory = UnsafeMutableRawBufferPointer.allocate(
    byteCount: Layout.byteCount, alignment: 16)
  private var reader: LineReader
  private var parser: UAPIParser
  private var now = Instant(nanoseconds: nanosecondsPerSecond)
  private var place = UAPIText.Place.idle
  private var section: Section?
  private var isOpen = false
  private var hasFailed = false

  private(set) var lineCount = 0
  private(set) var replyCount = 0
  private(set) var failedCount = 0
  private(set) var failure: StaticString?

  private struct Section {
    let publicKey: Key
    var isRemoved = false
    var isUpdateOnly = false
    var hasPresharedKey = false
    var endpoint: Endpoint?
    var persistentKeepalive: UInt16?
  }

  private enum Layout {
    static let secret = 0
    static let presharedKey = 32
    static let lines = 64
    static let lineByteCount = 160
    static let replies = lines + lineByteCount
    static let text = replies + UAPIReply.longestPartByteCount
    static let textByteCount = 512
    static let byteCount = text + textByteCount
  }

  init() {
    memory.initializeMemory(as: UInt8.self, repeating: 0)
    let base = memory.baseAddress!
    reader = LineReader(
      buffer: UnsafeMutableRawBufferPointer(
        start: base + Layout.lines, count: Layout.lineByteCount))
    parser = UAPIParser(secret: base + Layout.secret)
    end.tunnel.setUp(true, at: now)
  }

  deinit {
    memory.deallocate()
  }

  func expect(_ isTrue: Bool, _ promise: StaticString) {
    if !isTrue, failure == nil { failure = promise }
  }

  /// One connection, up to 500 lines long.
  func run(seed: UInt64) {
    var choices = Choices(seed: seed)
    for _ in 0..<500 where !step(&choices) { return }
    close()
    checkEmptied()
  }

  /// The connection ends without warning.
  func close() {
    drop()
    reader.reset()
    parser.reset()
    place = .idle
    isOpen = false
    hasFailed = false
  }

  /// One line, in one or several pieces. False if a promise is broken.
  func step(_ choices: inout Choices) -> Bool {
    let text = memory.baseAddress! + Layout.text
    var writer = ByteWriter(
      UnsafeMutableRawBufferPointer(start: text, count: Layout.textByteCount))
    UAPIText.writeLine(to: &writer, at: &place, &choices)
    let byteCount = UAPIText.mutate(text, writer.count, limit: Layout.textByteCount, &choices)
    let piece = choices.below(4) == 0 ? 1 + choices.below(40) : byteCount
    var offset = 0
    while offset < byteCount {
      let room = reader.makeRoom()
      expect(room.count > 0, "no room for a stream that goes on")
      guard failure == nil else { return false }
      let count = min(room.count, piece, byteCount - offset)
      room.baseAddress!.copyMemory(from: text + offset, byteCount: count)
      reader.didReceive(byteCount: count)
      offset += count
      takeLines()
    }
    now = now.advanced(by: nanosecondsPerMillisecond)
    return failure == nil
  }

  /// After all peers are removed, all memory is free again.
  func checkEmptied() {
    drop()
    end.tunnel.removeAllPeers()
    expect(!end.tunnel.allowedIPs.isStaging, "allowed IPs stay staged")
    expect(end.tunnel.allowedIPs.count == 0, "allowed IPs outlive their peers")
    expect(end.tunnel.indices.count == 0, "indices outlive their peers")
    expect(
      end.tunnel.stagingPool.freeCount == DoorEnd.limits.stagingSlots, "a staging slot is lost")
  }

  private func takeLines() {
    while true {
      let line = reader.next()
      if case .incomplete = line { return }
      lineCount += 1
      take(parser.parse(line))
    }
  }

  // MARK: Requests

  private func take(_ line: UAPILine) {
    switch line {
    case .beginGet, .beginSet:
      expect(!isOpen && !hasFailed, "a request begins inside another")
      isOpen = true
    case .device(let setting):
      expect(isOpen && !hasFailed, "a setting outside a request")
      set(setting)
    case .peer(let setting):
      expect(isOpen && !hasFailed, "a setting outside a request")
      set(setting)
    case .failure:
      expect(!hasFailed, "a request fails twice")
      hasFailed = true
      drop()
    case .skipped: expect(hasFailed || !isOpen, "a line is skipped in a sound request")
    case .endGet:
      finish(isSound: true)
      writeState()
    case .endSet:
      if !endSection() { failedCount += 1 }
      finish(isSound: true)
    case .endFailed:
      failedCount += 1
      finish(isSound: false)
    }
  }

  private func finish(isSound: Bool) {
    expect(isSound ? isOpen && !hasFailed : hasFailed, "a request ends that did not begin")
    expect(!end.tunnel.allowedIPs.isStaging, "allowed IPs stay staged")
    isOpen = false
    hasFailed = false
    place = .idle
    replyCount += 1
  }

  /// The caller could not apply a line.
  private func fail(_ error: UAPIError) {
    parser.fail(error)
    hasFailed = true
    drop()
  }

  private func set(_ setting: DeviceSetting) {
    switch setting {
    case .privateKey: parser.withSecret { end.tunnel.setPrivateKey($0, at: now) }
    case .listenPort(let port): if port == 1 { fail(.addressInUse) }
    case .fwmark: break
    case .replacePeers: end.tunnel.removeAllPeers()
    }
  }

  private func set(_ setting: PeerSetting) {
    switch setting {
    case .publicKey(let key):
      if endSection() { section = Section(publicKey: key) } else { fail(.full) }
    case .protocolVersion1: break
    case .remove: section?.isRemoved = true
    case .updateOnly: section?.isUpdateOnly = true
    case .presharedKey:
      let target = memory.baseAddress! + Layout.presharedKey
      parser.withSecret { target.copyMemory(from: $0, byteCount: WireGuard.keyByteCount) }
      section?.hasPresharedKey = true
    case .endpoint(let endpoint): section?.endpoint = endpoint
    case .persistentKeepalive(let seconds): section?.persistentKeepalive = seconds
    case .replaceAllowedIPs: end.tunnel.stageReplaceAllowedIPs()
    case .allowedIP(let prefix): stage(prefix, add: true)
    case .removeAllowedIP(let prefix): stage(prefix, add: false)
    }
  }

  private func stage(_ prefix: IPPrefix, add: Bool) {
    do throws(ConfigurationError) {
      try end.tunnel.stageAllowedIP(prefix, add: add)
    } catch {
      fail(.full)
    }
  }

  private func drop() {
    end.tunnel.abandonAllowedIPs()
    section = nil
  }

  /// False if the section that ends here could not be applied.
  private func endSection() -> Bool {
    guard let section else { return true }
    defer { drop() }
    let existing = end.tunnel.findPeer(section.publicKey)
    if section.isRemoved {
      if let existing { end.tunnel.removePeer(existing) }
      return true
    }
    if section.publicKey == end.tunnel.publicKey || (section.isUpdateOnly && existing == nil) {
      return true
    }
    guard let id = try? end.tunnel.addPeer(section.publicKey) else { return false }
    if section.hasPresharedKey {
      end.tunnel.setPresharedKey(memory.baseAddress! + Layout.presharedKey, of: id)
    }
    if let endpoint = section.endpoint { end.tunnel.setEndpoint(endpoint, of: id) }
    end.tunnel.commitAllowedIPs(to: id)
    if let seconds = section.persistentKeepalive {
      end.tunnel.setPersistentKeepalive(seconds, of: id, at: now)
    }
    end.tunnel.peerIsConfigured(id, at: now)
    return true
  }

  // MARK: Replies

  /// Writes the whole state, part by part, through a buffer that holds one part.
  private func writeState() {
    var writer = ByteWriter(
      UnsafeMutableRawBufferPointer(
        start: memory.baseAddress! + Layout.replies, count: UAPIReply.longestPartByteCount))
    expect(
      UAPIReply.writeDevice(
        privateKey: end.tunnel.privateKey, listenPort: .max, fwmark: .max, to: &writer),
      "the device's part does not fit")
    var peers = 0
    var prefixes = 0
    var next = end.tunnel.firstPeer
    while let id = next {
      peers += 1
      writer.rewind()
      expect(writePeer(id, to: &writer), "a peer's part does not fit")
      guard var cursor = end.tunnel.allowedIPs(of: id) else { break }
      while let prefix = end.tunnel.next(&cursor) {
        prefixes += 1
        writer.rewind()
        expect(UAPIReply.writeAllowedIP(prefix, to: &writer), "an allowed IP does not fit")
      }
      next = end.tunnel.peer(after: id)
    }
    expect(peers == end.tunnel.peerCount, "a peer is missing in the state")
    expect(prefixes == end.tunnel.allowedIPs.count, "an allowed IP is missing in the state")
    writer.rewind()
  }

  private func writePeer(_ id: PeerID, to writer: inout ByteWriter) -> Bool {
    guard let status = end.tunnel.status(of: id) else { return false }
    let state = UAPIPeerState(
      publicKey: status.publicKey, endpoint: status.endpoint, lastHandshakeSeconds: .max,
      lastHandshakeNanoseconds: 999_999_999, sentByteCount: .max, receivedByteCount: .max,
      persistentKeepalive: status.persistentKeepalive)
    return UAPIReply.writePeer(state, presharedKey: status.presharedKey, to: &writer)
  }
}
