import Glibc

#if !ONE_MODULE
  @testable import Culvert
#endif

/// A `Reassembler` and its model, with fences around its memory. The tests, the run of a million
/// streams and the fuzzer share it.
final class ReassemblyWorld {
  private let memory: UnsafeMutableRawBufferPointer
  private var reassembler: Reassembler
  private var model: ReassemblyModel
  private let maximumByteCount: Int
  /// Packets handed out, their expected content until they are released, and their slots.
  private var completed: [(packet: UnsafeMutableRawBufferPointer, bytes: [UInt8], slot: Int)] = []
  private let isThorough: Bool
  /// The first promise that was broken.
  private(set) var failure: String?
  /// Packets given to it, and outcomes compared.
  private(set) var packetCount = 0
  private(set) var comparisons = 0

  private static let mark: UInt8 = 0xa5
  /// Byte count of the fences before and after the arena.
  private static let fence = 4096

  /// - Parameter isThorough: whether to check the fences and every figure after every step.
  init(maximumByteCount: Int = 2048, isThorough: Bool = true) {
    self.maximumByteCount = maximumByteCount
    self.isThorough = isThorough
    var measuring = Arena.measuring
    _ = Reassembler(carvingFrom: &measuring, maximumPacketByteCount: maximumByteCount)
    let byteCount = measuring.byteCount
    memory = .allocate(byteCount: byteCount + 2 * ReassemblyWorld.fence, alignment: 4096)
    memory.initializeMemory(as: UInt8.self, repeating: ReassemblyWorld.mark)
    let region = UnsafeMutableRawBufferPointer(
      rebasing: memory[ReassemblyWorld.fence..<(ReassemblyWorld.fence + byteCount)])
    region.initializeMemory(as: UInt8.self, repeating: 0)
    var arena = Arena(region: region)
    reassembler = Reassembler(carvingFrom: &arena, maximumPacketByteCount: maximumByteCount)
    model = ReassemblyModel(maximumByteCount: maximumByteCount)
    reassembler.start(seed: 1)
    markRegions()
  }

  deinit {
    memory.deallocate()
  }

  /// Puts the world into its initial state, except for the content of the slots.
  func restart(seed: UInt64) {
    while !completed.isEmpty { release(0) }
    removeAll(from: nil)
    let (before, expected) = (counts(), model.counts)
    for (verdict, count) in zip(verdicts, before) {
      require(count == expected[verdict, default: 0] + start[verdict, default: 0], "a count")
    }
    start = Dictionary(uniqueKeysWithValues: zip(verdicts, before))
    model = ReassemblyModel(maximumByteCount: maximumByteCount)
    reassembler.start(seed: seed)
  }

  /// Counters at the last restart, which does not reset them.
  private var start: [FragmentVerdict: UInt64] = [:]
  private let verdicts = (0..<FragmentVerdict.count).map { FragmentVerdict(rawValue: $0)! }

  /// How often each verdict was given, in all streams.
  var tally: [(name: String, count: UInt64)] {
    zip(verdicts, counts()).map { ("\($0.name)", $1) }
  }

  private func counts() -> [UInt64] {
    verdicts.map { reassembler.counters[$0] }
  }

  // MARK: Steps

  func add(_ bytes: [UInt8], from sender: UInt32 = 1, at now: UInt64) {
    // Exactly as long as the packet, so that the address sanitizer sees any access outside.
    let packet = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
    defer { packet.deallocate() }
    packet.copyBytes(from: bytes)
    let outcome = reassembler.add(packet, from: sender, at: Instant(nanoseconds: now))
    let expected = model.add(bytes, from: sender, at: now)
    packetCount += 1
    comparisons += 1
    switch (outcome, expected) {
    case (.whole(let found), .whole(let bytes)):
      require(isEqual(found, bytes), "not the whole packet")
      require(
        found.baseAddress! >= packet.baseAddress!
          && found.baseAddress! + found.count <= packet.baseAddress! + packet.count,
        "not in the packet's memory")
    case (.held, .held):
      require(isEqual(packet, bytes), "a fragment was written to")
    case (.complete(let found, let slot), .complete(let bytes)):
      require(isEqual(found, bytes), "not the datagram")
      require(!completed.contains { $0.slot == slot }, "a slot was given away twice")
      completed.append((found, bytes, slot))
    case (.dropped(let verdict), .dropped(let other)):
      require(verdict == other, "dropped as \(verdict), in the model as \(other)")
      require(isEqual(packet, bytes), "what was dropped was written to")
    default:
      require(false, "\(outcome), in the model \(expected)")
    }
    check()
  }

  /// Expires everything that is due.
  func expire(at now: UInt64) {
    while true {
      let outcome = reassembler.expire(at: Instant(nanoseconds: now))
      let expected = model.expire(at: now)
      comparisons += 1
      switch (outcome, expected) {
      case (.none, .none): return check()
      case (.silent, .silent): break
      case (.timeExceeded(let found), .timeExceeded(let bytes)):
        require(isEqual(found, bytes), "not the error")
        // The error may have been written into the headroom.
        if isThorough { markRegions() }
      default: return require(false, "\(String(describing: outcome)), not \(expected as Any)")
      }
    }
  }

  var completedCount: Int { completed.count }
  var incompleteCount: Int { model.waiting.count }

  /// Uses the memory around a packet as a cipher does, and releases it.
  func release(_ index: Int) {
    let (packet, bytes, slot) = completed.remove(at: index)
    require(isEqual(packet, bytes), "a packet changed before it was released")
    let start = packet.baseAddress! - Reassembler.headroom
    if isThorough {
      let room = Reassembler.headroom + maximumByteCount + Reassembler.slack
      start.initializeMemory(as: UInt8.self, repeating: 0x5a, count: room)
    }
    reassembler.release(slot)
    model.release()
    if isThorough { markRegions() }
    check()
  }

  func removeAll(from sender: UInt32?) {
    if let sender { reassembler.removeAll(from: sender) } else { reassembler.removeAll() }
    model.removeAll(from: sender)
    check()
  }

  // MARK: Promises

  private func check() {
    require(reassembler.incompleteCount == model.waiting.count, "not as many wait")
    require(reassembler.completedCount == model.completedCount, "not as many are whole")
    guard isThorough else { return }
    require(
      reassembler.nextDeadline == model.nextDeadline.map { Deadline(Instant(nanoseconds: $0)) }
        ?? .never, "another deadline")
    checkFences()
  }

  /// Memory that only a cipher may write to, and memory that nobody may write to.
  private func checkFences() {
    // memcmp, since comparing bytes one by one is slow in debug builds.
    let isIntact = { (bytes: UnsafeMutableRawBufferPointer) in
      bytes[0] == ReassemblyWorld.mark
        && memcmp(bytes.baseAddress!, bytes.baseAddress! + 1, bytes.count - 1) == 0
    }
    require(isIntact(.init(rebasing: memory[..<ReassemblyWorld.fence])), "before the arena")
    require(
      isIntact(.init(rebasing: memory[(memory.count - ReassemblyWorld.fence)...])),
      "behind the arena")
    forEachRoom { require(isIntact($0), "in the room around a packet") }
  }

  private func markRegions() {
    forEachRoom { $0.initializeMemory(as: UInt8.self, repeating: ReassemblyWorld.mark) }
  }

  /// Headroom and slack of every slot.
  private func forEachRoom(_ body: (UnsafeMutableRawBufferPointer) -> Void) {
    for slot in 0..<Reassembler.slots {
      let payload = reassembler.payload(of: slot)
      let region = payload - Reassembler.payloadByteOffset
      body(UnsafeMutableRawBufferPointer(start: region, count: Reassembler.headroom))
      body(
        UnsafeMutableRawBufferPointer(
          start: payload + (maximumByteCount - 20), count: Reassembler.slack))
    }
  }

  private func isEqual(_ found: UnsafeMutableRawBufferPointer, _ bytes: [UInt8]) -> Bool {
    found.count == bytes.count
      && (bytes.isEmpty || memcmp(found.baseAddress!, bytes, bytes.count) == 0)
  }

  func require(_ isTrue: Bool, _ promise: @autoclosure () -> String) {
    if !isTrue, failure == nil { failure = promise() }
  }
}
