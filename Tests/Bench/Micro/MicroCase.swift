/// An operation whose cost is measured.
struct MicroCase {
  let name: String
  /// Operations to count; the same number in every run, since some depend on earlier ones.
  let count: Int
  /// Sets up, and returns a function that performs a number of operations.
  let prepare: () -> (Int) -> Void

  static var all: [MicroCase] {
    cipherCases + packetCases + tableCases + handshakeCases + batchCases + reassemblyCases
  }
}

nonisolated(unsafe) private var kept: UInt64 = 0

/// Makes the optimiser believe that a result is needed.
@inline(never)
func keep(_ value: UInt64) {
  kept &+= value
}

/// Zeroed memory that is never freed.
func bytes(_ byteCount: Int, alignment: Int = 64) -> UnsafeMutableRawPointer {
  let bytes = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: alignment)
  bytes.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
  return bytes
}

/// An arena of `byteCount` bytes that is never freed.
func arena(byteCount: Int) -> Arena {
  Arena(
    region: UnsafeMutableRawBufferPointer(
      start: bytes(byteCount, alignment: Arena.pageByteCount), count: byteCount))
}

// MARK: Ciphers

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
