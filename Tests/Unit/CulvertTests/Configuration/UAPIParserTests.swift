import Testing

@testable import Culvert

@Suite struct UAPIParserTests {
  private static let hex = "00112233445566778899aabbccddeeff" + "0123456789ABCDEF0123456789abcdef"
  private static let key = [UInt8]([
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
    0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
  ])
  private static var publicKey: Key { key.withUnsafeBytes { Key(at: $0.baseAddress!) } }

  /// A parser, its secret buffer, and zone names as strings.
  private final class Fixture {
    let secret = UnsafeMutableRawPointer.allocate(byteCount: 48, alignment: 8)
    var parser: UAPIParser
    var zoneName = ""

    init() {
      secret.initializeMemory(as: UInt8.self, repeating: 0, count: 48)
      parser = UAPIParser(secret: secret + 8)
    }

    deinit { secret.deallocate() }

    func parse(_ line: String) -> UAPILine {
      TextFixture.with(line) { line in
        let result = parser.parse(line)
        zoneName = String(decoding: parser.zoneName, as: UTF8.self)
        return result
      }
    }

    func parse(_ lines: [String]) -> [UAPILine] { lines.map { parse($0) } }

    var secretBytes: [UInt8] { Array(UnsafeRawBufferPointer(start: secret + 8, count: 32)) }
    var guardBytes: [UInt8] {
      Array(UnsafeRawBufferPointer(start: secret, count: 8))
        + Array(UnsafeRawBufferPointer(start: secret + 40, count: 8))
    }
  }

  /// The meaning of a line in the device's section, or after a public key.
  private func device(_ line: String) -> UAPILine { Fixture().parse(["set=1", line])[1] }
  private func peer(_ line: String) -> UAPILine {
    Fixture().parse(["set=1", "public_key=" + Self.hex, line])[2]
  }

  @Test func getThenSetThenGetOnOneConnection() {
    let fixture = Fixture()
    let lines = fixture.parse([
      "get=1", "", "set=1", "listen_port=1", "", "", "set=1", "", "get=1", "",
    ])
    #expect(
      lines == [
        .beginGet, .endGet, .beginSet, .device(.listenPort(1)), .endSet, .skipped, .beginSet,
        .endSet, .beginGet, .endGet,
      ])
  }

  @Test func deviceSettings() {
    #expect(device("listen_port=51820") == .device(.listenPort(51820)))
    #expect(device("listen_port=0") == .device(.listenPort(0)))
    #expect(device("listen_port=065535") == .device(.listenPort(65535)))
    #expect(device("fwmark=0") == .device(.fwmark(0)))
    #expect(device("fwmark=") == .device(.fwmark(0)))
    #expect(device("fwmark=4294967295") == .device(.fwmark(.max)))
    #expect(device("fwmark=0xca6c") == .device(.fwmark(51820)))
    #expect(device("fwmark=0XFFFFFFFF") == .device(.fwmark(.max)))
    #expect(device("replace_peers=true") == .device(.replacePeers))
    #expect(device("listen_port=1\r") == .device(.listenPort(1)))
  }

  @Test func peerSettings() {
    let four = IPAddress(ipv4: 0x0102_0304)
    let link = IPAddress(ipv6High: 0xfe80 << 48, low: 1)
    #expect(peer("remove=true") == .peer(.remove))
    #expect(peer("update_only=true") == .peer(.updateOnly))
    #expect(peer("replace_allowed_ips=true") == .peer(.replaceAllowedIPs))
    #expect(peer("protocol_version=1") == .peer(.protocolVersion1))
    #expect(peer("persistent_keepalive_interval=0") == .peer(.persistentKeepalive(0)))
    #expect(peer("persistent_keepalive_interval=65535") == .peer(.persistentKeepalive(.max)))
    let endpoint = Endpoint(address: four, port: 5)
    #expect(peer("endpoint=1.2.3.4:5") == .peer(.endpoint(endpoint)))
    #expect(peer("endpoint=[::ffff:1.2.3.4]:5") == .peer(.endpoint(endpoint)))
    #expect(
      peer("endpoint=[fe80::1%7]:5")
        == .peer(.endpoint(Endpoint(address: link, port: 5, scope: 7))))
    let prefix = IPPrefix(IPAddress(ipv4: 0x0102_0300), length: 24)!
    #expect(peer("allowed_ip=1.2.3.4/24") == .peer(.allowedIP(prefix)))
    #expect(peer("allowed_ip=-1.2.3.4/24") == .peer(.removeAllowedIP(prefix)))
    #expect(peer("allowed_ip=1.2.3.4") == .peer(.allowedIP(IPPrefix(four, length: 32)!)))
    #expect(peer("public_key=" + Self.hex) == .peer(.publicKey(Self.publicKey)))
    #expect(peer("public_key=" + Self.hex.lowercased()) == .peer(.publicKey(Self.publicKey)))
  }

  @Test(arguments: [
    "private_key=", "private_key=00", "private_key=" + String(repeating: "g", count: 64),
    "listen_port=", "listen_port=65536", "listen_port=-1", "listen_port=+1", "listen_port= 1",
    "listen_port=1 ", "listen_port=0x10", "listen_port=99999999999999999999999999999", "fwmark=0x",
    "fwmark=x", "fwmark=4294967296", "fwmark=0x100000000", "fwmark=off", "fwmark=0xg",
    "replace_peers=false", "replace_peers=", "replace_peers=TRUE", "replace_peers=true ",
    "replace_peers=1", "unknown=1", "=", "=1", "listen_port =1", "LISTEN_PORT=1", "errno=0",
    "get=1", "set=1", "listen_por=1", "listen_portt=1", "rx_bytes=1", "listen_port=1\r\r",
    "public_key=00",
  ])
  func invalidInTheDevicesSection(_ line: String) {
    #expect(device(line) == .failure(.invalid))
  }

  @Test(arguments: [
    "preshared_key=", "preshared_key=zz", "public_key=", "public_key=1", "remove=false", "remove=",
    "update_only=false", "replace_allowed_ips=false", "protocol_version=2", "protocol_version=",
    "protocol_version=01", "persistent_keepalive_interval=65536",
    "persistent_keepalive_interval=off", "persistent_keepalive_interval=", "endpoint=",
    "endpoint=1.2.3.4", "endpoint=example.com:1",
    "allowed_ip=", "allowed_ip=-", "allowed_ip=--1.2.3.4/24", "allowed_ip=+1.2.3.4/24",
    "allowed_ip=1.2.3.4/33", "allowed_ip=1.2.3.4/", "unknown=1", "=",
  ])
  func invalidInAPeersSection(_ line: String) {
    #expect(peer(line) == .failure(.invalid))
  }

  @Test func theOrderIsProtocol() {
    for line in [
      "remove=true", "update_only=true", "preshared_key=" + Self.hex, "endpoint=1.2.3.4:5",
      "persistent_keepalive_interval=1", "replace_allowed_ips=true", "allowed_ip=1.2.3.4/24",
      "protocol_version=1", "listen_port", "true",
    ] { #expect(device(line) == .failure(.wrongOrder), "\(line)") }
    for line in [
      "private_key=" + Self.hex, "listen_port=1", "fwmark=1", "replace_peers=true", "remove",
    ] { #expect(peer(line) == .failure(.wrongOrder), "\(line)") }
    for line in ["get=2", "set=", "set", "hello", "=", "get=1 ", "listen_port=1"] {
      #expect(Fixture().parse(line) == .failure(.wrongOrder), "\(line)")
    }
    #expect(Fixture().parse(["get=1", "x"])[1] == .failure(.invalid))
  }

  @Test func afterAFailureTheRequestIsSkippedAndTheConnectionGoesOn() {
    let fixture = Fixture()
    let lines = fixture.parse([
      "set=1", "listen_port=x", "fwmark=1", "public_key=" + Self.hex, "get=1", "", "get=1", "",
      "hello", "set=1", "", "get=1", "private_key=1", "also", "", "set=1", "fwmark=2", "",
    ])
    #expect(
      lines == [
        .beginSet, .failure(.invalid), .skipped, .skipped, .skipped, .endFailed(.invalid),
        .beginGet, .endGet, .failure(.wrongOrder), .skipped, .endFailed(.wrongOrder), .beginGet,
        .failure(.invalid), .skipped, .endFailed(.invalid), .beginSet, .device(.fwmark(2)), .endSet,
      ])
  }

  @Test func whatTheCallerCannotCarryOutFailsTheRequest() {
    let fixture = Fixture()
    fixture.parser.fail(.full)
    #expect(fixture.parse(["set=1", "listen_port=1"]) == [.beginSet, .device(.listenPort(1))])
    fixture.parser.fail(.addressInUse)
    fixture.parser.fail(.full)
    #expect(
      fixture.parse(["fwmark=1", "", ""]) == [.skipped, .endFailed(.addressInUse), .skipped])
  }

  @Test func secretsLiveUntilTheNextLine() {
    let zeros = [UInt8](repeating: 0, count: 32)
    let fixture = Fixture()
    #expect(fixture.parse(["set=1", "private_key=" + Self.hex])[1] == .device(.privateKey))
    #expect(fixture.secretBytes == Self.key)
    #expect(fixture.parse("fwmark=1") == .device(.fwmark(1)))
    #expect(fixture.secretBytes == zeros)
    let lines = fixture.parse(["public_key=" + Self.hex, "preshared_key=" + Self.hex])
    #expect(lines[1] == .peer(.presharedKey))
    #expect(fixture.secretBytes == Self.key)
    #expect(fixture.parse("") == .endSet)
    #expect(fixture.secretBytes == zeros)
    _ = fixture.parse(["set=1", "private_key=" + Self.hex])
    #expect(fixture.parser.parse(.overlong) == .failure(.invalid))
    #expect(fixture.secretBytes == zeros)
    _ = fixture.parse(["", "set=1", "private_key=" + Self.hex])
    fixture.parser.reset()
    #expect(fixture.secretBytes == zeros)
    #expect(fixture.parse("get=1") == .beginGet)
    #expect(fixture.guardBytes == [UInt8](repeating: 0, count: 16))
  }

  @Test func zonesGivenByNameAreTheCallersToResolve() {
    let fixture = Fixture()
    _ = fixture.parse(["set=1", "public_key=" + Self.hex])
    let link = IPAddress(ipv6High: 0xfe80 << 48, low: 1)
    let endpoint = Endpoint(address: link, port: 5)
    #expect(fixture.parse("endpoint=[fe80::1%eth0]:5") == .peer(.endpoint(endpoint)))
    #expect(fixture.zoneName == "eth0")
    _ = fixture.parse("endpoint=[fe80::1%3]:5")
    #expect(fixture.zoneName == "")
    _ = fixture.parse("endpoint=[fe80::1%eth0]:5")
    _ = fixture.parse("remove=true")
    #expect(fixture.zoneName == "")
    _ = fixture.parse("endpoint=[::ffff:1.2.3.4%eth0]:5")
    #expect(fixture.zoneName == "")
  }

  @Test func overlongLines() {
    let fixture = Fixture()
    #expect(fixture.parser.parse(.overlong) == .failure(.wrongOrder))
    #expect(fixture.parser.parse(.overlong) == .skipped)
    #expect(fixture.parse("") == .endFailed(.wrongOrder))
    #expect(fixture.parse("set=1") == .beginSet)
    #expect(fixture.parser.parse(.overlong) == .failure(.invalid))
    #expect(fixture.parser.parse(.incomplete) == .skipped)
    #expect(fixture.parse("") == .endFailed(.invalid))
  }
}

@Suite struct UAPIReplyTests {
  private let hex = String(repeating: "0123456789abcdef", count: 4)
  private let zeros = [UInt8](repeating: 0, count: 32)
  private let bytes = [UInt8](
    (0..<4).flatMap { _ in
      [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef] as [UInt8]
    })

  private func device(_ key: [UInt8]?, port: UInt16, mark: UInt32) -> String {
    TextFixture.written { writer in
      let isWhole =
        key?.withUnsafeBytes {
          UAPIReply.writeDevice(
            privateKey: $0.baseAddress, listenPort: port, fwmark: mark, to: &writer)
        }
        ?? UAPIReply.writeDevice(privateKey: nil, listenPort: port, fwmark: mark, to: &writer)
      #expect(isWhole)
    }
  }

  private func state(greatest: Bool = false) -> UAPIPeerState {
    let address = IPAddress(ipv6High: 0xfe80 << 48 | 0xffff_ffff_ffff, low: .max)
    return UAPIPeerState(
      publicKey: bytes.withUnsafeBytes { Key(at: $0.baseAddress!) },
      endpoint: greatest ? Endpoint(address: address, port: .max, scope: .max) : nil,
      lastHandshakeSeconds: greatest ? .max : 5, lastHandshakeNanoseconds: greatest ? .max : 6,
      sentByteCount: greatest ? .max : 7, receivedByteCount: greatest ? .max : 8,
      persistentKeepalive: greatest ? .max : 9)
  }

  @Test func theDeviceWithAndWithoutItsLines() {
    #expect(device(nil, port: 0, mark: 0) == "")
    #expect(device(zeros, port: 0, mark: 0) == "")
    #expect(
      device(bytes, port: 51820, mark: .max)
        == "private_key=\(hex)\nlisten_port=51820\nfwmark=4294967295\n")
  }

  @Test func aPeerInTheOrderOfWireguardGo() {
    var peer = state()
    let write: (inout ByteWriter) -> Void = { writer in
      bytes.withUnsafeBytes {
        let isWhole = UAPIReply.writePeer(peer, presharedKey: $0.baseAddress!, to: &writer)
        #expect(isWhole)
      }
    }
    let rest = """
      last_handshake_time_sec=5
      last_handshake_time_nsec=6
      tx_bytes=7
      rx_bytes=8
      persistent_keepalive_interval=9

      """
    let head = "public_key=\(hex)\npreshared_key=\(hex)\nprotocol_version=1\n"
    #expect(TextFixture.written(write) == head + rest)
    peer.endpoint = Endpoint(address: IPAddress(ipv4: 0x0102_0304), port: 80)
    #expect(TextFixture.written(write) == head + "endpoint=1.2.3.4:80\n" + rest)
  }

  @Test func allowedIPsAndTheEnd() {
    let prefix = IPPrefix(IPAddress(ipv4: 0x0a00_0000), length: 8)!
    #expect(
      TextFixture.written { _ = UAPIReply.writeAllowedIP(prefix, to: &$0) }
        == "allowed_ip=10.0.0.0/8\n")
    #expect(TextFixture.written { _ = UAPIReply.writeEnd(nil, to: &$0) } == "errno=0\n\n")
    for (error, number) in [
      (UAPIError.inputOutput, 5), (.invalid, 22), (.full, 28), (.unknown, 55), (.wrongOrder, 71),
      (.addressInUse, 98),
    ] {
      let text = TextFixture.written { _ = UAPIReply.writeEnd(error, to: &$0) }
      #expect(text == "errno=-\(number)\n\n")
    }
  }

  @Test func aPartFitsWholeOrNotAtAll() {
    let whole = TextFixture.written { writer in
      _ = bytes.withUnsafeBytes {
        UAPIReply.writePeer(state(greatest: true), presharedKey: $0.baseAddress!, to: &writer)
      }
    }
    #expect(whole.utf8.count <= UAPIReply.longestPartByteCount)
    for capacity in 0...whole.utf8.count {
      var memory = [UInt8](repeating: 0, count: capacity + 1)
      memory.withUnsafeMutableBytes { memory in
        var writer = ByteWriter(memory)
        writer.append(0x21)
        let fits = bytes.withUnsafeBytes {
          UAPIReply.writePeer(state(greatest: true), presharedKey: $0.baseAddress!, to: &writer)
        }
        #expect(fits == (capacity == whole.utf8.count))
        #expect(writer.hasOverflowed == false)
        // No part of the keys is left behind.
        if !fits { #expect(writer.count == 1 && memory.dropFirst().allSatisfy { $0 == 0 }) }
      }
    }
  }

  @Test func anOverflowBeforeThePartIsNotForgotten() {
    var memory = [UInt8](repeating: 0, count: 16)
    memory.withUnsafeMutableBytes { memory in
      var writer = ByteWriter(memory)
      writer.append("seventeen letters")
      let isWhole = UAPIReply.writeEnd(nil, to: &writer)
      #expect(!isWhole)
      #expect(writer.hasOverflowed == true)
    }
  }
}
