private var ciphers: [(name: String, cipher: TransportCipher)] {
  [
    ("whole", .whole), ("64", .composed(stride: 64)), ("256", .composed(stride: 256)),
    ("512", .composed(stride: 512)),
  ]
}

/// A text and its output, each with room around it, and a key.
private struct CipherPlace {
  let text: UnsafeMutableRawPointer
  let output: UnsafeMutableRawPointer
  let key = bytes(32)

  init(byteCount: Int) {
    let room = TransportCipher.headroom + byteCount + 31 + TransportCipher.slack
    text = bytes(room) + TransportCipher.headroom
    output = bytes(room) + TransportCipher.headroom
  }
}

private func sealing(_ cipher: TransportCipher, _ byteCount: Int) -> (Int) -> Void {
  let place = CipherPlace(byteCount: byteCount)
  let padded = (byteCount + 15) & ~15
  return { count in
    for index in 0..<count {
      cipher.seal(
        place.text, byteCount: byteCount, paddedByteCount: padded, to: place.output,
        counter: UInt64(index), key: place.key)
    }
  }
}

private func opening(_ cipher: TransportCipher, _ byteCount: Int) -> (Int) -> Void {
  let place = CipherPlace(byteCount: byteCount)
  let padded = (byteCount + 15) & ~15
  AEAD.seal(place.text, byteCount: padded, counter: 7, key: place.key)
  return { count in
    for _ in 0..<count {
      let isGenuine = cipher.open(
        place.text, byteCount: padded, to: place.output, counter: 7, key: place.key)
      precondition(isGenuine)
    }
  }
}

var cipherCases: [MicroCase] {
  [200, 1420].flatMap { byteCount in
    ciphers.flatMap { name, cipher in
      [
        MicroCase(name: "seal-\(byteCount)-\(name)", count: 200) { sealing(cipher, byteCount) },
        MicroCase(name: "open-\(byteCount)-\(name)", count: 200) { opening(cipher, byteCount) },
      ]
    }
  }
}
