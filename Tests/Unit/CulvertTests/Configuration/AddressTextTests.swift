import Glibc
import Testing

@testable import Culvert

@Suite struct AddressTextTests {
  private func parse(_ text: String) -> IPAddress? {
    TextFixture.with(text) { AddressText.address($0) }
  }

  private func prefix(_ text: String) -> String? {
    TextFixture.with(text) { text in
      AddressText.prefix(text).map { prefix in
        TextFixture.written { AddressText.append(prefix, to: &$0) }
      }
    }
  }

  /// The endpoint in canonical form, followed by a space and its zone's name.
  private func endpoint(_ text: String) -> String? {
    TextFixture.with(text) { text in
      guard let parsed = AddressText.endpoint(text) else { return nil }
      let zone = String(decoding: parsed.zoneName, as: UTF8.self)
      let canonical = TextFixture.written { AddressText.append(parsed.endpoint, to: &$0) }
      return zone.isEmpty ? canonical : canonical + " " + zone
    }
  }

  /// The address that inet_pton(3) reads from a text.
  private func system(_ text: String) -> IPAddress? {
    var bytes = [UInt8](repeating: 0, count: 16)
    let family: IPAddress.Family = text.contains(":") ? .ipv6 : .ipv4
    guard inet_pton(family == .ipv6 ? AF_INET6 : AF_INET, text, &bytes) == 1 else { return nil }
    return bytes.withUnsafeBytes { IPAddress(family, at: $0.baseAddress!) }
  }

  /// The text that inet_ntop(3) writes for an address.
  private func system(_ address: IPAddress) -> String {
    var bytes = [UInt8](repeating: 0, count: 16)
    bytes.withUnsafeMutableBytes { address.write(to: $0.baseAddress!) }
    var text = [CChar](repeating: 0, count: 64)
    let family = address.family == .ipv6 ? AF_INET6 : AF_INET
    _ = inet_ntop(family, &bytes, &text, 64)
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  @Test(arguments: [
    "0.0.0.0", "255.255.255.255", "1.2.3.4", "::", "::1", "1::", "2001:db8::1", "::ffff:1.2.3.4",
    "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4:5:6:1.2.3.4", "1::1.2.3.4",
    "ABCD:ef01::", "0001:0:00:000::", "1::3:4:5:6:7:8", "1:2:3:4:5::1.2.3.4",
  ])
  func wellFormed(_ text: String) throws {
    let address = try #require(parse(text))
    #expect(address == system(text))
    #expect(parse(TextFixture.text(address)) == address)
  }

  @Test(arguments: [
    "", " ", "1", "1.2.3", "1.2.3.", ".1.2.3", "1..2.3", "1.2.3.4.", "1.2.3.4.5", "256.1.1.1",
    "1.2.3.04", "00.1.1.1", "1.2.3.4 ", " 1.2.3.4", "1.2.3.1111111111111111111", "+1.2.3.4",
    "0x1.2.3.4", ":", ":::", "::::", "1:", ":1", "1:::2", "::1::", "1::2::3", "12345::", "::g",
    "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "::1:",
    "1:2:3:4:5:6:7:1.2.3.4", "1.2.3.4::", "::1.2.3", "::1.2.3.4:5", "::256.1.1.1", "::1.2.3.04",
    "1:2:3:4::5:6:7:8", "::1%eth0", "::1/64", "[::1]", "fe80::1\u{0}",
  ])
  func malformed(_ text: String) {
    #expect(parse(text) == nil)
    if !text.contains("\u{0}") { #expect(system(text) == nil) }
  }

  @Test func randomAddressesAsTheSystemWritesAndReadsThem() {
    var generator = TextFixture.Generator(seed: 2)
    for _ in 0..<20_000 {
      // Many zero and small groups, so that runs of every length and place occur.
      var words: [UInt64] = [0, 0]
      for index in 0..<8 {
        let kind = Int.random(in: 0..<4, using: &generator)
        let group =
          kind < 2 ? 0 : UInt64.random(in: 0...(kind == 2 ? 0xff : 0xffff), using: &generator)
        words[index / 4] = words[index / 4] << 16 | group
      }
      if Int.random(in: 0..<16, using: &generator) == 0 {
        words = [0, 0xffff << 32 | words[1] & 0xffff_ffff]
      }
      let six = IPAddress(ipv6High: words[0], low: words[1])
      // inet_ntop(3) still writes ::192.0.2.1 for the deprecated ::c000:201.
      let isCompatible = words[0] == 0 && words[1] >> 32 == 0 && words[1] >> 16 != 0
      if !isCompatible { #expect(TextFixture.text(six) == system(six)) }
      #expect(parse(system(six)) == six)
      #expect(parse(TextFixture.text(six)) == six)
      let four = IPAddress(ipv4: UInt32(truncatingIfNeeded: words[1]))
      #expect(TextFixture.text(four) == system(four))
      #expect(parse(system(four)) == four)
    }
  }

  @Test func randomTextAsTheSystemReadsIt() {
    let alphabets = ["0123456789.", "01aF:.", "::01f", "12:1.2%/]"].map { Array($0.utf8) }
    let seeds = ["1.2.3.4", "2001:db8::1", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8", "::"]
    var generator = TextFixture.Generator(seed: 3)
    var accepted = 0
    for _ in 0..<50_000 {
      var text = Array(seeds.randomElement(using: &generator)!.utf8)
      let alphabet = alphabets.randomElement(using: &generator)!
      for _ in 0..<Int.random(in: 0..<4, using: &generator) {
        let place = Int.random(in: 0...text.count, using: &generator)
        let byte = alphabet.randomElement(using: &generator)!
        switch Int.random(in: 0..<3, using: &generator) {
        case 0: text.insert(byte, at: place)
        case 1: if place < text.count { text.remove(at: place) }
        default: if place < text.count { text[place] = byte }
        }
      }
      let string = String(decoding: text, as: UTF8.self)
      let address = parse(string)
      #expect(address == system(string), "\(string)")
      if address != nil { accepted += 1 }
    }
    #expect(accepted > 5000)
  }

  @Test(arguments: [
    // RFC 5952: section 4.1, 4.2.1 to 4.2.3, 4.3, 5.
    ("2001:0db8:0:0:0:0:0:0001", "2001:db8::1"), ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
    ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"), ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
    ("2001:DB8::A", "2001:db8::a"), ("::ffff:c000:201", "::ffff:192.0.2.1"), ("0::0", "::"),
    ("1:0:0:0:0:0:0:0", "1::"), ("0:0:0:0:0:0:0:1", "::1"), ("::c000:201", "::c000:201"),
    ("::1.2.3.4", "::102:304"),
  ])
  func canonical(_ text: String, _ expected: String) throws {
    #expect(TextFixture.text(try #require(parse(text))) == expected)
  }

  @Test(arguments: [
    ("10.1.2.3/8", "10.0.0.0/8"), ("10.1.2.3", "10.1.2.3/32"), ("0.0.0.0/0", "0.0.0.0/0"),
    ("::/0", "::/0"), ("2001:db8::1", "2001:db8::1/128"),
    ("2001:db8::ffff/113", "2001:db8::8000/113"),
    ("::ffff:10.1.2.3/120", "::ffff:10.1.2.0/120"), ("1.2.3.4/32", "1.2.3.4/32"),
  ])
  func prefixes(_ text: String, _ expected: String) {
    #expect(prefix(text) == expected)
  }

  @Test(arguments: [
    "", "/", "/8", "1.2.3.4/", "1.2.3.4/33", "::/129", "1.2.3.4/08", "1.2.3.4/00", "1.2.3.4/-1",
    "1.2.3.4/+8", "1.2.3.4/8/8", "1.2.3.4/8 ", "fe80::1%eth0/64", "fe80::/64%eth0", "1.2.3/8",
    "1.2.3.4/4294967304", "1.2.3.4/255.0.0.0", "1.2.3.4/0x8", "-1.2.3.4/8",
  ])
  func malformedPrefixes(_ text: String) {
    #expect(prefix(text) == nil)
  }

  @Test(arguments: [
    ("1.2.3.4:51820", "1.2.3.4:51820"), ("[2001:db8::1]:51820", "[2001:db8::1]:51820"),
    ("[fe80::1%3]:51820", "[fe80::1%3]:51820"), ("[fe80::1%eth0]:1", "[fe80::1]:1 eth0"),
    ("[fe80::1%4294967295]:65535", "[fe80::1%4294967295]:65535"), ("1.2.3.4:0", "1.2.3.4:0"),
    ("1.2.3.4:00080", "1.2.3.4:80"), ("[::ffff:1.2.3.4]:80", "[::ffff:1.2.3.4]:80"),
    ("[fe80::1%0]:9", "[fe80::1]:9"), ("[fe80::1%3eth]:9", "[fe80::1]:9 3eth"),
    ("[fe80::1%wg0.100@home-a1]:9", "[fe80::1]:9 wg0.100@home-a1"),
  ])
  func endpoints(_ text: String, _ expected: String) {
    #expect(endpoint(text) == expected)
  }

  @Test(arguments: [
    "", ":", ":51820", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:+1",
    "1.2.3.4:0x50", "1.2.3.4: 80", "[1.2.3.4]:80", "::1:80", "2001:db8::1", "[::1]", "[::1]80",
    "[::1:80", "::1]:80", "[]:80", "[:80", "]:80", "[[::1]]:80", "[::1%]:80", "1.2.3.4%eth0:80",
    "[1.2.3.4%eth0]:80", "[fe80::1%4294967296]:80", "[fe80::1%sixteen-letters-]:80",
    "[fe80::1%a b]:80", "[fe80::1%a/b]:80", "[fe80::1%a]b]:80", "example.com:51820",
    "[fe80::1%é]:80", "1.2.3.4:99999999999999999999999",
  ])
  func malformedEndpoints(_ text: String) {
    #expect(endpoint(text) == nil)
  }

  @Test func theLongestEndpointFits() {
    let address = IPAddress(ipv6High: .max, low: .max)
    let endpoint = Endpoint(address: address, port: .max, scope: .max)
    let text = TextFixture.written(capacity: AddressText.longestEndpointByteCount) {
      AddressText.append(endpoint, to: &$0)
    }
    #expect(self.endpoint(text) == text)
  }
}

@Suite struct KeyTextTests {
  private func hex(_ text: String) -> [UInt8]? {
    var key = [UInt8](repeating: 0xee, count: 32)
    let isValid = TextFixture.with(text) { text in
      key.withUnsafeMutableBytes { Hex.decodeKey(text, into: $0.baseAddress!) }
    }
    if !isValid { #expect(key == [UInt8](repeating: 0, count: 32)) }
    return isValid ? key : nil
  }

  private func base64(_ text: String) -> [UInt8]? {
    var key = [UInt8](repeating: 0xee, count: 32)
    let isValid = TextFixture.with(text) { text in
      key.withUnsafeMutableBytes { Base64.decodeKey(text, into: $0.baseAddress!) }
    }
    if !isValid { #expect(key == [UInt8](repeating: 0, count: 32)) }
    return isValid ? key : nil
  }

  private func base64(of key: [UInt8]) -> String {
    TextFixture.written { writer in
      key.withUnsafeBytes { Base64.appendKey($0.baseAddress!, to: &writer) }
    }
  }

  @Test func everyByteAsAHexadecimalDigit() {
    let expected = Array("0123456789abcdef".utf8)
    for byte in UInt8.min...UInt8.max {
      let lower = byte >= 0x41 && byte <= 0x46 ? byte + 0x20 : byte
      let value = expected.firstIndex(of: lower).map { Int32($0) } ?? -1
      #expect(Hex.value(of: byte) == value)
    }
    for value in UInt8(0)..<16 { #expect(Hex.character(of: value) == expected[Int(value)]) }
  }

  @Test func hexadecimalKeysOfBothCases() {
    let text = "00ff7f80" + String(repeating: "aB", count: 28)
    #expect(hex(text) == [0, 0xff, 0x7f, 0x80] + [UInt8](repeating: 0xab, count: 28))
    #expect(hex(text.uppercased()) == hex(text.lowercased()))
  }

  @Test func wrongHexadecimalKeysLeaveZeros() {
    let good = String(repeating: "5a", count: 32)
    #expect(hex(good) != nil)
    for wrong in ["", "5a", String(good.dropLast()), good + "5", good + "5a"] {
      #expect(hex(wrong) == nil)
    }
    for position in 0..<64 {
      for wrong in [UInt8(0x67), 0x2f, 0x3a, 0x40, 0x60, 0x20, 0] {
        var bytes = Array(good.utf8)
        bytes[position] = wrong
        #expect(hex(String(decoding: bytes, as: UTF8.self)) == nil)
      }
    }
  }

  /// RFC 7748 section 6.1's public keys, as base64(1) gives them.
  @Test func base64OfKnownKeys() {
    let alice = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")!
    #expect(base64(of: alice) == "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=")
    let ones = [UInt8](repeating: 0xff, count: 32)
    #expect(base64(of: ones) == String(repeating: "/", count: 42) + "8=")
    let zeros = [UInt8](repeating: 0, count: 32)
    #expect(base64(of: zeros) == String(repeating: "A", count: 43) + "=")
  }

  @Test func keysSurviveBothForms() {
    var generator = TextFixture.Generator(seed: 1)
    for _ in 0..<2000 {
      let key = (0..<32).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
      #expect(base64(base64(of: key)) == key)
      let text = TextFixture.written { writer in
        key.withUnsafeBytes { writer.append(hex: $0.baseAddress!, byteCount: 32) }
      }
      #expect(hex(text) == key)
    }
  }

  @Test func everyByteInEveryPlaceOfBase64() {
    let good = Array("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".utf8)
    let alphabet = Array(
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    for place in 0..<44 {
      for byte in UInt8.min...UInt8.max {
        var text = good
        text[place] = byte
        var key = [UInt8](repeating: 0, count: 32)
        let isValid = text.withUnsafeBytes { text in
          key.withUnsafeMutableBytes { Base64.decodeKey(text, into: $0.baseAddress!) }
        }
        let value = alphabet.firstIndex(of: byte)
        let expected =
          place == 43 ? byte == UInt8(ascii: "=") : value != nil && (place != 42 || value! & 3 == 0)
        #expect(isValid == expected, "byte \(byte) at \(place)")
        if isValid { #expect(Array(base64(of: key).utf8) == text) }
      }
    }
    let text = String(decoding: good, as: UTF8.self)
    for wrong in ["", "=", String(text.dropLast()), "A" + text, text + "="] {
      #expect(base64(wrong) == nil)
    }
  }
}
