/// Parses configuration files of wg(8) and wg-quick(8): a state machine over lines, without I/O
/// (wg(8), "CONFIGURATION FILE FORMAT"; wg-quick(8), "CONFIGURATION"; what these leave open is done
/// as in the wg of 2021).
///
/// The caller passes each line to `begin`, then takes statements from `next` until it returns nil.
/// At the end of the file it calls `finish`. After a failure there are no more statements.
///
/// As in wg(8), blanks are ignored everywhere, and keys are case-insensitive. The differences:
///
/// - Refused here, accepted by wg(8): a key twice in one section if it can only have one value; a
///   file without a private key; a port above 65535, which wg wraps, and port 0 in an endpoint;
///   IPv4 addresses of fewer than four fields; a line longer than the reader's buffer.
/// - Accepted here, refused by wg(8): an empty `AllowedIPs =`; `+` and `-` before an allowed IP, as
///   in newer versions of wg; a byte order mark; a dot at the end of a host name.
package struct ConfigParser: ~Copyable {
  /// Where `next` continues.
  private enum Step {
    case nothing
    case line
    case allowedIPs
    case addresses
  }

  private enum Section {
    case none, interface, peer
  }

  private var section = Section.none
  private var step = Step.nothing
  /// The line, or the rest of its list.
  private var rest = UnsafeRawBufferPointer(start: nil, count: 0)
  private var isOverlong = false
  /// The keys seen so far under [Interface], and in this peer's section.
  private var interfaceKeys: UInt32 = 0
  private var peerKeys: UInt32 = 0
  private var hasPrivateKey = false
  private var peerLine: UInt32 = 0
  private var hasFailed = false

  private let secret: UnsafeMutableRawPointer
  /// Holds a value without the blanks in it.
  private let compacted: UnsafeMutableRawPointer
  private var holdsSecret = false

  /// The number of the current line, from 1.
  package private(set) var line: UInt32 = 0

  /// The host name of `namedEndpoint`, up to 253 bytes, or the zone of an `endpoint` if it was
  /// given by name; otherwise empty. Valid until the next call.
  package private(set) var name = UnsafeRawBufferPointer(start: nil, count: 0)

  /// The key of the failed line, as it was written; valid as long as the line. Empty if the line
  /// has no key or if it is longer than any key: it is then part of a broken line and may be a
  /// secret.
  package private(set) var key = UnsafeRawBufferPointer(start: nil, count: 0)

  /// More than the longest value: an endpoint's name, brackets, a colon and a port.
  private static var compactedByteCount: Int { 320 }
  /// Bytes of memory that `init` takes.
  package static var byteCount: Int { WireGuard.keyByteCount + compactedByteCount }

  /// - Parameter memory: `byteCount` bytes of locked memory that outlive the parser. They hold a
  ///   private or preshared key from its statement until the next call, which wipes them.
  package init(memory: UnsafeMutableRawPointer) {
    secret = memory
    compacted = memory + WireGuard.keyByteCount
  }

  /// The 32 bytes of the private or preshared key of the last statement.
  package func withSecret(_ body: (UnsafeRawPointer) -> Void) {
    body(UnsafeRawPointer(secret))
  }

  // MARK: Lines

  /// Begins a line from a `LineReader`; `incomplete` does nothing. The rest of the line before it
  /// is dropped.
  package mutating func begin(_ line: LineReader.Line) {
    switch line {
    case .line(let text): begin(text)
    case .overlong:
      begin(UnsafeRawBufferPointer(start: nil, count: 0))
      isOverlong = true
    case .incomplete: break
    }
  }

  /// Begins a line, without its newline. It must stay valid until `next` returns nil.
  package mutating func begin(_ text: UnsafeRawBufferPointer) {
    forgetStatement()
    line &+= 1
    key = UnsafeRawBufferPointer(start: nil, count: 0)
    rest = text
    if line == 1, text.count >= 3, text[0] == 0xef, text[1] == 0xbb, text[2] == 0xbf {
      rest = text.text(from: 3)
    }
    rest = rest.text(0, rest.firstPosition(of: UInt8(ascii: "#")) ?? rest.count).trimmed
    isOverlong = false
    step = hasFailed ? .nothing : .line
  }

  /// The next statement of the line, or nil.
  package mutating func next() -> ConfigStatement? {
    forgetStatement()
    switch step {
    case .nothing: return nil
    case .line:
      step = .nothing
      if isOverlong { return fail(.overlongLine) }
      return rest.count == 0 ? nil : statement()
    case .allowedIPs: return nextAllowedIP()
    case .addresses: return nextAddress()
    }
  }

  /// Ends the file, and wipes the parser's memory. Nil if the file is complete, or if it has failed
  /// before.
  package mutating func finish() -> ConfigError? {
    forgetStatement()
    guard !hasFailed else { return nil }
    if let error = incompletePeer() { return error }
    return hasPrivateKey ? nil : ConfigError(.noPrivateKey, line: 0)
  }

  /// Wipes the secret of the last statement.
  private mutating func forgetStatement() {
    name = UnsafeRawBufferPointer(start: nil, count: 0)
    guard holdsSecret else { return }
    Secret.wipe(secret, byteCount: ConfigParser.byteCount)
    holdsSecret = false
  }

  private mutating func fail(_ reason: ConfigError.Reason) -> ConfigStatement {
    fail(ConfigError(reason, line: line))
  }

  private mutating func fail(_ error: ConfigError) -> ConfigStatement {
    hasFailed = true
    step = .nothing
    return .failure(error)
  }

  private func incompletePeer() -> ConfigError? {
    guard section == .peer, peerKeys & ConfigKey.publicKey.bit == 0 else { return nil }
    return ConfigError(.noPublicKey, line: peerLine)
  }

  private mutating func statement() -> ConfigStatement? {
    if rest[0] == UInt8(ascii: "[") { return beginSection() }
    guard let separator = rest.firstPosition(of: UInt8(ascii: "=")) else {
      return fail(.noAssignment)
    }
    let word = rest.text(0, separator).trimmed
    if word.count <= ConfigKey.longestByteCount { key = word }
    guard let key = ConfigKey(word) else { return fail(.unknownKey) }
    switch section {
    case .none: return fail(.noSection)
    case .interface: if key.isOfPeer { return fail(.belongsToPeer) }
    case .peer: if !key.isOfPeer { return fail(.belongsToInterface) }
    }
    let seen = key.isOfPeer ? peerKeys : interfaceKeys
    guard seen & key.bit == 0 || key.isRepeatable else { return fail(.repeated) }
    if key.isOfPeer { peerKeys |= key.bit } else { interfaceKeys |= key.bit }
    return setting(key, rest.text(from: separator + 1).trimmed)
  }

  private mutating func beginSection() -> ConfigStatement {
    let isPeer = rest.isWord("[Peer]")
    guard isPeer || rest.isWord("[Interface]") else { return fail(.unknownSection) }
    if let error = incompletePeer() { return fail(error) }
    guard isPeer else {
      section = .interface
      return .beginInterface
    }
    section = .peer
    peerKeys = 0
    peerLine = line
    return .beginPeer
  }

  // MARK: Values

  private mutating func setting(
    _ key: ConfigKey, _ value: UnsafeRawBufferPointer
  ) -> ConfigStatement? {
    switch key {
    case .allowedIPs:
      rest = value
      step = value.count == 0 ? .nothing : .allowedIPs
      return next()
    case .address:
      rest = value
      step = .addresses
      return next()
    case .dns, .table, .preUp, .postUp, .preDown, .postDown, .saveConfig: return .ignored(key)
    default: break
    }
    let value = compact(value)
    switch key {
    case .privateKey: return privateKey(value)
    case .listenPort:
      guard let port = value.number(maximum: 65535) else { return fail(.badListenPort) }
      return .device(.listenPort(UInt16(port)))
    case .fwMark:
      guard let mark = fwMark(value) else { return fail(.badFwMark) }
      return .device(.fwmark(mark))
    case .mtu:
      guard let mtu = value.number(maximum: 65535), mtu >= UInt32(Policy.minimumMTU) else {
        return fail(.badMTU)
      }
      return .mtu(UInt16(mtu))
    case .publicKey:
      guard decodeKey(value) else { return fail(.badPublicKey) }
      return .peer(.publicKey(Key(at: secret)))
    case .presharedKey: return decodeKey(value) ? .peer(.presharedKey) : fail(.badPresharedKey)
    case .persistentKeepalive:
      if value.isWord("off") { return .peer(.persistentKeepalive(0)) }
      guard let seconds = value.number(maximum: 65535) else { return fail(.badKeepalive) }
      return .peer(.persistentKeepalive(UInt16(seconds)))
    default: return endpoint(value)
    }
  }

  /// The value without its blanks. A value that does not fit into the buffer cannot be valid, and
  /// is returned unchanged.
  private mutating func compact(_ value: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    guard value.hasBlanks else { return value }
    var count = 0
    for index in 0..<value.count where !value[index].isBlank {
      guard count < ConfigParser.compactedByteCount else { return value }
      // It may be a key.
      holdsSecret = true
      compacted.storeByte(value[index], count)
      count += 1
    }
    return UnsafeRawBufferPointer(start: compacted, count: count)
  }

  /// Decodes a key, secret or public, into the secret's buffer, which the next call wipes.
  private mutating func decodeKey(_ value: UnsafeRawBufferPointer) -> Bool {
    holdsSecret = true
    return Base64.decodeKey(value, into: secret)
  }

  /// All zero means none, as in wg(8).
  private mutating func privateKey(_ value: UnsafeRawBufferPointer) -> ConfigStatement {
    guard decodeKey(value) else { return fail(.badPrivateKey) }
    hasPrivateKey = !Secret.isZero(secret, byteCount: WireGuard.keyByteCount)
    return .device(.privateKey)
  }

  private func fwMark(_ value: UnsafeRawBufferPointer) -> UInt32? {
    if value.isWord("off") { return 0 }
    return value.mark
  }

  /// Allowed IPs are separated by commas, and none may be empty.
  private mutating func nextAllowedIP() -> ConfigStatement {
    let end = rest.firstPosition(of: UInt8(ascii: ",")) ?? rest.count
    var element = compact(rest.text(0, end))
    step = end < rest.count ? .allowedIPs : .nothing
    if end < rest.count { rest = rest.text(from: end + 1) }
    let sign = element.count > 0 ? element[0] : 0
    if sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") { element = element.text(from: 1) }
    guard let address = ConfigAddress(element) else { return fail(.badAllowedIP) }
    let isRemoved = sign == UInt8(ascii: "-")
    return .peer(isRemoved ? .removeAllowedIP(address.prefix) : .allowedIP(address.prefix))
  }

  /// Addresses are separated by commas, blanks or both, as in wg-quick(8).
  private mutating func nextAddress() -> ConfigStatement? {
    var start = 0
    while start < rest.count, ConfigParser.separatesAddresses(rest[start]) { start += 1 }
    var end = start
    while end < rest.count, !ConfigParser.separatesAddresses(rest[end]) { end += 1 }
    guard end > start else {
      step = .nothing
      return nil
    }
    let element = rest.text(start, end)
    rest = rest.text(from: end)
    guard let address = ConfigAddress(element) else { return fail(.badAddress) }
    return .address(address)
  }

  private static func separatesAddresses(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: ",") || byte.isBlank
  }

  /// Any host may be in brackets, and an IPv6 address need not be: the port follows the last colon,
  /// or the bracket.
  private mutating func endpoint(_ value: UnsafeRawBufferPointer) -> ConfigStatement {
    var host = value
    var port = value
    if value.count > 0, value[0] == UInt8(ascii: "[") {
      guard let close = value.firstPosition(of: UInt8(ascii: "]")) else { return fail(.badHost) }
      guard close + 1 < value.count, value[close + 1] == UInt8(ascii: ":") else {
        return fail(.badPort)
      }
      host = value.text(1, close)
      port = value.text(from: close + 2)
    } else {
      guard let colon = value.lastPosition(of: UInt8(ascii: ":")) else { return fail(.badPort) }
      host = value.text(0, colon)
      port = value.text(from: colon + 1)
    }
    guard let number = port.number(maximum: 65535), number > 0 else { return fail(.badPort) }
    return endpoint(host, port: UInt16(number))
  }

  /// An IPv4-mapped address becomes IPv4, which remembers how it was given: the IPv6 socket is
  /// IPv6-only and could not send to it.
  private mutating func endpoint(
    _ host: UnsafeRawBufferPointer, port: UInt16
  ) -> ConfigStatement {
    guard let zoned = AddressText.zonedAddress(host) else {
      guard let host = ConfigHostName.name(host) else { return fail(.badHost) }
      name = host
      return .namedEndpoint(port: port)
    }
    let unmapped = zoned.address.unmapped
    guard unmapped.family == zoned.address.family else {
      var endpoint = Endpoint(address: unmapped, port: port)
      endpoint.isMapped = true
      return .peer(.endpoint(endpoint))
    }
    name = zoned.zoneName
    return .peer(.endpoint(Endpoint(address: zoned.address, port: port, scope: zoned.scope)))
  }
}
