/// Whole handshakes with fixed keys and entropy, byte by byte: Tests/Selftest computes the same
/// with an implementation of its own.
extension SelftestRun {
  @_optimize(size)
  mutating func handshake(hasPresharedKey: Bool) {
    var loopback = Loopback(
      carvingFrom: &arena, at: Instant(nanoseconds: 1_800_000_000_123_456_789))
    loopback.start(isSeeded: false, hasPresharedKey: hasPresharedKey)
    loopback.setCipher(.composed(stride: 512), of: Loopback.responder)
    let (one, two) = (Loopback.initiator, Loopback.responder)
    // An initiation, which comes twice and so finds the responder under load; its cookie, with
    // which the next one is taken, and that again only once; the response; the packet that has
    // waited.
    loopback.stage(byteCount: 100)
    for step in 0..<6 {
      if step == 3 {
        if let due = loopback.nextDeadline(of: one).instant { loopback.now = due }
        digest.add(loopback.now.nanoseconds)
      }
      let side = step == 1 || step == 4 ? two : one
      loopback.advance(side)
      carry(&loopback, from: side, copies: step % 3 == 0 ? 2 : 1)
    }
    // More in both directions, all of it twice: the second one is a replay.
    for index in 0..<9 {
      loopback.fill(2, byteCount: 20 + 175 * index)
      loopback.plan(index & 1)
      carry(&loopback, from: index & 1, copies: 2)
    }
    digest.add(loopback.count(.replayed, of: one))
    digest.add(loopback.count(.replayed, of: two))
  }

  /// Hashes the datagrams, and the packets that come out of them.
  @inline(never) @_optimize(size)
  private mutating func carry(_ loopback: inout Loopback, from side: Int, copies: Int) {
    loopback.carry(from: side, copies: copies)
    for index in 0..<loopback.inbound.count {
      digest.add(
        loopback.inbound.datagram(index),
        byteCount: Int(loopback.inbound.packets[index].byteCount))
    }
    for index in 0..<loopback.inbound.count {
      guard let packet = loopback.inbound.delivered(index) else { continue }
      digest.add(packet.baseAddress!, byteCount: packet.count)
    }
  }
}
