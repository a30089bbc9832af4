/// Parses UAPI requests: a state machine over lines, without I/O (wireguard.com/xplatform,
/// "Configuration Protocol"; what that leaves open is done as in wireguard-go).
///
/// One deviation: wireguard-go replies at the first wrong line and treats the following lines as
/// new operations, which ends the connection. This parser skips the rest of the request, and the
/// reply is sent after the blank line that ends it, so that the connection stays usable.
public struct UAPIParser: ~Copyable {
  private enum State {
    /// Between requests.
    case idle
    case get
    /// In a `set`, before the first public key.
    case device
    /// In a `set`, in a peer's section.
    case peer
    /// In a request that has failed.
    case failed
  }

  private var state = State.idle
  private var failure = UAPIError.unknown
  private let secret: UnsafeMutableRawPointer
  private var holdsSecret = false

  /// The zone of the endpoint just parsed, if it was given by name; otherwise empty. Points into
  /// the parsed line, and is valid as long as that line.
  public private(set) var zoneName = UnsafeRawBufferPointer(start: nil, count: 0)

  /// - Parameter secret: 32 bytes of locked memory that outlive the parser. They hold a private or
  ///   preshared key from its line until the next call, which wipes them.
  public init(secret: UnsafeMutableRawPointer) {
    self.secret = secret
  }

  /// Parses a line from a `LineReader`; `incomplete` is `skipped`.
  public mutating func parse(_ line: LineReader.Line) -> UAPILine {
    switch line {
    case .line(let text): return parse(text)
    case .incomplete: return .skipped
    case .overlong:
      forgetLine()
      if state == .failed { return .skipped }
      // No operation is this long. Within a request, the value is out of range.
      return refuse(state == .idle ? .wrongOrder : .invalid)
    }
  }

  /// Parses one line without its newline. A carriage return at its end is dropped.
  public mutating func parse(_ line: UnsafeRawBufferPointer) -> UAPILine {
    forgetLine()
    var line = line
    if line.count > 0, line[line.count - 1] == UInt8(ascii: "\r") {
      line = line.text(0, line.count - 1)
    }
    if line.count == 0 { return endRequest() }
    switch state {
    case .idle: return beginRequest(line)
    case .get: return refuse(.invalid)
    case .device, .peer: return setting(line)
    case .failed: return .skipped
    }
  }

  /// Reports that the caller could not apply the line just parsed. The rest of the request is
  /// skipped, and the reply is `error`, or the first error if there are several.
  public mutating func fail(_ error: UAPIError) {
    switch state {
    case .idle, .failed: break
    case .get, .device, .peer: _ = refuse(error)
    }
  }

  /// Wipes the secret and forgets an unfinished request, for the next connection.
  public mutating func reset() {
    Secret.wipe(secret, byteCount: WireGuard.keyByteCount)
    holdsSecret = false
    zoneName = UnsafeRawBufferPointer(start: nil, count: 0)
    state = .idle
  }

  /// Between two requests.
  public var isIdle: Bool { state == .idle }

  /// The 32 bytes of the private or preshared key in the line just parsed.
  public func withSecret(_ body: (UnsafeRawPointer) -> Void) {
    body(UnsafeRawPointer(secret))
  }

  private mutating func forgetLine() {
    zoneName = UnsafeRawBufferPointer(start: nil, count: 0)
    guard holdsSecret else { return }
    Secret.wipe(secret, byteCount: WireGuard.keyByteCount)
    holdsSecret = false
  }

  private mutating func refuse(_ error: UAPIError) -> UAPILine {
    state = .failed
    failure = error
    return .failure(error)
  }

  private mutating func beginRequest(_ line: UnsafeRawBufferPointer) -> UAPILine {
    if line.isText("get=1") {
      state = .get
      return .beginGet
    }
    if line.isText("set=1") {
      state = .device
      return .beginSet
    }
    return refuse(.wrongOrder)
  }

  private mutating func endRequest() -> UAPILine {
    let ended = state
    state = .idle
    switch ended {
    case .idle: return .skipped
    case .get: return .endGet
    case .device, .peer: return .endSet
    case .failed: return .endFailed(failure)
    }
  }

  private mutating func setting(_ line: UnsafeRawBufferPointer) -> UAPILine {
    guard let separator = line.firstPosition(of: UInt8(ascii: "=")) else {
      return refuse(.wrongOrder)
    }
    guard let key = UAPIKey(line.text(0, separator)) else { return refuse(.invalid) }
    let value = line.text(from: separator + 1)
    if key == .publicKey { state = .peer }
    guard key.isOfDevice == (state == .device) else { return refuse(.wrongOrder) }
    if key.isOfDevice {
      guard let setting = deviceSetting(key, value) else { return refuse(.invalid) }
      return .device(setting)
    }
    guard let setting = peerSetting(key, value) else { return refuse(.invalid) }
    return .peer(setting)
  }

  /// Nil if the value is wrong.
  private mutating func deviceSetting(
    _ key: UAPIKey, _ value: UnsafeRawBufferPointer
  ) -> DeviceSetting? {
    switch key {
    case .privateKey: return secretKey(value) ? .privateKey : nil
    case .listenPort: return value.number(maximum: 65535).map { .listenPort(UInt16($0)) }
    case .fwmark: return fwmark(value).map { .fwmark($0) }
    case .replacePeers: return value.isText("true") ? .replacePeers : nil
    default: return nil
    }
  }

  /// Nil if the value is wrong.
  private mutating func peerSetting(
    _ key: UAPIKey, _ value: UnsafeRawBufferPointer
  ) -> PeerSetting? {
    switch key {
    case .publicKey: return publicKey(value).map { .publicKey($0) }
    case .remove: return value.isText("true") ? .remove : nil
    case .updateOnly: return value.isText("true") ? .updateOnly : nil
    case .presharedKey: return secretKey(value) ? .presharedKey : nil
    case .endpoint: return endpoint(value).map { .endpoint($0) }
    case .persistentKeepalive:
      return value.number(maximum: 65535).map { .persistentKeepalive(UInt16($0)) }
    case .replaceAllowedIPs: return value.isText("true") ? .replaceAllowedIPs : nil
    case .allowedIP:
      guard value.count > 0, value[0] == UInt8(ascii: "-") else {
        return AddressText.prefix(value).map { .allowedIP($0) }
      }
      return AddressText.prefix(value.text(from: 1)).map { .removeAllowedIP($0) }
    case .protocolVersion: return value.isText("1") ? .protocolVersion1 : nil
    default: return nil
    }
  }

  private mutating func secretKey(_ value: UnsafeRawBufferPointer) -> Bool {
    holdsSecret = Hex.decodeKey(value, into: secret)
    return holdsSecret
  }

  /// Uses the secret buffer for the 32 bytes; it is wiped with the next line, as for a secret.
  private mutating func publicKey(_ value: UnsafeRawBufferPointer) -> Key? {
    secretKey(value) ? Key(at: secret) : nil
  }

  /// Decimal, or hexadecimal after `0x` as in wg(8); empty is 0.
  private func fwmark(_ value: UnsafeRawBufferPointer) -> UInt32? {
    if value.count == 0 { return 0 }
    return value.mark
  }

  /// An IPv4-mapped address becomes IPv4, which remembers how it was given: the IPv6 socket is
  /// IPv6-only and could not send to it.
  private mutating func endpoint(_ value: UnsafeRawBufferPointer) -> Endpoint? {
    guard let parsed = AddressText.endpoint(value) else { return nil }
    var endpoint = parsed.endpoint
    let unmapped = endpoint.address.unmapped
    if unmapped.family == endpoint.address.family {
      zoneName = parsed.zoneName
    } else {
      endpoint = Endpoint(address: unmapped, port: endpoint.port)
      endpoint.isMapped = true
    }
    return endpoint
  }
}

/// The keys of a `set` request (wireguard.com/xplatform, "Configuration Protocol").
enum UAPIKey {
  // The device's section.
  case privateKey, listenPort, fwmark, replacePeers
  // Opens a peer's section.
  case publicKey
  // A peer's section.
  case remove, updateOnly, presharedKey, endpoint, persistentKeepalive, replaceAllowedIPs
  case allowedIP, protocolVersion

  /// Nil if the key is unknown.
  init?(_ text: UnsafeRawBufferPointer) {
    // Most frequent first: a large configuration is mostly allowed IPs.
    if text.isText("allowed_ip") {
      self = .allowedIP
    } else if text.isText("public_key") {
      self = .publicKey
    } else if text.isText("endpoint") {
      self = .endpoint
    } else if text.isText("preshared_key") {
      self = .presharedKey
    } else if text.isText("persistent_keepalive_interval") {
      self = .persistentKeepalive
    } else if text.isText("replace_allowed_ips") {
      self = .replaceAllowedIPs
    } else if text.isText("remove") {
      self = .remove
    } else if text.isText("update_only") {
      self = .updateOnly
    } else if text.isText("protocol_version") {
      self = .protocolVersion
    } else if text.isText("private_key") {
      self = .privateKey
    } else if text.isText("listen_port") {
      self = .listenPort
    } else if text.isText("fwmark") {
      self = .fwmark
    } else if text.isText("replace_peers") {
      self = .replacePeers
    } else {
      return nil
    }
  }

  /// True for the keys before the first `public_key`.
  var isOfDevice: Bool {
    switch self {
    case .privateKey, .listenPort, .fwmark, .replacePeers: true
    default: false
    }
  }
}
