#if !ONE_MODULE
  @testable import Culvert
#endif

/// A tunnel under attack (`near`), an honest one that it has a session with (`far`), and anyone who
/// sends datagrams to `near`. `Choices` decides what happens next; the promises are checked after
/// every step. Nothing is allocated after `init`.
///
/// The fuzzer, the tests and the allocation count share it.
final class DoorWorld {
  let near = DoorEnd(seed: 1)
  let far = DoorEnd(seed: 2)
  /// Datagrams that `far` or `near` has sent and that have not arrived.
  let toNear = DoorMail()
  let toFar = DoorMail()
  /// Datagrams that were sent to `near`, for replay.
  let history = DoorMail()
  let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_535, alignment: 16)

  var now = DoorWorld.start
  static let start = Instant(nanoseconds: 1_000 * nanosecondsPerSecond)
  var wall: WallTime {
    WallTime(seconds: 1_700_000_000 + now.nanoseconds / nanosecondsPerSecond, nanoseconds: 0)
  }

  /// Datagrams passed to `near` since `init`.
  private(set) var datagramCount = 0
  /// Packets that `near` has joined since `init`.
  var joinedCount = 0
  /// Segments that `near` has cut packets into.
  var segmentCount = 0
  /// Set by `writeDatagram`: the size of the datagrams coalesced in the last one.
  var segmentByteCount = 0
  private let verdicts = UnsafeMutablePointer<UInt64>.allocate(capacity: Int(Verdict.count))
  /// The first promise that was broken.
  private(set) var failure: StaticString?

  static let nearKey = Key(word0: 0x11, word1: 0x22, word2: 0x33, word3: 0x44)
  static let farKey = Key(word0: 0x55, word1: 0x66, word2: 0x77, word3: 0x88)
  static let silentKey = Key(word0: 9, word1: 0xaa, word2: 0xbb, word3: 0x0c)
  static let placelessKey = Key(word0: 9, word1: 0xaa, word2: 0xcc, word3: 0x0c)

  init() {
    verdicts.initialize(repeating: 0, count: Int(Verdict.count))
    near.inbound.preparesJoining = true
    restart()
    near.tunnel.setPrivateKey(bytes(of: DoorWorld.nearKey), at: now)
    far.tunnel.setPrivateKey(bytes(of: DoorWorld.farKey), at: now)
    configureFar()
    for kind in 0..<DoorWorld.peerKinds { configurePeer(kind) }
    near.tunnel.setUp(true, at: now)
    far.tunnel.setUp(true, at: now)
    // The first session, initiated by `far` and confirmed by its first packet.
    wantInitiation(far)
    for _ in 0..<4 {
      advance(far, into: toNear)
      deliverMail(to: near, from: toNear)
      advance(near, into: toFar)
      deliverMail(to: far, from: toFar)
    }
    var isReady = false
    near.forEachPeer { if $0.pointee.keypairs.current.exists { isReady = true } }
    expect(isReady, "no session to start with")
    near.save()
    far.save()
  }

  deinit {
    scratch.deallocate()
    verdicts.deallocate()
  }

  /// Restores the saved state, with the first session.
  func restore() {
    restart()
    near.restore()
    far.restore()
  }

  private func restart() {
    now = DoorWorld.start
    toNear.clear()
    toFar.clear()
    history.clear()
  }

  func expect(_ isTrue: Bool, _ promise: StaticString) {
    if !isTrue, failure == nil { failure = promise }
  }

  // MARK: Steps

  /// A full run: from the first session, through some hundred steps, to an empty tunnel.
  func run(seed: UInt64) {
    var choices = Choices(seed: seed)
    restore()
    for _ in 0..<200 where !step(&choices) { return }
    checkEmptied()
    addVerdicts()
  }

  /// How often a verdict was given in all seeded runs.
  func verdictCount(_ verdict: Verdict) -> UInt64 { verdicts[Int(verdict.rawValue)] }

  /// Each run begins with the counters of the saved state.
  private func addVerdicts() {
    var rawValue: UInt8 = 0
    while let verdict = Verdict(rawValue: rawValue) {
      verdicts[Int(rawValue)] += near.tunnel.counters[verdict]
      rawValue += 1
    }
  }

  /// Performs one step. False if a promise is broken.
  func step(_ choices: inout Choices) -> Bool {
    switch choices.below(64) {
    case 0...31: attack(&choices)
    case 32...43: advanceNear(&choices)
    case 44...49: sendFromNear(&choices)
    case 50...57:
      deliverMail(to: far, from: toFar)
      advance(far, into: toNear)
    case 58, 59: passTime(&choices)
    case 60: configure(&choices)
    case 61: wantInitiation(choices.below(2) == 0 ? near : far)
    case 62 where choices.below(2) == 0: flood()
    case 62:
      // R5: as if the ring were filling.
      let end = choices.below(2) == 0 ? near : far
      end.tunnel.loadEnd = now.advanced(by: Policy.loadHysteresis)
    default: waitLong(&choices)
    }
    check()
    return failure == nil
  }

  /// A batch of datagrams from anywhere arrives at `near`.
  private func attack(_ choices: inout Choices) {
    near.inbound.reset()
    let wanted = choices.below(16) == 0 ? 8 : 1 + choices.below(4)
    for _ in 0..<wanted {
      guard let room = near.inbound.room else { break }
      let byteCount = writeDatagram(into: room, &choices)
      history.push(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(room)[..<byteCount]))
      let traits = choices.byte()
      near.inbound.append(
        byteCount: byteCount, from: path(Int(traits >> 5)), trafficClass: traits & 3,
        isTruncated: traits & 0x3c == 0x3c, segmentByteCount: segmentByteCount)
    }
    let before = near.total
    near.fenceInbound(true)
    near.tunnel.accept(&near.inbound, at: now)
    // The cipher may read beyond the end of a datagram.
    near.fenceInbound(false)
    near.inbound.open()
    // Meanwhile, the control path may change anything. The packets staged for a removed peer count.
    let dropped = nearCount(.droppedFromStaging)
    if choices.below(64) == 0 { configure(&choices) }
    let droppedWithPeers = nearCount(.droppedFromStaging) - dropped
    near.tunnel.deliver(&near.inbound, at: now)
    checkDelivered(before + droppedWithPeers)
    checkJoined()
    near.inbound.reset()
  }

  /// More initiations than the ring holds.
  private func flood() {
    let byteCount = initiateByFar(into: scratch.baseAddress!)
    for _ in 0..<4 {
      near.inbound.reset()
      while near.inbound.count < DoorEnd.limits.batchPackets, let room = near.inbound.room {
        room.copyMemory(from: UnsafeRawBufferPointer(rebasing: scratch[..<byteCount]))
        near.inbound.append(
          byteCount: byteCount, from: path(0), trafficClass: 0, isTruncated: false)
      }
      let before = near.total
      near.tunnel.accept(&near.inbound, at: now)
      near.inbound.open()
      near.tunnel.deliver(&near.inbound, at: now)
      checkDelivered(before)
    }
    near.inbound.reset()
  }

  private func checkDelivered(_ before: UInt64) {
    let count = near.inbound.count
    datagramCount += count
    // Those that the table had no room for count as truncated.
    let arrived = UInt64(count) + near.inbound.surplusCount
    expect(near.total == before + arrived, "not one verdict per datagram")
    for index in 0..<count {
      guard let packet = near.inbound.delivered(index) else { continue }
      let datagram = near.inbound.packets[index]
      expect(
        packet.count > 0
          && packet.count <= Int(datagram.byteCount) - WireGuard.overheadByteCount,
        "a delivered packet exceeds its datagram (R14)")
      guard let inner = InnerPacket(at: packet.baseAddress!, byteCount: packet.count) else {
        expect(false, "a delivered packet is malformed")
        continue
      }
      expect(inner.byteCount == packet.count, "padding was delivered (R14)")
      let session = near.inbound.sessions[datagram.session]
      expect(
        near.tunnel.allowedIPs.route(inner.source) == session.peer.index,
        "a delivered packet's source is another peer's (R2)")
      if datagram.counter & 7 == 7 { near.tunnel.didFailToDeliver() }
    }
  }
}
