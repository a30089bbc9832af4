#if !ONE_MODULE
  @testable import Culvert
#endif

/// Reassembly the slow way: an array of datagrams in order of age, each with a list of its
/// fragments. It shares only the names of the verdicts with the core.
struct ReassemblyModel {
  enum Outcome: Equatable {
    case whole([UInt8])
    case held
    case complete([UInt8])
    case dropped(FragmentVerdict)
  }

  enum Expiry: Equatable {
    case silent
    case timeExceeded([UInt8])
  }

  struct Piece {
    let fragment: FragmentModel
    var start: Int { fragment.offset }
    var end: Int { fragment.offset + fragment.data.count }
  }

  struct Datagram {
    let key: [UInt8]
    let source: [UInt8]
    let sender: UInt32
    let isIPv4: Bool
    var since: UInt64
    var pieces: [Piece] = []
    var isPoisoned = false

    var seconds: UInt64 { isIPv4 ? 30 : 60 }
    func isOver(_ now: UInt64) -> Bool { now >= since + seconds * 1_000_000_000 }
  }

  let maximumByteCount: Int
  /// Oldest first.
  private(set) var waiting: [Datagram] = []
  /// Packets handed out and not released.
  private(set) var completedCount = 0
  private(set) var counts: [FragmentVerdict: UInt64] = [:]
  private var latest: UInt64 = 0
  /// Credit for ICMP errors in nanoseconds: 100 ms each, 16 at most.
  private var credit: UInt64 = 1_600_000_000
  private var creditAt: UInt64 = 0

  init(maximumByteCount: Int) {
    self.maximumByteCount = maximumByteCount
  }

  // MARK: Packets

  mutating func add(_ bytes: [UInt8], from sender: UInt32, at now: UInt64) -> Outcome {
    switch FragmentModel.read(bytes, maximumByteCount: maximumByteCount) {
    case .refused(let verdict): return drop(verdict)
    case .whole(let packet, let isAtomic):
      counts[isAtomic ? .atomic : .whole, default: 0] += 1
      return .whole(packet)
    case .fragment(let fragment): return add(fragment, from: sender, at: now)
    }
  }

  private mutating func add(
    _ fragment: FragmentModel, from sender: UInt32, at now: UInt64
  ) -> Outcome {
    tick(now)
    let key = fragment.key + [UInt8](withUnsafeBytes(of: sender) { Array($0) })
    if let index = waiting.firstIndex(where: { $0.key == key && $0.isOver(now) }) {
      remove(index, .expired)
    }
    if !waiting.contains(where: { $0.key == key }) {
      guard makeRoom() else { return drop(.noSlot) }
      waiting.append(
        Datagram(
          key: key, source: fragment.source, sender: sender, isIPv4: fragment.isIPv4, since: now))
    }
    let index = waiting.firstIndex { $0.key == key }!
    guard !waiting[index].isPoisoned else { return drop(.poisoned) }
    if let verdict = refusal(of: fragment, among: waiting[index].pieces) {
      if verdict != .duplicate { waiting[index].isPoisoned = true }
      return drop(verdict)
    }
    waiting[index].pieces.append(Piece(fragment: fragment))
    return finish(index)
  }

  private func refusal(of fragment: FragmentModel, among pieces: [Piece]) -> FragmentVerdict? {
    let piece = Piece(fragment: fragment)
    let last = pieces.first { $0.fragment.isLast }
    if fragment.isLast {
      if let last, last.end != piece.end { return .differentEnd }
      if last == nil, pieces.contains(where: { $0.end > piece.end }) { return .beyondEnd }
    } else if let last, piece.end >= last.end {
      return .beyondEnd
    }
    for other in pieces where other.start < piece.end && piece.start < other.end {
      let isSame =
        other.start == piece.start && other.fragment.data == fragment.data
        && other.fragment.isLast == fragment.isLast
      return isSame ? .duplicate : .overlap
    }
    // Either no fragment is Not-ECT, or all are.
    let isCapable = fragment.mark != 0
    if pieces.contains(where: { ($0.fragment.mark != 0) != isCapable }) {
      return .brokenCongestionMark
    }
    // As many as fit on links with an MTU of 68 bytes, of which 20 are header.
    if pieces.count >= (maximumByteCount - 20) / 48 + 1 { return .tooManyFragments }
    return nil
  }

  private mutating func finish(_ index: Int) -> Outcome {
    let pieces = waiting[index].pieces
    guard let last = pieces.first(where: { $0.fragment.isLast }),
      pieces.reduce(0, { $0 + $1.fragment.data.count }) == last.end,
      let first = pieces.first(where: { $0.start == 0 })
    else {
      counts[.held, default: 0] += 1
      return .held
    }
    let payload = pieces.sorted { $0.start < $1.start }.flatMap(\.fragment.data)
    let isMarked = pieces.contains { $0.fragment.mark == 3 }
    let packet = first.fragment.packet(around: payload, isMarked: isMarked)
    let lengthField = waiting[index].isIPv4 ? packet.count : packet.count - 40
    if lengthField > 65_535 || packet.count > maximumByteCount {
      waiting[index].isPoisoned = true
      return drop(lengthField > 65_535 ? .impossibleLength : .tooLarge)
    }
    waiting.remove(at: index)
    completedCount += 1
    counts[.reassembled, default: 0] += 1
    return .complete(packet)
  }

  private mutating func drop(_ verdict: FragmentVerdict) -> Outcome {
    counts[verdict, default: 0] += 1
    return .dropped(verdict)
  }

  mutating func release() {
    completedCount -= 1
  }

  // MARK: Room

  private mutating func makeRoom() -> Bool {
    guard waiting.count + completedCount == 64 else { return true }
    guard !waiting.isEmpty else { return false }
    // Oldest first, so of two sources with the most, the first is the one with the older datagram.
    var shares: [(source: [UInt8], sender: UInt32, indices: [Int])] = []
    for (index, datagram) in waiting.enumerated() {
      if let share = shares.firstIndex(where: {
        $0.source == datagram.source && $0.sender == datagram.sender
      }) {
        shares[share].indices.append(index)
      } else {
        shares.append((datagram.source, datagram.sender, [index]))
      }
    }
    let most = shares.map(\.indices.count).max()!
    let greedy = shares.first { $0.indices.count == most }!
    remove(most > 16 ? greedy.indices[0] : 0, .evicted)
    return true
  }

  private mutating func remove(_ index: Int, _ verdict: FragmentVerdict) {
    waiting.remove(at: index)
    counts[verdict, default: 0] += 1
  }

  mutating func removeAll(from sender: UInt32?) {
    while let index = waiting.firstIndex(where: { sender == nil || $0.sender == sender }) {
      remove(index, .removed)
    }
  }

  // MARK: Time

  private mutating func tick(_ now: UInt64) {
    if now < latest {
      for index in waiting.indices { waiting[index].since = min(waiting[index].since, now) }
    }
    latest = now
  }

  var nextDeadline: UInt64? {
    waiting.map { $0.since + $0.seconds * 1_000_000_000 }.min()
  }

  /// Expires IPv4 datagrams before IPv6 ones.
  mutating func expire(at now: UInt64) -> Expiry? {
    tick(now)
    guard
      let index = waiting.firstIndex(where: { $0.isIPv4 && $0.isOver(now) })
        ?? waiting.firstIndex(where: { $0.isOver(now) })
    else { return nil }
    let datagram = waiting[index]
    remove(index, .expired)
    guard !datagram.isPoisoned, let first = datagram.pieces.first(where: { $0.start == 0 }) else {
      return .silent
    }
    if now >= creditAt {
      credit = min(1_600_000_000, credit + min(now - creditAt, 1 << 40))
    } else {
      // A clock that goes back takes back the credit that it has given.
      credit -= min(credit, creditAt - now)
    }
    creditAt = now
    guard credit >= 100_000_000, let error = first.fragment.timeExceeded() else { return .silent }
    credit -= 100_000_000
    counts[.timeExceededSent, default: 0] += 1
    return .timeExceeded(error)
  }
}
