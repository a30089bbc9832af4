@testable import Culvert

/// A `Reassembler` with memory, spoken to in `TestFragment`s. What comes out is copied.
final class ReassemblerFixture {
  typealias Outcome = ReassemblyModel.Outcome
  typealias Expiry = ReassemblyModel.Expiry

  private let memory: TestArena
  var reassembler: Reassembler
  /// Slots of whole packets are kept until `release`.
  var keepsPackets = false
  private(set) var slots: [Int] = []

  init(maximumByteCount: Int = 65_575, seed: UInt64 = 1) {
    var measuring = Arena.measuring
    _ = Reassembler(carvingFrom: &measuring, maximumPacketByteCount: maximumByteCount)
    memory = TestArena(byteCount: measuring.byteCount)
    reassembler = Reassembler(
      carvingFrom: &memory.arena, maximumPacketByteCount: maximumByteCount)
    reassembler.start(seed: seed)
  }

  /// - Parameter now: in seconds.
  func add(_ bytes: [UInt8], from sender: UInt32 = 1, at now: Double = 0) -> Outcome {
    let packet = PacketBuffer(bytes)
    let buffer = UnsafeMutableRawBufferPointer(start: packet.start, count: bytes.count)
    switch reassembler.add(buffer, from: sender, at: ReassemblerFixture.instant(now)) {
    case .whole(let found): return .whole(Array(found))
    case .held: return .held
    case .dropped(let verdict): return .dropped(verdict)
    case .complete(let found, let slot):
      let copy = Array(found)
      if keepsPackets { slots.append(slot) } else { reassembler.release(slot) }
      return .complete(copy)
    }
  }

  func add(_ fragment: TestFragment, from sender: UInt32 = 1, at now: Double = 0) -> Outcome {
    add(fragment.bytes, from: sender, at: now)
  }

  /// All of them in turn; the last one's outcome.
  func add(_ fragments: [TestFragment], from sender: UInt32 = 1, at now: Double = 0) -> Outcome {
    fragments.reduce(.held) { _, fragment in add(fragment, from: sender, at: now) }
  }

  func release() {
    reassembler.release(slots.removeFirst())
  }

  /// What was over, one after the other.
  func expire(at now: Double) -> [Expiry] {
    var expired: [Expiry] = []
    while let expiry = reassembler.expire(at: ReassemblerFixture.instant(now)) {
      switch expiry {
      case .silent: expired.append(.silent)
      case .timeExceeded(let packet): expired.append(.timeExceeded(Array(packet)))
      }
    }
    return expired
  }

  func count(_ verdict: FragmentVerdict) -> UInt64 { reassembler.counters[verdict] }

  var incompleteCount: Int { reassembler.incompleteCount }

  /// In seconds.
  var nextDeadline: Double? {
    reassembler.nextDeadline.instant.map { Double($0.nanoseconds) / 1e9 }
  }

  static func instant(_ seconds: Double) -> Instant {
    Instant(nanoseconds: UInt64(seconds * 1e9))
  }
}

extension TestFragment {
  /// A datagram, still in one piece, whose payload counts up.
  static func datagram(
    isIPv4: Bool = true, source: UInt8 = 1, identification: UInt32 = 7, _ byteCount: Int
  ) -> TestFragment {
    var datagram = TestFragment()
    datagram.isIPv4 = isIPv4
    datagram.source = source
    datagram.identification = identification
    datagram.payload = (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
    return datagram
  }

  /// One of the fragments of a datagram that is never whole.
  static func first(
    isIPv4: Bool = true, source: UInt8 = 1, identification: UInt32 = 7
  ) -> TestFragment {
    datagram(isIPv4: isIPv4, source: source, identification: identification, 24).cut(16)[0]
  }

  /// This fragment, changed.
  func with(_ change: (inout TestFragment) -> Void) -> TestFragment {
    var fragment = self
    change(&fragment)
    return fragment
  }
}
