/// The code that reads and writes text.
extension SelftestRun {
  /// Valid and invalid keys in base64 and hexadecimal, numbers around powers of two, and addresses.
  mutating func text() {
    let key = bytes(32)
    let text = UnsafeMutableRawBufferPointer(start: bytes(64), count: 64)
    for _ in 0..<128 {
      random.fill(key, byteCount: 32)
      var writer = ByteWriter(text)
      Base64.appendKey(key, to: &writer)
      digest.add(text.baseAddress!, byteCount: writer.count)
      // Replace one character at random; it seldom stays the same.
      text[number(below: 64) % 44] = UInt8(number(below: 128))
      digest.add(Base64.decodeKey(writer.written, into: key))
      digest.add(key, byteCount: 32)
      for index in 0..<64 { text[index] = UInt8(ascii: "0") + UInt8(number(below: 8)) }
      text[number(below: 64)] = UInt8(number(below: 128))
      digest.add(Hex.decodeKey(UnsafeRawBufferPointer(text), into: key))
      digest.add(key, byteCount: 32)
    }
    for index in 0..<SelftestRun.edgeCount {
      let edge = SelftestRun.edge(index)
      var writer = ByteWriter(text)
      writer.append(decimal: edge)
      digest.add(text.baseAddress!, byteCount: writer.count)
      digest.add(UInt64(writer.written.number(maximum: .max) ?? 1))
      digest.add(UInt64(writer.written.number(maximum: 65_535) ?? 1))
      digest.add(UInt64(writer.written.number(radix: 16, maximum: .max) ?? 1))
      address(IPAddress(ipv4: UInt32(truncatingIfNeeded: edge)), text)
      // Zero groups in different places, for the double colon.
      let mask = random.uint64() & random.uint64()
      address(IPAddress(ipv6High: edge & 0xffff_0000_ffff, low: edge & mask), text)
    }
  }

  /// Writes an address and reads it again.
  private mutating func address(_ address: IPAddress, _ text: UnsafeMutableRawBufferPointer) {
    var writer = ByteWriter(text)
    AddressText.append(address, to: &writer)
    digest.add(text.baseAddress!, byteCount: writer.count)
    digest.add(AddressText.address(writer.written) == address)
  }

  /// A file that has every key, and files with values just out of range.
  mutating func configuration() {
    parse(SelftestRun.everything)
    parse("[Interface]\nListenPort = 65536")
    parse("[Interface]\nFwMark = 4294967296")
    parse("[Interface]\nMTU = 67")
    parse("[Interface]\nAddress = ::/129")
    parse("[Peer]\nEndpoint = a:0")
    parse("[Peer]\nAllowedIPs = 256.0.0.0/8")
    parse("[Peer]\nPersistentKeepalive = -1")
  }

  private static var everything: StaticString {
    """
    [Interface]
    PrivateKey = AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
    ListenPort = 65535
    FwMark = 0xffffffff # all
    Address = 10.0.0.2/24, fd00::2
    mtu=68
    DNS = 10.0.0.1
    [Peer]
    PublicKey = AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
    PresharedKey = AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
    AllowedIPs = 10.0.0.9/8, ::/0
    AllowedIPs = -1.2.3.4
    Endpoint = [2001:db8::1]:51820
    PersistentKeepalive = 65535
    [Peer]
    PublicKey = AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
    Endpoint = vpn.example.org:1
    """
  }

  private mutating func parse(_ text: StaticString) {
    var parser = ConfigParser(memory: bytes(ConfigParser.byteCount))
    var rest = text.bytes
    while true {
      let end = rest.firstPosition(of: UInt8(ascii: "\n")) ?? rest.count
      parser.begin(rest.text(0, end))
      while let statement = parser.next() { add(statement, parser) }
      if end == rest.count { break }
      rest = rest.text(from: end + 1)
    }
    add(parser.finish())
  }

  /// Adds a number for the kind of statement, and its values.
  private mutating func add(_ statement: ConfigStatement, _ parser: borrowing ConfigParser) {
    switch statement {
    case .beginInterface: digest.add(1)
    case .beginPeer: digest.add(2)
    case .address(let value): add(3, value.address, value.length)
    case .mtu(let bytes): add(4, UInt64(bytes))
    case .ignored(let key): add(5, UInt64(key.rawValue))
    case .device(.privateKey), .peer(.presharedKey):
      parser.withSecret { digest.add($0, byteCount: WireGuard.keyByteCount) }
    case .device(.listenPort(let port)): add(6, UInt64(port))
    case .device(.fwmark(let mark)): add(7, UInt64(mark))
    case .peer(.publicKey(let key)):
      withUnsafeBytes(of: key) { digest.add($0.baseAddress!, byteCount: $0.count) }
    case .peer(.endpoint(let endpoint)):
      add(8, endpoint.address, 0)
      digest.add(UInt64(endpoint.port))
    case .peer(.persistentKeepalive(let seconds)): add(9, UInt64(seconds))
    case .peer(.allowedIP(let prefix)): add(10, prefix.address, prefix.length)
    case .peer(.removeAllowedIP(let prefix)): add(11, prefix.address, prefix.length)
    case .namedEndpoint(let port):
      digest.add(parser.name.baseAddress!, byteCount: parser.name.count)
      add(12, UInt64(port))
    case .failure(let error): add(error)
    case .device(.replacePeers), .peer: digest.add(.max)
    }
  }

  private mutating func add(_ kind: UInt64, _ value: UInt64) {
    digest.add(kind)
    digest.add(value)
  }

  private mutating func add(_ kind: UInt64, _ address: IPAddress, _ length: UInt8) {
    add(kind, address.high)
    add(address.low, UInt64(length))
  }

  private mutating func add(_ error: ConfigError?) {
    guard let error else { return }
    add(UInt64(error.reason.rawValue), UInt64(error.line))
  }
}
