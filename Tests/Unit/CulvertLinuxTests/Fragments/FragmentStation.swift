import Testing

@testable import Culvert
@testable import CulvertLinux

/// A `Reassembler` with memory, and the packets that it has reassembled.
final class FragmentStation {
  private let region: MemoryRegion
  private var reassembler: Reassembler
  /// In order of completion; includes packets that were not fragmented.
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

/// The order in which the fragments of several datagrams arrive.
enum FragmentOrder: CaseIterable {
  case asSent
  case reversed
  /// One fragment of each datagram at a time.
  case interleaved
  case shuffled
  /// Shuffled, and many of them duplicated. No duplicate follows the completion of its datagram,
  /// since it would start another one.
  case doubled

  /// - Parameter datagrams: the fragments of each.
  func arrange(_ datagrams: [[IPPacket]], seed: UInt64) -> [IPPacket] {
    var chance = SplitMix(state: seed)
    let tagged = datagrams.enumerated().flatMap { datagram, fragments in
      fragments.indices.map { (datagram: datagram, index: $0) }
    }
    let order: [(datagram: Int, index: Int)]
    switch self {
    case .asSent: order = tagged
    case .reversed: order = tagged.reversed()
    case .interleaved: order = tagged.sorted { ($0.index, $0.datagram) < ($1.index, $1.datagram) }
    case .shuffled: order = tagged.shuffled(using: &chance)
    case .doubled:
      var missing = datagrams.map { Set($0.indices) }
      order = (tagged + tagged).shuffled(using: &chance).filter {
        guard !missing[$0.datagram].isEmpty else { return false }
        missing[$0.datagram].remove($0.index)
        return true
      }
    }
    return order.map { datagrams[$0.datagram][$0.index] }
  }
}

/// The same seed gives the same run on every platform.
private struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var word = state
    word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
    word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
    return word ^ (word >> 31)
  }
}
