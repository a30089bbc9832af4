import Testing

@testable import Culvert

/// The results of wg(8), version 1.0.20210914, for the same lines (`wg setconf`, run by hand).
/// Differences are intended; `ConfigParser` explains them.
@Suite struct ConfigComparisonTests {
  /// Under [Interface]: accepted by wg(8) and by us.
  static let takenInInterface = [
    "ListenPort = 51820", "listenport=51820", "LISTENPORT =\t51820", "Listen Port = 51 820",
    "ListenPort = 0", "ListenPort = 65535", "ListenPort = 070", "ListenPort = 1 # two",
    "FwMark = 0x1f", "FwMark = 0xFFFFFFFF", "FwMark = 4294967295", "FwMark = off",
    "FwMark = OFF", "FwMark = 0", "FwMark = 08", "PrivateKey = @1",
    "PrivateKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "[Interface]", "[interface]",
    "[ Interface ]", "[INTERFACE] # x", "#", "  # x", "#ListenPort=x", "ListenPort=5#5",
    "\tListenPort\u{b}=\u{c}5\r",
  ]

  /// Under [Interface]: accepted by wg(8), refused by us.
  static let stricterInInterface = [
    "ListenPort = 65536", "ListenPort = +1", "PrivateKey = @1\nPrivateKey = @2",
  ]

  /// Under [Interface]: refused by wg(8) and by us.
  static let refusedInInterface = [
    "ListenPort = -1", "ListenPort =", "ListenPort", "ListenPort = 0x10", "ListenPort = ssh",
    "ListenPort = 1 ; two", "ListenPort : 1", "FwMark = 0x100000000", "FwMark = 4294967296",
    "FwMark = 0x", "FwMark =", "FwMark = x", "FwMark = 1f", "PrivateKey = @3", "PrivateKey =",
    "PrivateKey = @9", "PrivateKey = @1=", "Unknown = 1", "= 1", "PublicKey = @1", "[Interface",
    "[Interface]]", "[Foo]", "[]", "ListenPort#=5",
  ]

  /// Under [Interface]: refused by wg(8), accepted by us.
  static let looserInInterface = [
    "FwMark = 0X1f", "Address = 10.0.0.1/24", "MTU = 1420",
  ]

  /// Under [Peer] and a public key: accepted by wg(8) and by us.
  static let takenInPeer = [
    "", "Endpoint = 1.2.3.4:5", "Endpoint = 1.2.3.4 : 5", "Endpoint = [::1]:5",
    "Endpoint = ::1:5", "Endpoint = [1.2.3.4]:5", "Endpoint = [localhost]:5",
    "Endpoint = localhost:5", "Endpoint = LocalHost:5", "Endpoint = 1.2.3.4:65535",
    "Endpoint = 1.2.3.4:05", "Endpoint = [fe80::1%lo]:5", "Endpoint = [fe80::1%1]:5",
    "Endpoint = fe80::1%lo:5", "Endpoint = [::ffff:1.2.3.4]:5", "AllowedIPs = 10.0.0.0/8",
    "AllowedIPs = 10.1.2.3/8", "AllowedIPs = 10.0.0.1", "AllowedIPs = 10.0.0.0/8,10.0.0.0/8",
    "AllowedIPs = 10.0.0.0/8 , ::/0", "AllowedIPs = 10.0.0.0/08", "AllowedIPs = 10.0.0.0/ 8",
    "AllowedIPs = 1 0.0.0.0/8", "AllowedIPs = ::ffff:1.2.3.4",
    "AllowedIPs = 10.0.0.0/8\nAllowedIPs = 11.0.0.0/8", "PersistentKeepalive = 25",
    "PersistentKeepalive = off", "PersistentKeepalive = OFF", "PersistentKeepalive = 0",
    "PersistentKeepalive = 65535", "PersistentKeepalive = 025", "PresharedKey = @2",
    "PresharedKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "[Peer]\nPublicKey=@1",
    "[Peer]\nPublicKey=@2", "[Interface]\nListenPort=7",
  ]

  /// Under [Peer] and a public key: accepted by wg(8), refused by us.
  static let stricterInPeer = [
    "Endpoint = 1.2.3.4:0", "Endpoint = 1.2.3.4:65536", "Endpoint = 127.1:5", "Endpoint = 1:5",
    "Endpoint = 0x7f.1:5", "PublicKey = @2", "PublicKey = @1",
  ]

  /// Under [Peer] and a public key: refused by wg(8) and by us.
  static let refusedInPeer = [
    "Endpoint = localhost", "Endpoint = localhost:", "Endpoint = :5", "Endpoint = ",
    "Endpoint = 1.2.3.4:http", "Endpoint = [::1]5", "Endpoint = [::1]", "Endpoint = [::1",
    "Endpoint = ::1]:5", "Endpoint = 1.2.3.256:5", "Endpoint = a..b:5", "Endpoint = -a:5",
    "Endpoint = 1.2.3.4:5:6",
    "Endpoint = aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.invalid:5",
    "AllowedIPs", "AllowedIPs = 10.0.0.0/8,", "AllowedIPs = ,10.0.0.0/8",
    "AllowedIPs = 10.0.0.0/8,,::/0", "AllowedIPs = ,", "AllowedIPs = 10.0.0.0/33",
    "AllowedIPs = ::/129", "AllowedIPs = 10.0.0.0/", "AllowedIPs = 10.0.0.0/+8",
    "AllowedIPs = 10.0.0.0/0x8", "AllowedIPs = 10.0.0.0/8 10.1.0.0/16", "AllowedIPs = 10.0.0/8",
    "AllowedIPs = 010.0.0.0/8", "AllowedIPs = fe80::1%lo/64", "AllowedIPs = localhost/32",
    "AllowedIPs = 0/0", "AllowedIPs = 10.0.0.0/8/8", "AllowedIPs = ::/999999999999999999999",
    "AllowedIPs = /8", "PersistentKeepalive = 65536", "PersistentKeepalive = -1",
    "PersistentKeepalive =", "PersistentKeepalive = 25s", "PersistentKeepalive = on",
    "PresharedKey = x", "PresharedKey =", "PrivateKey = @1", "ListenPort = 5", "Unknown = 1",
    "[Peer]", "DNS = 1.1.1.1",
  ]

  /// Under [Peer] and a public key: refused by wg(8), accepted by us.
  static let looserInPeer = [
    "AllowedIPs =", "AllowedIPs = ", "AllowedIPs = +10.0.0.0/8", "AllowedIPs = -10.0.0.0/8",
    "AllowedIPs = 10.0.0.0/8\nAllowedIPs = \n",
  ]

  /// Whole files: accepted by wg(8) and by us.
  static let takenFiles = [
    "", "\n\n", "[Peer]\nAllowedIPs=10.0.0.0/8\nPublicKey=@1", "[Interface]\r\nListenPort=5\r\n",
    "[Interface]\nPrivateKey=@1\n[Peer]\nPublicKey=@1",
  ]

  /// Whole files: accepted by wg(8), refused by us.
  static let stricterFiles = [
    "[Interface]\nListenPort=5\n[Peer]\nPublicKey=@1\n[Interface]\nListenPort=6"
  ]

  /// Whole files: refused by wg(8) and by us.
  static let refusedFiles = [
    "ListenPort=5\n", "[Peer]\n", "[Peer]\n[Peer]\nPublicKey=@1", "[Interface]\rListenPort=5\r",
  ]

  private func isTaken(_ text: String) -> Bool {
    let keys = [
      "@1": ConfigFixture.otherText, "@2": ConfigFixture.keyText,
      "@3": String(ConfigFixture.otherText.dropLast()),
      "@9": String(ConfigFixture.otherText.dropLast(2)) + "9=",
    ]
    let whole = keys.reduce(text) { $0.replacing($1.key, with: $1.value) }
    // Only we insist on a private key.
    let reason = ConfigFixture(whole + "\n").reason
    return reason == nil || reason == .noPrivateKey
  }

  @Test(arguments: takenInInterface + looserInInterface)
  func interfaceLinesThatAreTaken(_ line: String) { #expect(isTaken("[Interface]\n" + line)) }

  @Test(arguments: refusedInInterface + stricterInInterface)
  func interfaceLinesThatAreRefused(_ line: String) { #expect(!isTaken("[Interface]\n" + line)) }

  @Test(arguments: takenInPeer + looserInPeer)
  func peerLinesThatAreTaken(_ line: String) {
    #expect(isTaken("[Peer]\nPublicKey = @1\n" + line))
  }

  @Test(arguments: refusedInPeer + stricterInPeer)
  func peerLinesThatAreRefused(_ line: String) {
    #expect(!isTaken("[Peer]\nPublicKey = @1\n" + line))
  }

  @Test(arguments: takenFiles)
  func filesThatAreTaken(_ text: String) { #expect(isTaken(text)) }

  @Test(arguments: refusedFiles + stricterFiles)
  func filesThatAreRefused(_ text: String) { #expect(!isTaken(text)) }
}

/// Endpoints of configuration files: addresses, zones and host names.
@Suite struct ConfigEndpointTests {
  private static let link = IPAddress(ipv6High: 0xfe80 << 48, low: 1)
  private static let four = IPAddress(ipv4: 0x0102_0304)

  @Test(arguments: [
    ("1.2.3.4:5", Endpoint(address: four, port: 5), ""),
    ("1.2.3.4 : 5", Endpoint(address: four, port: 5), ""),
    ("1.2.3.4:065535", Endpoint(address: four, port: 65535), ""),
    ("[1.2.3.4]:5", Endpoint(address: four, port: 5), ""),
    ("[fe80::1]:5", Endpoint(address: link, port: 5), ""),
    ("fe80::1:5", Endpoint(address: link, port: 5), ""),
    ("[fe80::1%7]:5", Endpoint(address: link, port: 5, scope: 7), ""),
    ("[fe80::1%eth0]:5", Endpoint(address: link, port: 5), "eth0"),
    ("fe80::1%eth0:5", Endpoint(address: link, port: 5), "eth0"),
    ("[::ffff:1.2.3.4]:5", Endpoint(address: four, port: 5), ""),
    ("[::ffff:1.2.3.4%eth0]:5", Endpoint(address: four, port: 5), ""),
  ])
  func addresses(_ text: String, _ expected: Endpoint, _ zone: String) {
    let file = ConfigFixture.peer("Endpoint = \(text)")
    #expect(file.said == [.peer(.endpoint(expected))])
    #expect(file.names == (zone.isEmpty ? [] : [zone]))
    #expect(file.reason == nil)
  }

  @Test(arguments: [
    ("localhost:5", "localhost"), ("[localhost]:5", "localhost"), ("LocalHost:5", "LocalHost"),
    ("vpn.example.org:5", "vpn.example.org"), ("vpn.example.org. : 5", "vpn.example.org"),
    ("exa mple.org:5", "example.org"), ("a_b.invalid:5", "a_b.invalid"), ("a:5", "a"),
    ("1a.2b:5", "1a.2b"), ("xn--bcher-kva.example:5", "xn--bcher-kva.example"), ("0xz:5", "0xz"),
    ("3com.a1:5", "3com.a1"),
  ])
  func names(_ text: String, _ expected: String) {
    let file = ConfigFixture.peer("Endpoint = \(text)")
    #expect(file.said == [.namedEndpoint(port: 5)])
    #expect(file.names == [expected])
    #expect(file.reason == nil && !file.isUnclean)
  }

  @Test(arguments: [
    "1.2.3.4", "[::1]", "[::1]5", "[::1]:", "localhost", "localhost:", "", ":", "a:0", "[::1]:0",
    "1.2.3.4:65536", "1.2.3.4:http", "a:-1", "a:+1", "a:5x", "[]5",
  ])
  func portsThatAreNone(_ text: String) {
    #expect(ConfigFixture.peer("Endpoint = \(text)").reason == .badPort)
  }

  @Test(arguments: [
    "127.1:5", "1:5", "0x7f.1:5", "1.2.3.256:5", "a.0x1f:5", "a.1:5", "0x:5", ":5", "[]:5", "[::1",
    "::1]:5", "a..b:5", ".a:5", ".:5", "-a:5", "a-:5", "a.-b:5", "a:b:5", "1.2.3.4:5:6", "ä:5",
    "[fe80::1%]:5", "[fe80::1%sixteen-letters-]:5", "a%b:5", "a/b:5", "a\u{0}b:5", "[a]b]:5",
    "[1.2.3.4%1]:5",
  ])
  func hostsThatAreNone(_ text: String) {
    let reason = ConfigFixture.peer("Endpoint = \(text)").reason
    #expect(reason == .badHost || (text == "[a]b]:5" && reason == .badPort))
  }

  @Test func namesOfEveryLength() {
    func isName(_ text: String) -> Bool {
      TextFixture.with(text) { ConfigHostName.name($0) != nil }
    }
    #expect(isName(String(repeating: "a", count: 63)))
    #expect(!isName(String(repeating: "a", count: 64)))
    #expect(!isName(String(repeating: "a", count: 64) + ".b"))
    let longest = String(repeating: "a.", count: 126) + "a"
    #expect(longest.utf8.count == 253 && isName(longest) && isName(longest + "."))
    #expect(!isName("b" + longest) && !isName("b" + longest + "."))
    #expect(!isName(longest + ".."))
    let file = ConfigFixture.peer("Endpoint = \(longest):65535")
    #expect(file.names == [longest])
    let spread = longest.map { "\($0) " }.joined()
    let blanks = ConfigFixture(
      """
      [Interface]
      PrivateKey = \(ConfigFixture.keyText)
      [Peer]
      PublicKey = \(ConfigFixture.keyText)
      Endpoint = \(spread):65535
      """, lineByteCount: 1024)
    #expect(blanks.names == [longest] && blanks.reason == nil && !blanks.isUnclean)
  }

  @Test func everyByteInAName() {
    for byte in UInt8.min...UInt8.max {
      let isInner = [0x61, byte, 0x61].withUnsafeBytes { ConfigHostName.name($0) != nil }
      let isAlone = [byte].withUnsafeBytes { ConfigHostName.name($0) != nil }
      let character = Character(Unicode.Scalar(byte))
      let isLetter = character.isASCII && character.isLetter
      let isDigit = byte >= 0x30 && byte <= 0x39
      #expect(isInner == (isLetter || isDigit || "-_.".contains(character)))
      #expect(isAlone == (isLetter || character == "_"))
    }
  }
}

/// A file through a reader and a parser, with the results.
final class ConfigFixture {
  static let keyText = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
  static let otherText = "6Ii5bUV20MHhBzcnUr0dyeYYPEX6E4/0ZZKDLI7/q18="
  static let guardByteCount = 16

  /// The statements of the lines, including failures.
  private(set) var statements: [ConfigStatement] = []
  /// Host names and zones, in the order of their endpoints.
  private(set) var names: [String] = []
  /// Secrets, in the order of their statements.
  private(set) var secrets: [[UInt8]] = []
  /// The key that the failure names.
  private(set) var failedKey = ""
  private(set) var end: ConfigError?
  /// True if the parser wrote outside its memory, or a secret outlived its statement.
  private(set) var isUnclean = false

  convenience init(_ text: String, lineByteCount: Int = 512, pieceByteCount: Int = .max) {
    self.init(Array(text.utf8), lineByteCount: lineByteCount, pieceByteCount: pieceByteCount)
  }

  init(_ text: [UInt8], lineByteCount: Int = 512, pieceByteCount: Int = .max) {
    let guarded = ConfigFixture.guardByteCount
    var memory = [UInt8](repeating: 0, count: ConfigParser.byteCount + 2 * guarded)
    var lines = [UInt8](repeating: 0, count: lineByteCount)
    memory.withUnsafeMutableBytes { memory in
      lines.withUnsafeMutableBytes { lines in
        var reader = LineReader(buffer: lines)
        var parser = ConfigParser(memory: memory.baseAddress! + guarded)
        let stream = text.last == UInt8(ascii: "\n") ? text : text + [UInt8(ascii: "\n")]
        var offset = 0
        while offset < stream.count {
          let room = reader.makeRoom()
          let count = min(room.count, pieceByteCount, stream.count - offset)
          room.copyBytes(from: stream[offset..<(offset + count)])
          reader.didReceive(byteCount: count)
          offset += count
          take(&reader, &parser, memory)
        }
        end = parser.finish()
        if memory.contains(where: { $0 != 0 }) { isUnclean = true }
      }
    }
  }

  private func take(
    _ reader: inout LineReader, _ parser: inout ConfigParser,
    _ memory: UnsafeMutableRawBufferPointer
  ) {
    while true {
      let line = reader.next()
      if case .incomplete = line { return }
      parser.begin(line)
      while let statement = parser.next() {
        statements.append(statement)
        if parser.name.count > 0 { names.append(String(decoding: parser.name, as: UTF8.self)) }
        if case .failure = statement { failedKey = String(decoding: parser.key, as: UTF8.self) }
        if statement == .device(.privateKey) || statement == .peer(.presharedKey) {
          parser.withSecret {
            secrets.append(Array(UnsafeRawBufferPointer(start: $0, count: 32)))
          }
        }
      }
      // The file is finished, and all secrets are wiped.
      if memory.contains(where: { $0 != 0 }) { isUnclean = true }
    }
  }

  /// Why the file is refused; nil if it is not.
  var error: ConfigError? {
    if case .failure(let error)? = statements.last { return error }
    return end
  }

  var reason: ConfigError.Reason? { error?.reason }

  /// Lines under [Interface], after a private key.
  static func interface(_ lines: String) -> ConfigFixture {
    ConfigFixture("[Interface]\nPrivateKey = \(otherText)\n\(lines)\n")
  }

  /// Lines under [Peer], after a public key.
  static func peer(_ lines: String) -> ConfigFixture {
    ConfigFixture(
      "[Interface]\nPrivateKey = \(otherText)\n[Peer]\nPublicKey = \(keyText)\n\(lines)\n")
  }

  /// The statements of the lines under test, without those before them.
  var said: [ConfigStatement] {
    Array(statements.drop { $0 != .device(.privateKey) }.dropFirst()).filter {
      $0 != .beginPeer && $0 != .peer(.publicKey(ConfigFixture.key))
    }
  }

  /// The key of `keyText`.
  static let key: Key = TextFixture.with(keyText) { text in
    withUnsafeTemporaryAllocation(byteCount: 32, alignment: 8) { bytes in
      precondition(Base64.decodeKey(text, into: bytes.baseAddress!))
      return Key(at: bytes.baseAddress!)
    }
  }
}
