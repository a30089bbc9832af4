#if !ONE_MODULE
  @testable import Culvert
#endif

/// Datagrams to `near`: honest, replayed, forged and random ones, and their mutations.
extension DoorWorld {
  func writeDatagram(
    into room: UnsafeMutableRawBufferPointer, _ choices: inout Choices
  ) -> Int {
    let start = room.baseAddress!
    var byteCount: Int
    segmentByteCount = 0
    switch choices.below(16) {
    case 0, 1:
      byteCount = choices.below(choices.below(32) == 0 ? 65_535 : 300)
      // Large ones would use up all choices, and their content does not matter.
      choices.fill(start, byteCount: min(byteCount, 300))
    case 2...4 where toNear.count > 0:
      byteCount = toNear.copy(0, into: start)
      toNear.drop()
    case 5 where history.count > 0:
      byteCount = history.copy(choices.below(history.count), into: start)
    case 6: byteCount = initiateByFar(into: start)
    case 7: byteCount = forgeHandshake(into: start, &choices)
    case 8, 9: byteCount = forgeTransport(into: start, &choices)
    case 10: byteCount = sealSegmentsByFar(into: room, &choices)
    default: byteCount = sealByFar(into: start, &choices)
    }
    byteCount = mutate(start, byteCount, limit: room.count, &choices)
    // Sometimes cut into pieces of an arbitrary size, as no honest kernel would do.
    if choices.below(32) == 0 { segmentByteCount = 1 + choices.below(300) }
    return byteCount
  }

  // MARK: Datagrams of `far`, which has a session

  /// A packet of arbitrary bytes, or a valid one, sealed with the session's key.
  private func sealByFar(into start: UnsafeMutableRawPointer, _ choices: inout Choices) -> Int {
    guard let peer = firstPeer(far), peer.pointee.path != nil,
      peer.pointee.keypairs.current.canSend(at: now)
    else {
      wantInitiation(far)
      return forgeTransport(into: start, &choices)
    }
    far.outbound.reset()
    far.tunnel.stamp(&far.outbound)
    guard let room = far.outbound.room(for: 1500) else { return 0 }
    let byteCount = writeInnerPacket(into: room.baseAddress!, &choices)
    far.tunnel.planText(
      &far.outbound, far.outbound.append(byteCount: byteCount, kind: .text), for: &peer.pointee,
      trafficClass: 0, at: now)
    return take(from: far, into: start)
  }

  func initiateByFar(into start: UnsafeMutableRawPointer) -> Int {
    guard let peer = firstPeer(far) else { return 0 }
    far.outbound.reset()
    far.tunnel.stamp(&far.outbound)
    far.tunnel.planInitiation(to: &peer.pointee, in: &far.outbound, at: now, wall: wall)
    return take(from: far, into: start)
  }

  /// The first datagram of an end's batch.
  private func take(from end: DoorEnd, into start: UnsafeMutableRawPointer) -> Int {
    var byteCount = 0
    if end.outbound.seal(), case .datagram(let bytes, _, _) = end.outbound.output(0) {
      start.copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
      byteCount = bytes.count
    }
    end.tunnel.emit(&end.outbound, at: now)
    end.outbound.reset()
    return byteCount
  }

  /// A packet of 10.N.0.0/16 or fd0N::/16, or arbitrary bytes.
  func writeInnerPacket(into start: UnsafeMutableRawPointer, _ choices: inout Choices) -> Int {
    let shape = choices.byte()
    let payload = Int(choices.byte())
    start.initializeMemory(as: UInt8.self, repeating: 0, count: 64 + payload)
    // Usually a source that belongs to `far`.
    let owner = shape >> 2 & 7 < 5 ? 0 : UInt64(shape >> 2 & 3)
    switch shape & 3 {
    case 0, 1:
      let source = IPAddress(ipv4: 0x0a00_0001 | UInt32(owner) << 16)
      let destination = IPAddress(ipv4: 0x0a00_0002 | UInt32(shape >> 5) << 16)
      IPv4Header.write(
        at: start, totalByteCount: 20 + payload, trafficClass: shape & 3, protocol: 17,
        source: source, destination: destination)
      choices.fill(start + 20, byteCount: min(payload, 8))
      return 20 + payload + Int(shape >> 7)
    case 2:
      let source = IPAddress(ipv6High: 0xfd00 << 48 | owner << 48, low: 1)
      let destination = IPAddress(ipv6High: 0xfd00 << 48 | UInt64(shape >> 5) << 48, low: 2)
      IPv6Header.write(
        at: start, payloadByteCount: payload, nextHeader: choices.byte(), source: source,
        destination: destination)
      choices.fill(start + 40, byteCount: min(payload, 16))
      return 40 + payload
    default:
      choices.fill(start, byteCount: min(payload, 64))
      return payload
    }
  }

  // MARK: Datagrams of strangers

  /// A response or cookie reply to an index that `near` knows; everything else is random.
  private func forgeHandshake(
    into start: UnsafeMutableRawPointer, _ choices: inout Choices
  ) -> Int {
    let receiver = someIndex(&choices)
    if choices.below(2) == 0 {
      choices.fill(start, byteCount: WireGuard.cookieReplyByteCount)
      _ = CookieReplyMessage(writingTo: start, receiver: receiver)
      return WireGuard.cookieReplyByteCount
    }
    choices.fill(start, byteCount: WireGuard.responseByteCount)
    _ = ResponseMessage(
      writingTo: start, sender: UInt32(truncatingIfNeeded: choices.word()), receiver: receiver)
    writeMAC1(start, WireGuard.responseByteCount)
    return WireGuard.responseByteCount
  }

  private func forgeTransport(
    into start: UnsafeMutableRawPointer, _ choices: inout Choices
  ) -> Int {
    let byteCount = WireGuard.keepaliveByteCount + choices.below(64)
    choices.fill(start, byteCount: byteCount)
    TransportDataMessage.writeHeader(
      to: start, receiver: someIndex(&choices), counter: choices.word())
    return byteCount
  }

  /// Usually an index in use at `near`.
  private func someIndex(_ choices: inout Choices) -> UInt32 {
    let wanted = choices.below(4)
    var index: UInt32 = 0
    near.forEachPeer { peer in
      let candidate =
        switch wanted {
        case 0: peer.pointee.handshake.localIndex
        case 1: peer.pointee.keypairs.current.localIndex
        case 2: peer.pointee.keypairs.previous.localIndex
        default: peer.pointee.keypairs.next.localIndex
        }
      if candidate != 0 { index = candidate }
    }
    return index != 0 ? index : UInt32(truncatingIfNeeded: choices.word())
  }

  // MARK: Mutation

  private func mutate(
    _ start: UnsafeMutableRawPointer, _ byteCount: Int, limit: Int, _ choices: inout Choices
  ) -> Int {
    let strategy = choices.byte()
    var byteCount = byteCount
    switch strategy & 0x0f {
    case 0...5: return byteCount
    case 6: byteCount = choices.below(byteCount + 1)
    case 7:
      let more = min(limit - byteCount, 1 + choices.below(strategy & 0x40 == 0 ? 64 : 1024))
      (start + byteCount).initializeMemory(as: UInt8.self, repeating: 0, count: more)
      choices.fill(start + byteCount, byteCount: min(more, 16))
      byteCount += more
    case 8 where byteCount >= 4: start.storeBytes(of: choices.byte() & 7, as: UInt8.self)
    case 9 where byteCount >= 44: writeLowOrderPoint(start, &choices)
    default:
      guard byteCount > 0 else { return 0 }
      for _ in 0...choices.below(3) {
        let place = choices.below(min(byteCount, 256))
        let old = start.load(fromByteOffset: place, as: UInt8.self)
        let bits = choices.byte()
        start.storeBytes(of: old ^ (bits == 0 ? 1 : bits), toByteOffset: place, as: UInt8.self)
      }
    }
    // A valid mac1, so that the message passes the first check and reaches the code after it.
    if strategy & 0x30 != 0 { writeMAC1(start, byteCount) }
    return byteCount
  }

  /// mac1 for `near`'s key, which anyone who knows its public key can compute, for a message of any
  /// length.
  private func writeMAC1(_ start: UnsafeMutableRawPointer, _ byteCount: Int) {
    guard byteCount > Cookie.trailerByteCount else { return }
    withUnsafeTemporaryAllocation(byteCount: WireGuard.keyByteCount, alignment: 8) { key in
      Cookie.deriveMAC1Key(into: key.baseAddress!, publicKey: near.tunnel.identity.publicKey)
      Cookie.computeMAC1(
        into: start + byteCount - Cookie.trailerByteCount, message: start, byteCount: byteCount,
        key: key.baseAddress!)
    }
  }

  /// R31: points whose product with anything is zero, in place of the ephemeral key.
  private func writeLowOrderPoint(
    _ start: UnsafeMutableRawPointer, _ choices: inout Choices
  ) {
    let offset =
      start.load(as: UInt8.self) == MessageType.response.rawValue
      ? ResponseMessage.ephemeralOffset : InitiationMessage.ephemeralOffset
    let point = start + offset
    let isLarge = choices.below(2) == 0
    point.initializeMemory(as: UInt8.self, repeating: isLarge ? 0xff : 0, count: 32)
    // 0, 1; p - 1, p, p + 1.
    point.storeBytes(of: isLarge ? 0xec + choices.byte() % 3 : choices.byte() & 1, as: UInt8.self)
    if isLarge { point.storeBytes(of: 0x7f, toByteOffset: 31, as: UInt8.self) }
  }
}
