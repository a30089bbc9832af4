// Fragments through the core and through its model. The input is a sequence of steps: a byte that
// selects the step, and the bytes that it needs. Build and run: Tests/Fuzz/run reassembler.
//
// `ReassemblyWorld` (Tests/Unit/CulvertTests/Fragments) compares them, and checks the room around
// packets.

nonisolated(unsafe) private let world = ReassemblyWorld()

func fuzzReassembler(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  var fuzz = ReassemblerFuzz(Array(UnsafeRawBufferPointer(start: bytes, count: count)))
  world.restart(seed: 1)
  while fuzz.step(world) {}
  if let failure = world.failure { fatalError("\(failure)") }
  return 0
}

struct ReassemblerFuzz {
  private var input: ArraySlice<UInt8>
  private var now: UInt64 = 1_000_000_000_000
  private var last: [UInt8] = []

  init(_ bytes: [UInt8]) {
    input = bytes[...]
  }

  private mutating func next() -> UInt8 { input.popFirst() ?? 0 }

  /// False at the end of the input.
  mutating func step(_ world: ReassemblyWorld) -> Bool {
    guard let choice = input.popFirst() else { return false }
    switch choice & 7 {
    case 3: add(raw(isRighted: choice & 8 != 0), choice, world)
    case 4:
      let (place, change) = (Int(next()), next())
      if !last.isEmpty { last[place % last.count] ^= change }
      add(choice & 8 == 0 ? last : ReassemblerFuzz.righted(last), choice, world)
    case 5:
      // Move the clock forwards or backwards by up to 71 s.
      let step = UInt64(next())
      let duration = step * step * 1_100_000
      now = choice & 8 == 0 ? now + duration : now - min(now, duration)
    case 6: world.expire(at: now)
    case 7:
      if choice & 8 != 0 {
        world.removeAll(from: choice & 16 == 0 ? nil : UInt32(choice >> 7))
      } else if world.completedCount > 0 {
        world.release(Int(choice >> 4) % world.completedCount)
      }
    default: add(fragment(choice).bytes, choice, world)
    }
    return true
  }

  private mutating func add(_ bytes: [UInt8], _ choice: UInt8, _ world: ReassemblyWorld) {
    guard !bytes.isEmpty else { return }
    last = bytes
    world.add(bytes, from: UInt32(choice >> 7), at: now)
  }

  /// Builds a fragment from four bytes of input, so that datagrams are often completed.
  private mutating func fragment(_ choice: UInt8) -> TestFragment {
    let (flags, place, byteCount) = (next(), Int(next()), Int(next()))
    var fragment = TestFragment()
    fragment.isIPv4 = flags & 1 == 0
    fragment.hasMore = flags & 2 != 0
    fragment.identification = UInt32(flags >> 2 & 3)
    fragment.trafficClass = flags >> 4 & 3
    fragment.source = choice >> 4 & 7
    fragment.number = choice & 8 == 0 ? 17 : 58
    if flags & 0x40 != 0 {
      fragment.options = [0x94, 4, 0, 0]
      fragment.extensions = [(60, [0, 0, 1, 4, 0, 0, 0, 0])]
    }
    fragment.byteOffset = place < 240 ? place * 8 : (8176 + place - 240) * 8
    // The payload depends only on its offset, unless a flag inverts one bit.
    let change = flags & 0x80
    let start = fragment.byteOffset
    fragment.payload = (0..<byteCount).map {
      UInt8(truncatingIfNeeded: (start &+ $0) &* 13) ^ change
    }
    return fragment
  }

  private mutating func raw(isRighted: Bool) -> [UInt8] {
    let count = Int(next())
    let bytes = Array(input.prefix(count))
    input = input.dropFirst(count)
    return isRighted ? ReassemblerFuzz.righted(bytes) : bytes
  }

  /// Corrects lengths and an IPv4 header's checksum.
  private static func righted(_ bytes: [UInt8]) -> [UInt8] {
    guard bytes.count >= 20 else { return bytes }
    var packet = bytes
    if packet[0] >> 4 == 4 {
      packet[2] = UInt8(packet.count >> 8)
      packet[3] = UInt8(packet.count & 0xff)
      let headerByteCount = min(max(Int(packet[0] & 15), 5) * 4, packet.count & ~3)
      var header = Array(packet[..<headerByteCount])
      TestFragment.writeChecksum(&header)
      packet.replaceSubrange(..<headerByteCount, with: header)
    } else if packet.count >= 40 {
      packet[0] = 0x60 | packet[0] & 0xf
      packet[4] = UInt8((packet.count - 40) >> 8)
      packet[5] = UInt8((packet.count - 40) & 0xff)
    }
    return packet
  }
}
