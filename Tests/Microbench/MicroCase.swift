/// Something whose cost is watched.
struct MicroCase {
  let name: String
  /// Operations to count instructions of; the same in every run, as some depend on what was before.
  let count: Int
  /// Sets up, and returns what does so many operations.
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

/// Zeroed bytes for the life of the process.
func bytes(_ byteCount: Int, alignment: Int = 64) -> UnsafeMutableRawPointer {
  let bytes = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: alignment)
  bytes.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
  return bytes
}

/// An arena of `byteCount` bytes for the life of the process.
func arena(byteCount: Int) -> Arena {
  Arena(
    region: UnsafeMutableRawBufferPointer(
      start: bytes(byteCount, alignment: Arena.pageByteCount), count: byteCount))
}
