/// A stream of fragments and other events from one seed: the same seed gives the same stream on
/// every platform.
struct ReassemblyStream {
  private var random: SeededGenerator
  private let world: ReassemblyWorld
  private let maximumByteCount: Int
  private var now: UInt64

  /// - Parameter maximumByteCount: the largest packet that the world was made for.
  static func run(seed: UInt64, in world: ReassemblyWorld, maximumByteCount: Int = 2048) {
    var stream = ReassemblyStream(seed: seed, world: world, maximumByteCount: maximumByteCount)
    stream.run()
  }

  private init(seed: UInt64, world: ReassemblyWorld, maximumByteCount: Int) {
    random = SeededGenerator(seed: seed)
    self.world = world
    self.maximumByteCount = maximumByteCount
    now = random.next() >> 20
  }

  /// True once in `count`.
  private mutating func once(in count: UInt64) -> Bool {
    random.next() % count == 0
  }

  private mutating func number(_ range: ClosedRange<Int>) -> Int {
    range.lowerBound + Int(random.next() % UInt64(range.count))
  }

  private mutating func run() {
    world.restart(seed: random.next())
    let isFlood = once(in: 250)
    let count = isFlood ? number(60...200) : once(in: 3) ? number(3...10) : number(1...3)
    let sourceCount = once(in: 2) ? number(1...3) : number(1...100)
    let isTidy = once(in: 3)
    var queues: [[(bytes: [UInt8], sender: UInt32)]] = []
    for _ in 0..<count {
      var datagram = datagram(sourceCount: sourceCount)
      if isFlood { datagram.payload = Array(datagram.payload.prefix(number(17...32))) }
      let sender = UInt32(number(1...2))
      var fragments = fragments(of: datagram, isTidy: isTidy)
      // Either most datagrams of a flood are never completed, or none of its packets are released.
      if isFlood, !isTidy, !once(in: 4) { _ = fragments.popLast() }
      queues.append(fragments.map { ($0, sender) })
    }
    feed(queues, isFlood: isFlood)
    while world.completedCount > 0 { world.release(0) }
    now += once(in: 2) ? 29_999_999_999 : 70_000_000_000
    world.expire(at: now)
  }

  // MARK: Datagrams

  private mutating func datagram(sourceCount: Int) -> TestFragment {
    var datagram = TestFragment()
    datagram.isIPv4 = once(in: 2)
    datagram.source = UInt8(number(1...sourceCount))
    datagram.destination = once(in: 20) ? 201 : 200
    datagram.number = [17, 17, 6, 1, 58, 50][number(0...5)]
    // Mostly distinct; sometimes two datagrams share one.
    datagram.identification = UInt32(number(1...(once(in: 4) ? 3 : 1000)))
    datagram.trafficClass = [0, 2, 1, 0xb8][number(0...3)]
    datagram.mayNotBeFragmented = once(in: 8)
    if once(in: 6) { datagram.options = random.bytes(4 * number(1...10)) }
    if once(in: 6), !datagram.isIPv4 { datagram.extensions = extensions() }
    let room = maximumByteCount - 20
    let byteCount =
      once(in: 16)
      ? number(1...(room + 40))
      : once(in: 30)
        ? number((room - 60)...(room + 40))
        : number(9...200)
    datagram.payload = random.pattern(byteCount)
    return datagram
  }

  private mutating func extensions() -> [(number: UInt8, bytes: [UInt8])] {
    (0..<number(1...2)).map { _ in
      let length = once(in: 30) ? number(0...30) : number(0...4)
      let bytes = [0, UInt8(length)] + random.bytes(length * 8 + 6)
      return ([0, 43, 60][number(0...2)], bytes)
    }
  }

  private mutating func fragments(of datagram: TestFragment, isTidy: Bool) -> [[UInt8]] {
    if once(in: 20) {
      // Not a fragment, or a single one that is the whole packet.
      var whole = once(in: 2) ? datagram.whole : datagram
      whole.mayNotBeFragmented = once(in: 2)
      return [whole.bytes]
    }
    let size =
      datagram.payload.count > 400
      ? 8 * number((datagram.payload.count / 800 + 1)...185)
      : 8 * number(1...(datagram.payload.count > 32 ? 8 : 2))
    var fragments = datagram.cut(size)
    for index in fragments.indices { vary(&fragments[index], isTidy: isTidy) }
    var packets = fragments.map(\.bytes)
    if !isTidy {
      for (index, fragment) in fragments.enumerated() where once(in: 10) {
        let next = index + 1 < fragments.count ? fragments[index + 1] : nil
        packets.append(contentsOf: trouble(with: fragment, before: next))
      }
      if once(in: 12) { packets.remove(at: number(0...(packets.count - 1))) }
    }
    switch number(0...3) {
    case 0: break
    case 1: packets.reverse()
    default: packets.shuffle(using: &random)
    }
    return packets
  }

  /// Differences between fragments that are harmless, or nearly so.
  private mutating func vary(_ fragment: inout TestFragment, isTidy: Bool) {
    fragment.timeToLive = UInt8(number(1...255))
    if once(in: 5), fragment.byteOffset > 0 { fragment.options = [] }
    if once(in: 10), fragment.trafficClass & 3 != 0 { fragment.trafficClass |= 3 }
    if !isTidy, once(in: 60) { fragment.trafficClass = UInt8(number(0...255)) }
  }

  /// One more packet, which is a duplicate or wrong in some way.
  private mutating func trouble(
    with original: TestFragment, before next: TestFragment?
  ) -> [[UInt8]] {
    var fragment = original
    switch number(0...14) {
    case 0: return [fragment.bytes]
    case 1: fragment.timeToLive ^= 3
    case 2: fragment.payload[number(0...(fragment.payload.count - 1))] ^= 1
    case 3: fragment.byteOffset += 8 * number(-1...2)
    case 4: fragment.payload += random.bytes(8 * number(1...2))
    case 5: fragment.payload = Array(fragment.payload.prefix(number(0...fragment.payload.count)))
    case 6: fragment.payload = Array(fragment.payload.prefix(fragment.payload.count / 16 * 8))
    case 7: fragment.hasMore.toggle()
    case 8: fragment.byteOffset = 8 * number(8100...8191)
    case 9: fragment.identification += 1
    case 10: return [Array(fragment.bytes.prefix(number(0...fragment.bytes.count)))]
    case 11: return [fragment.bytes + random.bytes(number(1...16))]
    case 12:
      // Two fragments merged into one.
      fragment.payload += next?.payload ?? []
      fragment.hasMore = next?.hasMore ?? true
    case 13: fragment.number = fragment.isIPv4 ? 99 : [44, 60, 59, 6][number(0...3)]
    default:
      var bytes = fragment.bytes
      bytes[number(0...min(bytes.count - 1, 60))] = UInt8(number(0...255))
      return [bytes]
    }
    fragment.byteOffset = max(0, fragment.byteOffset)
    return [fragment.bytes]
  }

  // MARK: Time

  private mutating func feed(_ queues: [[(bytes: [UInt8], sender: UInt32)]], isFlood: Bool) {
    var queues = queues.filter { !$0.isEmpty }
    let isInterleaved = once(in: 2)
    let isSlow = once(in: 4)
    let keepsPackets = once(in: isFlood ? 2 : 5)
    while !queues.isEmpty {
      let turn = isInterleaved ? number(0...(queues.count - 1)) : 0
      let (bytes, sender) = queues[turn].removeFirst()
      if queues[turn].isEmpty { queues.remove(at: turn) }
      world.add(bytes, from: sender, at: now)
      if isSlow { passTime() }
      if once(in: 300) { world.removeAll(from: UInt32(number(1...2))) }
      while world.completedCount > 0, !keepsPackets || once(in: isFlood ? 400 : 70) {
        world.release(number(0...(world.completedCount - 1)))
      }
      if world.failure != nil { return }
    }
  }

  private mutating func passTime() {
    switch number(0...39) {
    case 0...20: now += random.next() % 2_000_000_000
    case 21...23: now += random.next() % 40_000_000_000
    case 24: now -= min(now, random.next() % 50_000_000_000)
    case 25...30: world.expire(at: now)
    default: break
    }
  }
}

extension SeededGenerator {
  /// Bytes that differ at each offset, cheaper than random ones.
  mutating func pattern(_ count: Int) -> [UInt8] {
    let start = next()
    return [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      for index in 0..<count {
        buffer[index] = UInt8(truncatingIfNeeded: (start &+ UInt64(index) &* 0x9e37_79b9) >> 13)
      }
      initialized = count
    }
  }
}
