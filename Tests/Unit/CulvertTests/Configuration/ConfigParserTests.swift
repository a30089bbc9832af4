import Testing

@testable import Culvert

@Suite struct ConfigParserTests {
  private typealias Fixture = ConfigFixture
  private let zero = [UInt8](repeating: 0, count: 32)

  private func prefix(_ a: UInt32, _ length: Int) -> IPPrefix {
    IPPrefix(IPAddress(ipv4: a), length: length)!
  }

  @Test func aWholeFile() {
    let file = Fixture(
      """
      # A file as a provider hands it out.
      [Interface]
      PrivateKey = \(Fixture.keyText)  # not a real one
      Address = 10.66.0.2/24, fd00:66::2/64
      DNS = 10.66.0.1, example.org
      MTU = 1380
      ListenPort=51820
      FwMark = 0xca6c
      PostUp = iptables -A FORWARD -i %i -j ACCEPT; echo a=b
      SaveConfig = true

      [Peer]
      # Stockholm
      PublicKey = \(Fixture.keyText)
      PresharedKey = \(Fixture.otherText)
      AllowedIPs = 0.0.0.0/0, ::/0
      Endpoint = vpn.example.org:51820
      PersistentKeepalive = 25

      [Peer]
      AllowedIPs = 10.1.0.0/16
      PublicKey = \(Fixture.otherText)
      Endpoint = [2001:db8::1]:443
      """)
    let other = file.secrets.last!.withUnsafeBytes { Key(at: $0.baseAddress!) }
    let here = IPAddress(ipv6High: 0xfd00_0066_0000_0000, low: 2)
    let there = IPAddress(ipv6High: 0x2001_0db8_0000_0000, low: 1)
    #expect(
      file.statements == [
        .beginInterface, .device(.privateKey),
        .address(ConfigAddress(IPAddress(ipv4: 0x0a42_0002), length: 24)!),
        .address(ConfigAddress(here, length: 64)!), .ignored(.dns), .mtu(1380),
        .device(.listenPort(51820)), .device(.fwmark(0xca6c)), .ignored(.postUp),
        .ignored(.saveConfig), .beginPeer, .peer(.publicKey(Fixture.key)), .peer(.presharedKey),
        .peer(.allowedIP(prefix(0, 0))),
        .peer(.allowedIP(IPPrefix(IPAddress(ipv6High: 0, low: 0), length: 0)!)),
        .namedEndpoint(port: 51820), .peer(.persistentKeepalive(25)), .beginPeer,
        .peer(.allowedIP(prefix(0x0a01_0000, 16))), .peer(.publicKey(other)),
        .peer(.endpoint(Endpoint(address: there, port: 443))),
      ])
    #expect(file.names == ["vpn.example.org"])
    #expect(file.secrets.map(\.count) == [32, 32] && file.secrets[0] != file.secrets[1])
    #expect(file.secrets[0] == withUnsafeBytes(of: Fixture.key) { Array($0) })
    #expect(file.end == nil && !file.isUnclean)
  }

  /// The same words with any layout mean the same, as for wg(8).
  @Test(arguments: [
    "[Interface]\nPrivateKey=%\nListenPort=5\n", "[interface]\nprivatekey=%\nlistenport=5",
    "[INTERFACE]\r\nPRIVATEKEY = %\r\nLISTENPORT = 5\r\n",
    " [ Inter face ] # x\n\n\t# y\nPrivate Key = %#z\n Listen\tPort\u{b}=\u{c} 5 \r\n#",
    "\u{feff}[Interface]\nPrivateKey = %\nListenPort = 05 # [Peer]",
    "[Interface]\nPrivateKey = %\n[Interface]\nListenPort = 0 5\n[Interface]",
  ])
  func blanksCommentsAndCaseDoNotCount(_ text: String) {
    let file = Fixture(Array(text.replacing("%", with: Fixture.keyText).utf8))
    #expect(file.reason == nil && !file.isUnclean)
    #expect(
      file.statements.filter { $0 != .beginInterface } == [
        .device(.privateKey), .device(.listenPort(5)),
      ])
    #expect(file.secrets == [withUnsafeBytes(of: Fixture.key) { Array($0) }])
  }

  @Test func aKeyWithBlanksInItIsThatKey() {
    let text = Fixture.keyText
    let broken = text.prefix(20) + " " + text.dropFirst(20).prefix(20) + "\t" + text.dropFirst(40)
    let file = Fixture("[Interface]\nPrivateKey = \(broken)")
    #expect(file.secrets == [withUnsafeBytes(of: Fixture.key) { Array($0) }])
    #expect(file.reason == nil && !file.isUnclean)
    let wrong = Fixture("[Interface]\nPrivateKey = \(broken)A")
    #expect(wrong.reason == .badPrivateKey && !wrong.isUnclean)
  }

  @Test(arguments: [
    ("ListenPort = 0", ConfigStatement.device(.listenPort(0))),
    ("ListenPort = 65535", .device(.listenPort(65535))),
    ("FwMark = off", .device(.fwmark(0))), ("FwMark = O f F", .device(.fwmark(0))),
    ("FwMark = 0", .device(.fwmark(0))), ("FwMark = 08", .device(.fwmark(8))),
    ("FwMark = 4294967295", .device(.fwmark(.max))),
    ("FwMark = 0xFFFFffff", .device(.fwmark(.max))), ("MTU = 68", .mtu(68)),
    ("MTU = 65535", .mtu(65535)), ("Table = off", .ignored(.table)), ("DNS =", .ignored(.dns)),
    ("PreUp = x", .ignored(.preUp)), ("PreDown = a = b", .ignored(.preDown)),
    ("PostDown = [Peer]", .ignored(.postDown)),
  ])
  func interfaceSettings(_ line: String, _ expected: ConfigStatement) {
    let file = Fixture.interface(line)
    #expect(file.said == [expected] && file.reason == nil)
  }

  @Test(arguments: [
    ("ListenPort = 65536", ConfigError.Reason.badListenPort), ("ListenPort =", .badListenPort),
    ("ListenPort = -1", .badListenPort), ("ListenPort = 0x10", .badListenPort),
    ("ListenPort = ssh", .badListenPort), ("ListenPort = 1 ; two", .badListenPort),
    ("ListenPort = 99999999999999999999999999", .badListenPort),
    ("FwMark = 4294967296", .badFwMark), ("FwMark = 0x100000000", .badFwMark),
    ("FwMark = 0x", .badFwMark), ("FwMark =", .badFwMark), ("FwMark = 1f", .badFwMark),
    ("FwMark = offf", .badFwMark), ("MTU = 67", .badMTU), ("MTU = 65536", .badMTU),
    ("MTU =", .badMTU), ("Address = 10.0.0.1/33", .badAddress),
    ("Address = ::1/129", .badAddress), ("Address = 10.0.0.1/", .badAddress),
    ("Address = 10.0.0/24", .badAddress), ("Address = fe80::1%eth0/64", .badAddress),
    ("Address = 10.0.0.1/255.255.255.0", .badAddress), ("Address = host", .badAddress),
    ("ListenPort = 1\nListenPort = 1", .repeated), ("MTU = 1400\nmtu = 1400", .repeated),
    ("PrivateKey = \(Fixture.keyText)", .repeated),
    ("[Interface]\nPrivateKey = \(Fixture.keyText)", .repeated),
    ("[Peer]\nPublicKey = \(Fixture.keyText)\nDNS = 1.1.1.1", .belongsToInterface),
    ("[Peer]\nPublicKey = \(Fixture.keyText)\nPrivateKey = x", .belongsToInterface),
    ("PublicKey = \(Fixture.keyText)", .belongsToPeer), ("Endpoint = 1.2.3.4:5", .belongsToPeer),
    ("Unknown = 1", .unknownKey), ("= 1", .unknownKey), ("ListenPort : 1 = 2", .unknownKey),
    ("ListenPor = 1", .unknownKey), ("ListenPortt = 1", .unknownKey),
    ("ListenPort#=5", .noAssignment), ("ListenPort", .noAssignment), ("x", .noAssignment),
    ("[Interface", .unknownSection), ("[Interface]]", .unknownSection), ("[]", .unknownSection),
    ("[Peers]", .unknownSection), ("[Peer", .unknownSection), ("[Interface] x", .unknownSection),
  ])
  func whatIsWrongInTheInterface(_ lines: String, _ expected: ConfigError.Reason) {
    let file = Fixture.interface(lines)
    #expect(file.reason == expected)
    #expect(!file.isUnclean)
  }

  @Test func privateKeysThatAreNone() {
    for wrong in [
      "", "x", String(Fixture.keyText.dropLast()), Fixture.keyText + "=",
      Fixture.keyText.dropLast(2) + "p=", String(repeating: "A", count: 5000),
      String(repeating: "A ", count: 400),
    ] {
      let file = Fixture("[Interface]\nPrivateKey = \(wrong)", lineByteCount: 8192)
      #expect(file.error == ConfigError(.badPrivateKey, line: 2), "\(wrong)")
      #expect(!file.isUnclean)
    }
    for empty in ["", "\n\n# nothing", "[Interface]", "[Interface]\nListenPort = 5"] {
      #expect(Fixture(empty).error == ConfigError(.noPrivateKey, line: 0))
    }
    // A key of zeros unsets it.
    let zero = String(repeating: "A", count: 43) + "="
    #expect(Fixture("[Interface]\nPrivateKey = \(zero)").reason == .noPrivateKey)
    #expect(Fixture("[Peer]\nPublicKey = \(Fixture.keyText)").reason == .noPrivateKey)
  }

  @Test(arguments: [
    ("AllowedIPs =", [ConfigStatement]()),
    (
      "AllowedIPs = 10.1.2.3/8",
      [.peer(.allowedIP(IPPrefix(IPAddress(ipv4: 10 << 24), length: 8)!))]
    ),
    (
      "AllowedIPs = 10.0.0.1 , ::\nallowedips=1.1.1.1/032",
      [
        .peer(.allowedIP(IPPrefix(IPAddress(ipv4: 0x0a00_0001), length: 32)!)),
        .peer(.allowedIP(IPPrefix(IPAddress(ipv6High: 0, low: 0), length: 128)!)),
        .peer(.allowedIP(IPPrefix(IPAddress(ipv4: 0x0101_0101), length: 32)!)),
      ]
    ),
    (
      "AllowedIPs = 1 0.0.0.0 / 8,+10.1.0.0/16, - 10.2.0.0/16",
      [
        .peer(.allowedIP(IPPrefix(IPAddress(ipv4: 10 << 24), length: 8)!)),
        .peer(.allowedIP(IPPrefix(IPAddress(ipv4: 0x0a01_0000), length: 16)!)),
        .peer(.removeAllowedIP(IPPrefix(IPAddress(ipv4: 0x0a02_0000), length: 16)!)),
      ]
    ),
    ("PersistentKeepalive = off", [.peer(.persistentKeepalive(0))]),
    ("PersistentKeepalive = OFF", [.peer(.persistentKeepalive(0))]),
    ("PersistentKeepalive = 025", [.peer(.persistentKeepalive(25))]),
    ("PersistentKeepalive = 65535", [.peer(.persistentKeepalive(65535))]),
    ("PresharedKey = \(Fixture.keyText)", [.peer(.presharedKey)]),
  ])
  func peerSettings(_ lines: String, _ expected: [ConfigStatement]) {
    let file = Fixture.peer(lines)
    #expect(file.said == expected)
    #expect(file.reason == nil && !file.isUnclean)
  }

  @Test(arguments: [
    ("AllowedIPs = 10.0.0.0/8,", ConfigError.Reason.badAllowedIP),
    ("AllowedIPs = ,", .badAllowedIP),
    ("AllowedIPs = ,10.0.0.0/8", .badAllowedIP), ("AllowedIPs = ::/0,,::/0", .badAllowedIP),
    ("AllowedIPs = 10.0.0.0/33", .badAllowedIP), ("AllowedIPs = ::/129", .badAllowedIP),
    ("AllowedIPs = 10.0.0.0/", .badAllowedIP), ("AllowedIPs = 10.0.0.0/+8", .badAllowedIP),
    ("AllowedIPs = 10.0.0.0/0x8", .badAllowedIP), ("AllowedIPs = 10.0.0.0/8/8", .badAllowedIP),
    ("AllowedIPs = 10.0.0.0/8 10.1.0.0/16", .badAllowedIP), ("AllowedIPs = 0/0", .badAllowedIP),
    ("AllowedIPs = fe80::1%lo/64", .badAllowedIP), ("AllowedIPs = localhost", .badAllowedIP),
    ("AllowedIPs = --10.0.0.0/8", .badAllowedIP), ("AllowedIPs = +", .badAllowedIP),
    ("AllowedIPs = ::/999999999999999999999", .badAllowedIP), ("AllowedIPs", .noAssignment),
    ("PersistentKeepalive = 65536", .badKeepalive), ("PersistentKeepalive =", .badKeepalive),
    ("PersistentKeepalive = -1", .badKeepalive), ("PersistentKeepalive = 25s", .badKeepalive),
    ("PersistentKeepalive = on", .badKeepalive), ("PresharedKey = x", .badPresharedKey),
    ("PresharedKey =", .badPresharedKey), ("PublicKey = \(Fixture.keyText)", .repeated),
    ("Endpoint = 1.2.3.4:5\nEndpoint = 1.2.3.4:5", .repeated),
    ("PresharedKey = \(Fixture.keyText)\nPresharedKey = \(Fixture.keyText)", .repeated),
    ("[Peer]", .noPublicKey), ("[Peer]\n[Interface]", .noPublicKey),
    ("[Peer]\nAllowedIPs = ::/0\n[Peer]\nPublicKey = \(Fixture.keyText)", .noPublicKey),
    ("[Peer]\nPublicKey = x", .badPublicKey), ("[Peer]\nPublicKey =", .badPublicKey),
  ])
  func whatIsWrongInAPeer(_ lines: String, _ expected: ConfigError.Reason) {
    let file = Fixture.peer(lines)
    #expect(file.reason == expected)
    #expect(!file.isUnclean)
  }

  @Test func addressesKeepTheirHostBits() {
    let file = Fixture.interface("Address = 10.0.0.2/24 fd00::2\nAddress =\nAddress = ,1.2.3.4/08,")
    let first = ConfigAddress(IPAddress(ipv4: 0x0a00_0002), length: 24)!
    #expect(
      file.said == [
        .address(first),
        .address(ConfigAddress(IPAddress(ipv6High: 0xfd00 << 48, low: 2), length: 128)!),
        .address(ConfigAddress(IPAddress(ipv4: 0x0102_0304), length: 8)!),
      ])
    #expect(first.prefix == prefix(0x0a00_0000, 24))
    #expect(ConfigAddress(IPAddress(ipv4: 0), length: 33) == nil)
    #expect(ConfigAddress(IPAddress(ipv4: 0), length: -1) == nil)
  }

  /// Errors report the line that the user should look at.
  @Test func errorsHaveALine() {
    let key = Fixture.keyText
    #expect(Fixture("\n\nListenPort = 5").error == ConfigError(.noSection, line: 3))
    #expect(Fixture("[Peer]\n\n[Peer]\nPublicKey = \(key)").error == .init(.noPublicKey, line: 1))
    let last = "[Interface]\nPrivateKey = \(key)\n[Peer]\nPublicKey = \(key)\n\n[Peer]\n\n\n"
    #expect(Fixture(last).error == ConfigError(.noPublicKey, line: 6))
    let long = "[Interface]\n# " + String(repeating: "x", count: 600) + "\nPrivateKey = \(key)"
    #expect(Fixture(long).error == ConfigError(.overlongLine, line: 2))
    #expect(Fixture(long, lineByteCount: 1024).error == nil)
    let second = "[Interface]\nListenPort = 1\nAddress = ::1, ::2,\nAddress = ::3 ::4/999\n"
    #expect(Fixture(second).error == ConfigError(.badAddress, line: 4))
    let mark = "[Interface]\n\u{feff}ListenPort = 1\n"
    #expect(Fixture(mark).error == ConfigError(.unknownKey, line: 2))
    // After a failure nothing more is reported, on this line or on others.
    let more = "[Interface]\nAddress = ::1 x ::2\nAddress = ::3\nPrivateKey = \(key)"
    #expect(Fixture(more).statements.count == 3)
    #expect(Fixture(more).end == nil)
  }

  /// A secret on its own line, whose base64 ends with =, looks like KEY = (nothing): the message
  /// does not repeat it.
  @Test func errorsNameKeysAndNoSecrets() {
    #expect(Fixture.interface("Adress = 10.0.0.1/24").failedKey == "Adress")
    #expect(Fixture.interface("listenport = x").failedKey == "listenport")
    #expect(Fixture.interface(Fixture.keyText).failedKey == "")
    #expect(Fixture.interface(Fixture.keyText).reason == .unknownKey)
    #expect(Fixture.interface("Bad = 1\nx").failedKey == "Bad")
    #expect(Fixture.interface("ListenPort = 1\n[x]").failedKey == "")
    let long = "ListenPort = 1\n" + String(repeating: "x", count: 600)
    #expect(Fixture.interface(long).failedKey == "")
  }

  @Test func secretsLiveForOneStatement() {
    withUnsafeTemporaryAllocation(byteCount: ConfigParser.byteCount, alignment: 8) { memory in
      memory.initializeMemory(as: UInt8.self, repeating: 0)
      var parser = ConfigParser(memory: memory.baseAddress!)
      for line in ["[Interface]", "PrivateKey = \(Fixture.keyText)"] {
        TextFixture.with(line) { line in
          parser.begin(line)
          #expect(parser.next() != nil)
        }
      }
      #expect(memory.prefix(32).elementsEqual(withUnsafeBytes(of: Fixture.key) { Array($0) }))
      #expect(parser.next() == nil)
      #expect(memory.allSatisfy { $0 == 0 })
      TextFixture.with("[Peer]") { line in
        parser.begin(line)
        #expect(parser.next() == .beginPeer)
      }
      TextFixture.with("Preshared Key = \(Fixture.keyText.dropLast()) =") { line in
        parser.begin(line)
        #expect(parser.next() == .peer(.presharedKey))
      }
      #expect(!memory.dropFirst(32).allSatisfy { $0 == 0 })
      // Secrets that are not used are wiped all the same.
      TextFixture.with("# x") { parser.begin($0) }
      #expect(memory.allSatisfy { $0 == 0 })
      parser.begin(.incomplete)
      #expect(parser.line == 5)
    }
  }

  @Test func theCutsOfTheStreamDoNotCount() {
    let text = """
      [Interface]
      PrivateKey = \(Fixture.keyText)
      Address = 10.0.0.1/24 10.0.0.2/24
      [Peer]
      PublicKey = \(Fixture.keyText)
      AllowedIPs = 10.0.0.0/8, 11.0.0.0/8
      Endpoint = a.b:1
      """
    let whole = Fixture(text)
    #expect(whole.statements.count == 9 && whole.reason == nil)
    for pieceByteCount in 1..<40 {
      let pieces = Fixture(text, pieceByteCount: pieceByteCount)
      #expect(pieces.statements == whole.statements)
      #expect(pieces.names == ["a.b"] && pieces.secrets == whole.secrets)
      #expect(!pieces.isUnclean)
    }
  }

  @Test func everyErrorSaysWhatToDoInOneLine() {
    for raw in UInt8.min...UInt8.max {
      guard let reason = ConfigError.Reason(rawValue: raw) else { continue }
      let text = "\(reason.text)"
      #expect(text.count > 20 && text.count < 100 && !text.contains("\n"))
    }
  }

  @Test func keysAreNamedAsInTheManuals() {
    for raw in 0..<ConfigKey.count {
      let key = ConfigKey(rawValue: raw)!
      let found = TextFixture.with("\(key.name)".uppercased()) { ConfigKey($0) }
      #expect(found == key)
      #expect("\(key.name)".count <= ConfigKey.longestByteCount)
    }
    #expect(ConfigKey(rawValue: ConfigKey.count) == nil)
  }
}
