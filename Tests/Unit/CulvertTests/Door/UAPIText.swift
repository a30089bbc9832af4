#if !ONE_MODULE
  @testable import Culvert
#endif

/// Lines of the configuration protocol, chosen and then perhaps damaged.
enum UAPIText {
  /// The state of a stream of lines.
  enum Place {
    case idle
    case get
    case device
    case peer
  }

  /// One line with its newline, mostly a valid one; sometimes a blank one, which ends a request.
  static func writeLine(
    to writer: inout ByteWriter, at place: inout Place, _ choices: inout Choices
  ) {
    let isMisplaced = choices.below(64) == 0
    switch place {
    case .idle: writeOperation(&writer, &place, &choices)
    case .get: place = .idle
    case .device where !isMisplaced, .peer where isMisplaced:
      writeDeviceLine(&writer, &place, &choices)
    case .device, .peer: writePeerLine(&writer, &place, &choices)
    }
    writer.append(0x0a)
  }

  private static func writeOperation(
    _ writer: inout ByteWriter, _ place: inout Place, _ choices: inout Choices
  ) {
    if choices.below(4) == 0 {
      writer.append("get=1")
      place = .get
    } else {
      writer.append("set=1")
      place = .device
    }
  }

  private static func writeDeviceLine(
    _ writer: inout ByteWriter, _ place: inout Place, _ choices: inout Choices
  ) {
    switch choices.below(8) {
    case 0: appendKey("private_key=", &writer, &choices)
    case 1: appendNumber("listen_port=", &writer, &choices)
    case 2: appendNumber("fwmark=", &writer, &choices)
    case 3: writer.append(choices.below(8) == 0 ? "replace_peers=1" : "replace_peers=true")
    default:
      appendKey("public_key=", &writer, &choices)
      place = .peer
    }
  }

  private static func writePeerLine(
    _ writer: inout ByteWriter, _ place: inout Place, _ choices: inout Choices
  ) {
    switch choices.below(24) {
    case 0, 1, 2: place = .idle
    case 3, 4, 5: appendKey("public_key=", &writer, &choices)
    case 6: writer.append(choices.below(2) == 0 ? "remove=true" : "update_only=true")
    case 7: appendKey("preshared_key=", &writer, &choices)
    case 8, 9: appendEndpoint(&writer, &choices)
    case 10: appendNumber("persistent_keepalive_interval=", &writer, &choices)
    case 11, 12, 13: writer.append("replace_allowed_ips=true")
    case 14: writer.append("protocol_version=1")
    default: appendPrefix(&writer, &choices)
    }
  }

  private static func appendKey(
    _ name: StaticString, _ writer: inout ByteWriter, _ choices: inout Choices
  ) {
    // Few keys, so that peers recur, but more than there is room for.
    let number = UInt64(choices.below(12))
    let key = Key(word0: number, word1: number << 8, word2: 0, word3: number << 56)
    writer.append(name)
    withUnsafeBytes(of: key) { writer.append(hex: $0.baseAddress!, byteCount: $0.count) }
  }

  private static func appendNumber(
    _ name: StaticString, _ writer: inout ByteWriter, _ choices: inout Choices
  ) {
    writer.append(name)
    let bits = choices.byte()
    writer.append(decimal: UInt64(bits) << (bits & 0xc0 == 0 ? bits & 0x3f : 4))
  }

  private static func appendEndpoint(_ writer: inout ByteWriter, _ choices: inout Choices) {
    writer.append("endpoint=")
    switch choices.below(4) {
    case 0: writer.append("[fe80::1%eth0]:51820")
    case 1: writer.append("[fe80::1%3]:51820")
    case 2:
      AddressText.append(
        Endpoint(address: IPAddress(ipv4: UInt32(choices.below(65_536)) << 16 | 1), port: 7),
        to: &writer)
    default:
      let address = IPAddress(ipv6High: choices.word(), low: UInt64(choices.byte()))
      AddressText.append(Endpoint(address: address, port: 1), to: &writer)
    }
  }

  private static func appendPrefix(_ writer: inout ByteWriter, _ choices: inout Choices) {
    writer.append(choices.below(4) == 0 ? "allowed_ip=-" : "allowed_ip=")
    let bits = UInt64(choices.byte())
    let address =
      choices.below(2) == 0
      ? IPAddress(ipv4: UInt32(bits) << 24) : IPAddress(ipv6High: bits << 56, low: 0)
    let length = choices.below(10) * 4
    if let prefix = IPPrefix(address, length: min(length, address.family.bitCount)) {
      AddressText.append(prefix, to: &writer)
    }
  }

  /// Most lines are left intact. Returns the byte count.
  static func mutate(
    _ text: UnsafeMutableRawPointer, _ byteCount: Int, limit: Int, _ choices: inout Choices
  ) -> Int {
    let strategy = choices.byte()
    guard strategy & 0xf == 0, byteCount > 0 else { return byteCount }
    let place = choices.below(byteCount)
    switch choices.below(8) {
    case 0:
      text.storeBytes(of: choices.byte(), toByteOffset: place, as: UInt8.self)
    case 1:
      // One byte less.
      (text + place).copyMemory(from: text + place + 1, byteCount: byteCount - place - 1)
      return byteCount - 1
    case 2:
      // One byte twice.
      guard byteCount < limit else { return byteCount }
      (text + place + 1).copyMemory(from: text + place, byteCount: byteCount - place)
      return byteCount + 1
    case 3: return place
    case 4:
      // Too long for the reader.
      let longer = limit - 1 - choices.below(200)
      guard longer > byteCount else { return byteCount }
      (text + place).initializeMemory(as: UInt8.self, repeating: 0x61, count: longer - place)
      text.storeBytes(of: 0x0a, toByteOffset: longer, as: UInt8.self)
      return longer + 1
    case 5: text.storeBytes(of: 0x0d, toByteOffset: place, as: UInt8.self)
    case 6: text.storeBytes(of: 0x0a, toByteOffset: place, as: UInt8.self)
    default: choices.fill(text, byteCount: byteCount)
    }
    return byteCount
  }
}
