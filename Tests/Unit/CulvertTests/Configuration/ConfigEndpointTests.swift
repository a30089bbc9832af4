import Testing

@testable import Culvert

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
