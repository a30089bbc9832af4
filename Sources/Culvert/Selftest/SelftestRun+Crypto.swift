/// Known answers of the primitives.
extension SelftestRun {
  /// Plain and keyed hashes of all lengths up to five blocks, in pieces.
  mutating func blake2s() {
    let key = randomBytes(32)
    let text = randomBytes(512)
    let output = bytes(32)
    for byteCount in 0...320 {
      let cut = byteCount / 3
      BLAKE2s.hash(
        into: output, UnsafeRawBufferPointer(start: text, count: cut),
        UnsafeRawBufferPointer(start: text + cut, count: byteCount - cut))
      digest.add(output, byteCount: 32)
      let width = 1 + byteCount & 31
      var hash = BLAKE2s(byteCount: width, key: key, keyByteCount: width)
      hash.update(text, byteCount: byteCount)
      hash.finish(into: output)
      digest.add(output, byteCount: width)
    }
  }

  mutating func hmac() {
    let key = randomBytes(64)
    let text = randomBytes(160)
    let output = bytes(32)
    for byteCount in 0...160 {
      HMAC.authenticate(
        into: output, key: key, keyByteCount: byteCount & 63,
        UnsafeRawBufferPointer(start: text, count: byteCount))
      digest.add(output, byteCount: 32)
    }
  }

  /// Each chaining key is the previous output.
  mutating func hkdf() {
    let text = randomBytes(80)
    let outputs = bytes(96)
    for byteCount in 0...80 {
      HKDF.derive(
        chainingKey: outputs, input: text, byteCount: byteCount, into: outputs,
        second: outputs + 32, third: outputs + 64)
      digest.add(outputs, byteCount: 96)
    }
  }

  mutating func siphash() {
    let hash = KeyedHash(key: &random)
    let text = randomBytes(64)
    for byteCount in 0...64 { digest.add(hash.hash(text, byteCount: byteCount)) }
  }

  /// The test vectors of RFC 7748 section 5.2, points of low order, and the RFC's iteration.
  mutating func x25519() {
    let scalar = bytes(32)
    let point = bytes(32)
    let output = bytes(32)
    load(scalar, "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    load(point, "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    multiply(output, scalar, point)
    load(scalar, "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d")
    load(point, "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493")
    multiply(output, scalar, point)
    // The points 0 and 1, which have a low order; then the iteration that starts from 9.
    for start in 0..<2 as Range<UInt8> {
      point.initializeMemory(as: UInt8.self, repeating: 0, count: 32)
      point.storeByte(start, 0)
      multiply(output, scalar, point)
    }
    point.storeByte(9, 0)
    scalar.copyMemory(from: point, byteCount: 32)
    for _ in 0..<16 {
      multiply(output, scalar, point)
      point.copyMemory(from: scalar, byteCount: 32)
      scalar.copyMemory(from: output, byteCount: 32)
    }
    X25519.publicKey(into: output, secret: scalar)
    digest.add(output, byteCount: 32)
  }

  private mutating func multiply(
    _ output: UnsafeMutableRawPointer, _ scalar: UnsafeRawPointer, _ point: UnsafeRawPointer
  ) {
    digest.add(X25519.multiply(into: output, secret: scalar, point: point))
    digest.add(output, byteCount: 32)
  }

  private mutating func load(_ bytes: UnsafeMutableRawPointer, _ text: StaticString) {
    _ = Hex.decodeKey(text.bytes, into: bytes)
  }

  /// Transport data of all lengths up to 1536, with and without padding, with counters of more than
  /// 32 bits. Each is sealed with the widest stride and with one of the other candidates.
  mutating func aead() {
    let longest = 1536
    let room = TransportCipher.headroom + longest + 32 + TransportCipher.slack
    let key = randomBytes(32)
    let text = randomBytes(room) + TransportCipher.headroom
    let sealed = bytes(room) + TransportCipher.headroom
    let opened = bytes(room) + TransportCipher.headroom
    for byteCount in 0...longest {
      let counter = UInt64(byteCount) &* 0x1_0000_0001
      // The bytes after these are padding, which is encrypted as zeros whatever it contains.
      let textByteCount = byteCount - byteCount & 7
      for turn in 0..<2 {
        let cipher = turn == 0 ? TransportCipher.composed(stride: 512) : other(byteCount % 3)
        cipher.seal(
          text, byteCount: textByteCount, paddedByteCount: byteCount, to: sealed,
          counter: counter, key: key)
        if turn == 0 { digest.add(sealed, byteCount: byteCount) }
        digest.add(sealed + byteCount, byteCount: 16)
        let isGenuine = open(cipher, sealed, byteCount, opened, counter, key)
        digest.add(isGenuine && Secret.equal(opened, text, byteCount: textByteCount))
      }
      // Flip a bit of the ciphertext or the tag.
      let place = byteCount &* 7 % (byteCount + 16)
      sealed.storeByte(sealed.byte(place) ^ 1 << UInt8(byteCount & 7), place)
      let isGenuine = open(other(2), sealed, byteCount, opened, counter, key)
      digest.add(!isGenuine && Secret.isZero(opened, byteCount: byteCount))
    }
  }

  // Not inlined, so that there is only one copy of the cipher's code.
  @inline(never)
  private func open(
    _ cipher: TransportCipher, _ message: UnsafeMutableRawPointer, _ byteCount: Int,
    _ output: UnsafeMutableRawPointer, _ counter: UInt64, _ key: UnsafeRawPointer
  ) -> Bool {
    cipher.open(message, byteCount: byteCount, to: output, counter: counter, key: key)
  }

  private func other(_ index: Int) -> TransportCipher {
    index == 0 ? .whole : .composed(stride: index == 1 ? 64 : 256)
  }

  mutating func xaead() {
    let key = randomBytes(32)
    let nonce = randomBytes(24)
    let text = randomBytes(128)
    let output = bytes(144)
    for byteCount in 0...128 {
      nonce.storeByte(UInt8(byteCount), 5)
      XAEAD.seal(
        into: output, text: text, byteCount: byteCount, additionalData: key,
        additionalByteCount: byteCount & 31, nonce: nonce, key: key)
      digest.add(output, byteCount: byteCount + 16)
      // Even lengths stay genuine, odd ones are forged.
      let place = byteCount / 2
      if byteCount & 1 != 0 { output.storeByte(~output.byte(place), place) }
      let isGenuine = XAEAD.open(
        into: output, message: output, byteCount: byteCount, additionalData: key,
        additionalByteCount: byteCount & 31, nonce: nonce, key: key)
      digest.add(isGenuine)
      digest.add(output, byteCount: byteCount)
    }
  }
}

/// Whole handshakes with fixed keys and entropy, compared byte by byte: Tests/System/known_answers
/// computes the same bytes with an independent implementation.
extension SelftestRun {
  mutating func handshake(hasPresharedKey: Bool) {
    var loopback = Loopback(
      carvingFrom: &arena, at: Instant(nanoseconds: 1_800_000_000_123_456_789))
    loopback.start(isSeeded: false, hasPresharedKey: hasPresharedKey)
    loopback.setCipher(.composed(stride: 512), of: Loopback.responder)
    let (one, two) = (Loopback.initiator, Loopback.responder)
    // An initiation that arrives twice and thus puts the responder under load; the cookie reply;
    // the next initiation with that cookie, of whose two copies only the first is accepted; the
    // response; the staged packet.
    loopback.stage(byteCount: 100)
    for step in 0..<6 {
      if step == 3 {
        if let due = loopback.nextDeadline(of: one).instant { loopback.now = due }
        digest.add(loopback.now.nanoseconds)
      }
      let side = step == 1 || step == 4 ? two : one
      loopback.runTimers(side)
      send(&loopback, from: side, copies: step % 3 == 0 ? 2 : 1)
    }
    // More packets in both directions, each twice: the second copy is a replay.
    for index in 0..<9 {
      loopback.fill(2, byteCount: 20 + 175 * index)
      loopback.plan(index & 1)
      send(&loopback, from: index & 1, copies: 2)
    }
    digest.add(loopback.count(.replayed, of: one))
    digest.add(loopback.count(.replayed, of: two))
  }

  /// Hashes the datagrams and the packets that they contain.
  private mutating func send(_ loopback: inout Loopback, from side: Int, copies: Int) {
    loopback.send(from: side, copies: copies)
    for index in 0..<loopback.inbound.count {
      digest.add(
        loopback.inbound.datagram(index),
        byteCount: Int(loopback.inbound.packets[index].byteCount))
    }
    for index in 0..<loopback.inbound.count {
      guard let packet = loopback.inbound.delivered(index) else { continue }
      digest.add(packet.baseAddress!, byteCount: packet.count)
    }
  }
}
