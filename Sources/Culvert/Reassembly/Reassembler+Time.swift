/// The end of datagrams that never become whole.
extension Reassembler {
  /// Forgets one datagram whose time is over, and says so once; nil when there is none. Its sender
  /// is told only where the first fragment is held (F9), and not too often.
  public mutating func expire(at now: Instant) -> Expiry? {
    observe(now)
    let (ipv4, ipv6) = (oldest(.ipv4), oldest(.ipv6))
    let slot: Int
    if ipv4 < Reassembler.slots, datagrams[ipv4].isOver(at: now) {
      slot = ipv4
    } else if ipv6 < Reassembler.slots, datagrams[ipv6].isOver(at: now) {
      slot = ipv6
    } else {
      return nil
    }
    forget(slot, .expired)
    return error(about: slot, at: now)
  }

  /// The first fragment lies as it came, and what an error puts before it fits in the headroom.
  private mutating func error(about slot: Int, at now: Instant) -> Expiry {
    let datagram = datagrams + slot
    guard
      datagram.pointee.headerByteCount != 0, !datagram.pointee.isPoisoned,
      allowance.isEnough(at: now)
    else { return .silent }
    let region = payload(of: slot) - Reassembler.payloadByteOffset
    guard
      let error = ICMPError.write(
        .reassemblyTimeExceeded, in: region,
        packetByteOffset: Reassembler.payloadByteOffset &- datagram.pointee.headerByteCount,
        packetByteCount: datagram.pointee.firstByteCount)
    else { return .silent }
    allowance.pay()
    counters.add(.timeExceededSent)
    return .timeExceeded(
      UnsafeMutableRawBufferPointer(start: region + error.byteOffset, count: error.byteCount))
  }

  /// Forgets what came from one sender: a peer that was removed (F10). Packets that are whole stay
  /// until they are released.
  public mutating func removeAll(from sender: UInt32) {
    forgetAll { $0.key.sender == sender }
  }

  /// The same of all senders for which `isGone` says so.
  public mutating func removeAll(fromSenders isGone: (UInt32) -> Bool) {
    forgetAll { isGone($0.key.sender) }
  }

  /// Forgets everything but the packets that are whole.
  public mutating func removeAll() {
    forgetAll { _ in true }
  }

  private mutating func forgetAll(where isMeant: (borrowing FragmentedDatagram) -> Bool) {
    var taken = ~(free | completed)
    while taken != 0 {
      let slot = taken.trailingZeroBitCount
      taken &= taken &- 1
      if isMeant(datagrams[slot]) { forget(slot, .removed) }
    }
  }

  /// A clock that has gone back would keep datagrams for as long as it went: their times then run
  /// anew (R24). So a list in order of age is one in order of deadlines, always.
  @inline(__always)
  mutating func observe(_ now: Instant) {
    if now < latest { goBack(to: now) }
    latest = now
  }

  private func goBack(to now: Instant) {
    var taken = ~(free | completed)
    while taken != 0 {
      let slot = taken.trailingZeroBitCount
      taken &= taken &- 1
      datagrams[slot].since = min(datagrams[slot].since, now)
    }
  }
}
