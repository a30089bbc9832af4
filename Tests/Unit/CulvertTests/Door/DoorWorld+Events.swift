#if !ONE_MODULE
  @testable import Culvert
#endif

/// All that happens apart from arriving datagrams: time, traffic, configuration.
extension DoorWorld {
  // MARK: Timers and handshakes

  /// `near`'s control path: one verdict for every handshake message, and every sent datagram is
  /// counted.
  func advanceNear(_ choices: inout Choices) {
    let queued = near.tunnel.queuedHandshakes
    let total = near.total
    let others =
      nearCount(.peerUnreachable) + nearCount(.lowOrderPoint)
      + nearCount(.droppedFromStaging)
    near.outbound.reset()
    near.tunnel.runTimers(into: &near.outbound, at: now, wall: wall)
    let handled = UInt64(queued - near.tunnel.queuedHandshakes)
    let alsoCounted =
      nearCount(.peerUnreachable) + nearCount(.lowOrderPoint) + nearCount(.droppedFromStaging)
      - others
    expect(
      near.total >= total + handled && near.total <= total + handled + alsoCounted,
      "not one verdict per handshake message")
    finishNear(&choices)
  }

  /// Packets from `near`'s TUN.
  func sendFromNear(_ choices: inout Choices) {
    near.outbound.reset()
    if choices.below(32) == 0 { appendOversized() }
    if choices.below(8) == 0 { appendOwnDatagram() }
    for _ in 0...choices.below(3) {
      guard let room = near.outbound.room(for: 1500) else { break }
      if choices.below(3) == 0 {
        let packet = writeSegments(into: room.baseAddress!, &choices)
        near.outbound.append(byteCount: packet.byteCount, offload: packet.offload)
      } else {
        near.outbound.append(byteCount: writeInnerPacket(into: room.baseAddress!, &choices))
      }
    }
    // A packet that is staged gets a verdict for each of its segments.
    var segments = 0
    for index in 0..<near.outbound.count where !near.outbound.packets[index].offload.isNone {
      segments += near.outbound.segmenter(index)?.segmentCount ?? 0
    }
    segmentCount += segments
    let total = near.total
    let dropped = nearCount(.droppedFromStaging)
    near.tunnel.plan(&near.outbound, at: now)
    var planned: UInt64 = 0
    for index in 0..<near.outbound.count where near.outbound.packets[index].kind == .text {
      planned += 1
    }
    let verdicts = near.total - total + planned
    let displaced = nearCount(.droppedFromStaging) - dropped
    let count = UInt64(near.outbound.count)
    expect(
      verdicts >= count && verdicts <= count + displaced + UInt64(segments),
      "not one verdict per packet")
    finishNear(&choices)
  }

  /// A packet above the limits' MTU, which a TUN can deliver for a moment after its MTU was raised.
  private func appendOversized() {
    guard let room = near.outbound.room(for: 65_535) else { return }
    IPv4Header.write(
      at: room.baseAddress!, totalByteCount: room.count, protocol: 17,
      source: IPAddress(ipv4: 0x0a63_0001), destination: IPAddress(ipv4: 0x0a00_0002))
    near.outbound.append(byteCount: room.count)
  }

  /// A datagram to `far` that the routing table has led back into the tunnel (R66).
  private func appendOwnDatagram() {
    let headers = IPv4Header.minimumByteCount + UDPHeader.byteCount
    guard toFar.count > 0, let endpoint = firstPeer(near)?.pointee.path?.endpoint,
      endpoint.address.family == .ipv4,
      let room = near.outbound.room(for: headers + DoorMail.datagramByteCount)
    else { return }
    let byteCount = headers + toFar.copy(0, into: room.baseAddress! + headers)
    IPv4Header.write(
      at: room.baseAddress!, totalByteCount: byteCount, protocol: 17,
      source: IPAddress(ipv4: 0xc633_6464), destination: endpoint.address)
    UDPHeader.write(
      at: room.baseAddress! + IPv4Header.minimumByteCount,
      totalByteCount: byteCount - IPv4Header.minimumByteCount, source: 51_820,
      destination: endpoint.port)
    near.outbound.append(byteCount: byteCount)
  }

  private func finishNear(_ choices: inout Choices) {
    let total = near.total
    var sent: UInt64 = 0
    while near.outbound.seal() {
      checkRuns()
      for index in 0..<near.outbound.outputCount {
        guard case .datagram(let bytes, _, _) = near.outbound.output(index) else { continue }
        sent += 1
        switch choices.below(16) {
        case 0: near.outbound.didFail(index)
        case 1: near.outbound.didLoseSource(index)
        case 2: break  // lost on the way
        case 3: near.outbound.didRefuseSegments(index)
        default: toFar.push(bytes)
        }
      }
    }
    near.tunnel.emit(&near.outbound, at: now)
    expect(near.total == total + sent, "not one verdict per datagram sent")
    near.outbound.reset()
  }

  func advance(_ door: DoorEnd, into mail: DoorMail) {
    door.end.runTimers(at: now, wall: wall) { step, _ in
      guard step == .sealed else { return }
      for index in 0..<door.outbound.outputCount {
        if case .datagram(let bytes, _, _) = door.outbound.output(index) { mail.push(bytes) }
      }
    }
  }

  /// Delivers all datagrams in flight to an end.
  func deliverMail(to door: DoorEnd, from mail: DoorMail) {
    door.inbound.reset()
    while mail.count > 0, let room = door.inbound.room {
      let byteCount = mail.copy(0, into: room.baseAddress!)
      mail.drop()
      door.inbound.append(
        byteCount: byteCount, from: path(0), trafficClass: 0, isTruncated: false)
    }
    door.end.receive(0, at: now) { _, _ in }
  }

  func wantInitiation(_ end: DoorEnd) {
    guard let peer = firstPeer(end) else { return }
    peer.pointee.timers.forgetInitiation()
    peer.pointee.timers.wantInitiation(at: now)
    end.tunnel.reschedule(&peer.pointee)
  }

  func passTime(_ choices: inout Choices) {
    let second = nanosecondsPerSecond
    switch choices.below(10) {
    case 0:
      let deadline = near.tunnel.nextDeadline(at: now)
      if let instant = deadline.instant, instant > now { now = instant }
    case 1: now = now.advanced(by: nanosecondsPerMillisecond)
    case 2: now = now.advanced(by: second / 3)
    case 3: now = now.advanced(by: 5 * second)
    case 4: now = now.advanced(by: 25 * second)
    case 5: now = now.advanced(by: 121 * second)
    case 6: now = now.advanced(by: 200 * second)
    case 7: now = now.advanced(by: 600 * second)
    // R24: a clock that jumps back.
    case 8: now = Instant(nanoseconds: now.nanoseconds - min(now.nanoseconds, 10 * second))
    default: now = now.advanced(by: UInt64(choices.byte()) * nanosecondsPerMillisecond)
    }
  }

  /// One deadline after the other, as on an unattended interface: retries, giving up, wiping.
  func waitLong(_ choices: inout Choices) {
    for _ in 0..<choices.below(64) {
      guard let instant = near.tunnel.nextDeadline(at: now).instant else { return }
      now = max(now, instant)
      advanceNear(&choices)
    }
  }

  // MARK: Configuration

  static let peerKinds = 5

  func configure(_ choices: inout Choices) {
    switch choices.below(16) {
    case 0: near.tunnel.setUp(false, at: now)
    case 1: near.tunnel.setUp(true, at: now)
    case 2:
      let key = choices.below(2) == 0 ? DoorWorld.nearKey : Key.zero
      near.tunnel.setPrivateKey(bytes(of: key), at: now)
    case 3: near.tunnel.setPrivateKey(bytes(of: DoorWorld.nearKey), at: now)
    case 4: near.tunnel.removeAllPeers()
    case 5, 6:
      let id = near.tunnel.findPeer(publicKey(choices.below(DoorWorld.peerKinds)))
      if let id { near.tunnel.removePeer(id) }
    case 7:
      guard let id = near.tunnel.firstPeer else { return }
      choices.fill(scratch.baseAddress!, byteCount: WireGuard.keyByteCount)
      near.tunnel.setPresharedKey(scratch.baseAddress!, of: id)
    case 8:
      guard let id = near.tunnel.firstPeer else { return }
      near.tunnel.setPersistentKeepalive(UInt16(choices.byte()), of: id, at: now)
    case 9: near.tunnel.setMTU(choices.below(2000))
    default: configurePeer(choices.below(DoorWorld.peerKinds))
    }
    near.tunnel.setUp(true, at: now)
  }

  func configureFar() {
    guard let near = try? far.tunnel.addPeer(near.tunnel.identity.publicKey) else { return }
    far.tunnel.setEndpoint(path(0).endpoint, of: near)
    allow(IPAddress(ipv4: 0), length: 0, far)
    allow(IPAddress(ipv6High: 0, low: 0), length: 0, far)
    far.tunnel.commitAllowedIPs(to: near)
  }

  /// 0: `far`. 1: one that never answers. 2: one without an endpoint. 3 and 4: keys of low order.
  func configurePeer(_ kind: Int) {
    guard let id = try? near.tunnel.addPeer(publicKey(kind)) else { return }
    if kind != 2 { near.tunnel.setEndpoint(path(kind).endpoint, of: id) }
    near.tunnel.stageReplaceAllowedIPs()
    allow(IPAddress(ipv4: 0x0a00_0000 | UInt32(kind) << 16), length: 16, near)
    allow(IPAddress(ipv6High: 0xfd00 << 48 | UInt64(kind) << 48, low: 0), length: 16, near)
    // The endpoints are inside, so that datagrams can loop.
    if kind == 0 { allow(IPAddress(ipv4: 0xc633_6400), length: 24, near) }
    near.tunnel.commitAllowedIPs(to: id)
    near.tunnel.peerIsConfigured(id, at: now)
  }

  private func allow(_ address: IPAddress, length: Int, _ end: DoorEnd) {
    guard let prefix = IPPrefix(address, length: length) else { return }
    _ = try? end.tunnel.stageAllowedIP(prefix, add: true)
  }

  private func publicKey(_ kind: Int) -> Key {
    switch kind {
    case 0: far.tunnel.identity.publicKey
    case 1: DoorWorld.silentKey
    case 2: DoorWorld.placelessKey
    case 3: .zero
    default: Key(word0: 1, word1: 0, word2: 0, word3: 0)
    }
  }

  /// Path 0 is `far`'s; the others are elsewhere, in both families.
  func path(_ number: Int) -> Path {
    if number & 4 != 0 {
      return Path(
        endpoint: Endpoint(
          address: IPAddress(ipv6High: 0xfe80 << 48, low: UInt64(number)), port: 51_820, scope: 2),
        source: IPAddress(ipv6High: 0xfe80 << 48, low: 1), interface: 2)
    }
    return Path(
      to: Endpoint(address: IPAddress(ipv4: 0xc633_6401 + UInt32(number & 3)), port: 51_820))
  }

  /// A key's bytes in `scratch`, valid until the next use of it.
  func bytes(of key: Key) -> UnsafeRawPointer {
    key.write(to: scratch.baseAddress!)
    return UnsafeRawPointer(scratch.baseAddress!)
  }

  func firstPeer(_ end: DoorEnd) -> UnsafeMutablePointer<Peer>? {
    end.tunnel.firstPeer.flatMap { end.tunnel.peer($0) }
  }

  func nearCount(_ verdict: Verdict) -> UInt64 { near.tunnel.counters[verdict] }
}
