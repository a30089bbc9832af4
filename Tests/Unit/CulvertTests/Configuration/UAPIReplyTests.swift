import Testing

@testable import Culvert

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
        // Nothing of the keys is left behind.
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
