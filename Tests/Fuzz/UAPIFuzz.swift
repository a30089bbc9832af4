// Lines of the configuration protocol through LineReader and UAPIParser, in pieces. Build and run:
// Tests/Fuzz/run uapi.

/// The first byte of the input, plus one, is the size of the pieces in which the rest arrives.
func fuzzUAPI(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  guard let bytes, count > 1 else { return 0 }
  let stream = UnsafeRawBufferPointer(start: bytes + 1, count: count - 1)
  let pieces = UAPIFuzz.run(stream, pieceByteCount: Int(bytes[0]) + 1)
  let whole = UAPIFuzz.run(stream, pieceByteCount: .max)
  precondition(pieces == whole, "the result depends on where the stream was cut")
  UAPIFuzz.checkText(stream)
  return 0
}

enum UAPIFuzz {
  /// Parses the stream and returns a digest of the results.
  static func run(_ stream: UnsafeRawBufferPointer, pieceByteCount: Int) -> UInt64 {
    // Exact allocations, so that the address sanitizer sees any access outside.
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 96, alignment: 1)
    let secret = UnsafeMutableRawBufferPointer.allocate(byteCount: 32, alignment: 1)
    defer {
      buffer.deallocate()
      secret.deallocate()
    }
    var reader = LineReader(buffer: buffer)
    var parser = UAPIParser(secret: secret.baseAddress!)
    var hasher = Digest()
    var isOpen = false
    var hasFailed = false
    var offset = 0
    while offset < stream.count {
      let room = reader.makeRoom()
      precondition(room.count > 0, "no room for a stream that goes on")
      let count = min(room.count, pieceByteCount, stream.count - offset)
      room.baseAddress!.copyMemory(from: stream.baseAddress! + offset, byteCount: count)
      reader.didReceive(byteCount: count)
      offset += count
      while true {
        let line = reader.next()
        if case .incomplete = line { break }
        if case .line(let text) = line {
          precondition(text.count < buffer.count && text.firstPosition(of: 0x0a) == nil)
        }
        let meaning = parser.parse(line)
        check(meaning, &isOpen, &hasFailed)
        checkSetting(meaning, zoneName: parser.zoneName)
        hasher.add(meaning, secret: UnsafeRawBufferPointer(secret), zone: parser.zoneName)
      }
    }
    parser.reset()
    reader.reset()
    precondition(secret.allSatisfy { $0 == 0 } && buffer.allSatisfy { $0 == 0 })
    return hasher.bits
  }

  /// Checks the order of events: a request begins, fails at most once, and ends.
  private static func check(_ line: UAPILine, _ isOpen: inout Bool, _ hasFailed: inout Bool) {
    switch line {
    case .beginGet, .beginSet:
      precondition(!isOpen && !hasFailed)
      isOpen = true
    case .device, .peer: precondition(isOpen && !hasFailed)
    case .failure:
      precondition(!hasFailed)
      hasFailed = true
    case .skipped: precondition(hasFailed || !isOpen)
    case .endGet, .endSet:
      precondition(isOpen && !hasFailed)
      isOpen = false
    case .endFailed:
      precondition(hasFailed)
      isOpen = false
      hasFailed = false
    }
  }

  /// Checks that parsed values read back the same after being written in canonical form.
  private static func checkSetting(_ line: UAPILine, zoneName: UnsafeRawBufferPointer) {
    precondition(zoneName.count <= 15)
    guard case .peer(let setting) = line else { return precondition(zoneName.isEmpty) }
    withUnsafeTemporaryAllocation(byteCount: 64, alignment: 1) { memory in
      var writer = ByteWriter(memory)
      switch setting {
      case .endpoint(let endpoint):
        precondition(zoneName.isEmpty || endpoint.scope == 0)
        AddressText.append(endpoint, to: &writer)
        precondition(AddressText.endpoint(writer.written)!.endpoint == endpoint)
      case .allowedIP(let prefix), .removeAllowedIP(let prefix):
        AddressText.append(prefix, to: &writer)
        precondition(AddressText.prefix(writer.written)! == prefix)
      default: break
      }
      precondition(!writer.hasOverflowed)
    }
  }

  /// Feeds the raw input to the text parsers, which the request parser reaches only in part.
  static func checkText(_ text: UnsafeRawBufferPointer) {
    withUnsafeTemporaryAllocation(byteCount: 64, alignment: 1) { memory in
      var writer = ByteWriter(memory)
      if let address = AddressText.address(text) {
        AddressText.append(address, to: &writer)
        precondition(AddressText.address(writer.written)! == address)
      }
      writer.rewind()
      withUnsafeTemporaryAllocation(byteCount: 32, alignment: 1) { key in
        if Base64.decodeKey(text, into: key.baseAddress!) {
          Base64.appendKey(key.baseAddress!, to: &writer)
          precondition(writer.written.elementsEqual(text))
        }
      }
    }
    _ = AddressText.zonedAddress(text)
    _ = AddressText.prefix(text)
    _ = AddressText.endpoint(text)
  }

  /// FNV-1a over the parsed lines.
  private struct Digest {
    var bits: UInt64 = 0xcbf2_9ce4_8422_2325

    mutating func add(_ byte: UInt8) {
      bits = (bits ^ UInt64(byte)) &* 0x100_0000_01b3
    }

    mutating func add(word: UInt64) {
      withUnsafeBytes(of: word) { for byte in $0 { add(byte) } }
    }

    mutating func add(
      _ line: UAPILine, secret: UnsafeRawBufferPointer, zone: UnsafeRawBufferPointer
    ) {
      switch line {
      case .beginGet: add(1)
      case .beginSet: add(2)
      case .device(.privateKey), .peer(.presharedKey): for byte in secret { add(byte) }
      case .device(let setting): add(word: setting.digest)
      case .peer(let setting): add(word: setting.digest)
      case .failure(let error): add(UInt8(truncatingIfNeeded: error.rawValue))
      case .skipped: add(3)
      case .endGet: add(4)
      case .endSet: add(5)
      case .endFailed(let error): add(UInt8(truncatingIfNeeded: error.rawValue) ^ 0x80)
      }
      for byte in zone { add(byte) }
    }
  }
}

extension DeviceSetting {
  fileprivate var digest: UInt64 {
    switch self {
    case .privateKey: 1
    case .listenPort(let port): 0x1_0000 + UInt64(port)
    case .fwmark(let mark): 0x1_0000_0000 + UInt64(mark)
    case .replacePeers: 2
    }
  }
}

extension PeerSetting {
  fileprivate var digest: UInt64 {
    switch self {
    case .publicKey(let key): key.word0 &+ key.word1 &* 3 &+ key.word2 &* 5 &+ key.word3 &* 7
    case .remove: 1
    case .updateOnly: 2
    case .presharedKey: 3
    case .endpoint(let end): end.address.digest &+ UInt64(end.port) << 32 &+ UInt64(end.scope)
    case .persistentKeepalive(let seconds): 0x1_0000 + UInt64(seconds)
    case .replaceAllowedIPs: 4
    case .allowedIP(let prefix): prefix.address.digest &+ UInt64(prefix.length)
    case .removeAllowedIP(let prefix): ~prefix.address.digest &+ UInt64(prefix.length)
    case .protocolVersion1: 5
    }
  }
}

extension IPAddress {
  fileprivate var digest: UInt64 { high &* 31 &+ low &* 17 &+ UInt64(family.rawValue) }
}
