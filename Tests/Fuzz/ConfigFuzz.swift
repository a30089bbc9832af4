// Configuration files, and answers of name servers. If the first byte of the input has its highest
// bit set, an answer follows (see `NameFuzz`); otherwise a file follows, which arrives in pieces of
// that many bytes plus one. Build and run: Tests/Fuzz/run config.
//
// Every buffer is an allocation of exactly the bytes that its user may touch, so that the address
// sanitizer sees any access outside.

func fuzzConfig(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  guard let bytes, count > 2 else { return 0 }
  let input = Array(UnsafeBufferPointer(start: bytes + 1, count: count - 1))
  if bytes[0] & 0x80 != 0 {
    NameFuzz.run(input, family: bytes[0] & 1 == 0 ? .ipv4 : .ipv6, isWhole: bytes[0] & 2 == 0)
  } else {
    let pieces = ConfigFuzz.read(input, pieceByteCount: Int(bytes[0]) + 1)
    precondition(pieces == ConfigFuzz.read(input, pieceByteCount: .max), "a cut has changed it")
    ConfigFuzz.checkBlanks(input)
  }
  return 0
}

enum ConfigFuzz {
  /// The statements of a file, with names and secrets.
  struct Said: Equatable {
    var statements: [ConfigStatement] = []
    var texts: [[UInt8]] = []
    var end: ConfigError?
  }

  /// A parser with its own memory, and the results.
  private final class World {
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: ConfigParser.byteCount, alignment: 8)
    var parser: ConfigParser
    var said = Said()
    private var isInPeer: Bool?

    init() {
      memory.initializeMemory(as: UInt8.self, repeating: 0)
      parser = ConfigParser(memory: memory.baseAddress!)
    }

    deinit { memory.deallocate() }

    /// Collects all statements of the line.
    func take() {
      while let statement = parser.next() {
        if case .failure? = said.statements.last { fatalError("said on after a failure") }
        said.statements.append(statement)
        if parser.name.count > 0 { said.texts.append(Array(parser.name)) }
        check(statement)
      }
      precondition(memory.allSatisfy { $0 == 0 }, "something was kept")
    }

    func finish() -> Said {
      said.end = parser.finish()
      if case .failure? = said.statements.last { precondition(said.end == nil) }
      precondition(memory.allSatisfy { $0 == 0 })
      return said
    }

    /// Checks that statements are in their sections, and their values within range.
    private func check(_ statement: ConfigStatement) {
      switch statement {
      case .beginInterface: isInPeer = false
      case .beginPeer: isInPeer = true
      case .device(let setting):
        precondition(isInPeer == false && setting != .replacePeers)
        if setting == .privateKey { takeSecret() }
      case .address(let address):
        precondition(isInPeer == false)
        precondition(Int(address.prefix.length) <= address.address.family.bitCount)
      case .mtu(let mtu): precondition(isInPeer == false && mtu >= 68)
      case .ignored(let key): precondition(isInPeer == false && key.isIgnored)
      case .namedEndpoint(let port):
        precondition(isInPeer == true && port > 0 && parser.name.count <= 253)
        precondition(ConfigHostName.name(parser.name)?.count == parser.name.count)
      case .peer(let setting):
        precondition(isInPeer == true)
        checkPeer(setting)
      case .failure(let error):
        precondition(error.line <= parser.line && parser.key.count <= 24)
      }
    }

    private func takeSecret() {
      parser.withSecret {
        said.texts.append(Array(UnsafeRawBufferPointer(start: $0, count: 32)))
      }
    }

    /// Checks that parsed values read back the same after being written in canonical form.
    private func checkPeer(_ setting: PeerSetting) {
      let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 64, alignment: 1)
      defer { room.deallocate() }
      var writer = ByteWriter(room)
      switch setting {
      case .presharedKey: takeSecret()
      case .allowedIP(let prefix), .removeAllowedIP(let prefix):
        AddressText.append(prefix, to: &writer)
        precondition(ConfigAddress(writer.written)!.prefix == prefix)
      case .endpoint(let endpoint):
        precondition(endpoint.port > 0 && (parser.name.count == 0 || endpoint.scope == 0))
        AddressText.append(endpoint, to: &writer)
        precondition(AddressText.endpoint(writer.written)!.endpoint == endpoint)
      case .publicKey, .persistentKeepalive: break
      case .remove, .updateOnly, .replaceAllowedIPs, .protocolVersion1: fatalError("not of a file")
      }
    }
  }

  /// Parses the input, which arrives in pieces, through a reader with a small buffer.
  static func read(_ input: [UInt8], pieceByteCount: Int) -> Said {
    let world = World()
    let lines = UnsafeMutableRawBufferPointer.allocate(byteCount: 96, alignment: 1)
    defer { lines.deallocate() }
    var reader = LineReader(buffer: lines)
    var rest = input[...] + [0x0a]
    while !rest.isEmpty {
      let room = reader.makeRoom()
      let count = min(room.count, pieceByteCount, rest.count)
      room.copyBytes(from: rest.prefix(count))
      rest = rest.dropFirst(count)
      reader.didReceive(byteCount: count)
      while true {
        let line = reader.next()
        if case .incomplete = line { break }
        world.parser.begin(line)
        world.take()
      }
    }
    return world.finish()
  }

  /// Checks that a file means the same without comments and blanks.
  static func checkBlanks(_ input: [UInt8]) {
    let before = World()
    let after = World()
    for line in input.split(separator: 0x0a, omittingEmptySubsequences: false) {
      // A longer value is refused for its length, but without its blanks it may be accepted.
      if line.count > 300 { return }
      let text = Array(line.prefix { $0 != UInt8(ascii: "#") })
      let key = Array(text.prefix { $0 != UInt8(ascii: "=") })
      // Blanks separate addresses.
      let isAddress = key.withUnsafeBytes { $0.isWord("Address") } && key.count < text.count
      let squeezed =
        isAddress ? text : text.filter { !($0 == 0x20 || ($0 >= 0x09 && $0 <= 0x0d)) }
      line.withUnsafeBytes {
        before.parser.begin($0)
        before.take()
      }
      squeezed.withUnsafeBytes {
        after.parser.begin($0)
        after.take()
      }
      // Without blanks before it, a byte order mark on the first line is ignored.
      if before.parser.line == 1, squeezed.starts(with: [0xef, 0xbb, 0xbf]) { return }
    }
    precondition(before.finish() == after.finish(), "blanks have changed it")
  }
}

/// Answers of name servers: whole messages, or arbitrary bytes after a valid header and question.
enum NameFuzz {
  private static let name = Array("vpn.example.org".utf8)

  static func run(_ input: [UInt8], family: IPAddress.Family, isWhole: Bool) {
    var bytes = input
    if !isWhole {
      let labels: [UInt8] = [3] + name[0..<3] + [7] + name[4..<11] + [3] + name[12..<15] + [0]
      // The first byte is the number of answers.
      bytes = [0xbe, 0xef, 0x81, 0x80, 0, 1, 0, input[0], 0, 0, 0, 0] + labels
      bytes += [0, family == .ipv4 ? 1 : 28, 0, 1] + input.dropFirst()
    }
    let message = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
    message.copyBytes(from: bytes)
    let addresses = UnsafeMutableBufferPointer<IPAddress>.allocate(capacity: NameAnswer.capacity)
    defer {
      message.deallocate()
      addresses.deallocate()
    }
    addresses.initialize(repeating: IPAddress(ipv4: 0))
    name.withUnsafeBytes { name in
      let query = NameQuery(name: name, family: family, id: 0xbeef)
      var life = UInt32.max
      // An odd number of bytes is read as the beginning of a longer message.
      let answer = NameAnswer.read(
        UnsafeRawBufferPointer(message), to: query, into: addresses, &life,
        isCut: bytes.count % 2 == 1)
      precondition(isWhole || answer != .unrelated, "a sound question was not known")
      if case .addresses(let count) = answer {
        precondition(count <= NameAnswer.capacity)
        for address in addresses[..<count] {
          precondition(address.family == family)
          check(address, isIn: bytes)
        }
      }
    }
    compareNames(bytes, UnsafeRawBufferPointer(message))
  }

  private static func check(_ address: IPAddress, isIn bytes: [UInt8]) {
    let text = (0..<address.family.byteCount).map { index in
      UInt8(truncatingIfNeeded: (index < 8 ? address.high : address.low) >> (56 - 8 * (index & 7)))
    }
    for start in bytes.indices where bytes[start...].starts(with: text) { return }
    fatalError("an address out of nowhere")
  }

  /// Compares the names at all positions with those of a reader that copies them.
  private static func compareNames(_ bytes: [UInt8], _ message: UnsafeRawBufferPointer) {
    let reader = NameReader(message)
    let first = model(bytes, at: 0)
    for position in 0..<min(bytes.count + 2, 80) {
      let expected = model(bytes, at: position)
      precondition(reader.endOfName(at: position) == expected?.end)
      guard position > 0 else { continue }
      let isEqual = first != nil && first?.name == expected?.name
      precondition(reader.isEqual(0, position) == isEqual)
    }
  }

  /// The labels in lower case, and the offset after the name; nil if the name is invalid.
  private static func model(_ bytes: [UInt8], at start: Int) -> (name: [[UInt8]], end: Int)? {
    var name: [[UInt8]] = []
    var position = start
    var limit = start
    var end: Int?
    while position < bytes.count, name.reduce(0, { $0 + $1.count + 1 }) < 255 {
      let length = Int(bytes[position])
      if length >= 0xc0 {
        guard position + 1 < bytes.count else { return nil }
        let target = (length & 0x3f) << 8 | Int(bytes[position + 1])
        guard target < limit else { return nil }
        end = end ?? position + 2
        position = target
        limit = target
      } else if length == 0 {
        return (name, end ?? position + 1)
      } else {
        guard length < 64, position + length < bytes.count else { return nil }
        name.append(
          bytes[(position + 1)...(position + length)].map {
            $0 >= 0x41 && $0 <= 0x5a ? $0 + 0x20 : $0
          })
        position += 1 + length
      }
    }
    return nil
  }
}
