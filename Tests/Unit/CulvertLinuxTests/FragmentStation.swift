import Testing

@testable import Culvert
@testable import CulvertLinux

/// A `Reassembler` with memory, and what it has put together.
final class FragmentStation {
  private let region: MemoryRegion
  private var reassembler: Reassembler
  /// In the order in which they became whole; those that were no fragments too.
  private(set) var packets: [IPPacket] = []
  private static let largestByteCount = 65_575

  init() throws {
    var measuring = Arena.measuring
    _ = Reassembler(
      carvingFrom: &measuring, maximumPacketByteCount: FragmentStation.largestByteCount)
    region = try MemoryRegion(byteCount: measuring.byteCount)
    var arena = Arena(region: region.bytes)
    reassembler = Reassembler(
      carvingFrom: &arena, maximumPacketByteCount: FragmentStation.largestByteCount)
    reassembler.start(seed: 1)
  }

  func add(_ arrivals: [IPPacket]) {
    for packet in arrivals {
      var bytes = packet.bytes
      bytes.withUnsafeMutableBytes { add($0) }
    }
  }

  private func add(_ bytes: UnsafeMutableRawBufferPointer) {
    switch reassembler.add(bytes, from: 1, at: Instant(nanoseconds: 1)) {
    case .whole(let whole): packets.append(IPPacket(Array(whole)))
    case .complete(let whole, let slot):
      packets.append(IPPacket(Array(whole)))
      reassembler.release(slot)
    case .held: break
    case .dropped(let verdict): #expect(verdict == .duplicate)
    }
  }

  func count(_ verdict: FragmentVerdict) -> Int { Int(reassembler.counters[verdict]) }

  var incompleteCount: Int { reassembler.incompleteCount }
}
