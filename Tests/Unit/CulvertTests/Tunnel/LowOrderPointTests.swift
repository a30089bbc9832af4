import Testing

@testable import Culvert

/// Points of low order on Curve25519 and its twist: the product with any private key is zero.
@Suite struct LowOrderPointTests {
  /// cr.yp.to/ecdh.html, "validate": all seven, each also with the bit that RFC 7748 masks.
  static let points: [[UInt8]] = {
    let short = { (first: UInt8) in [first] + [UInt8](repeating: 0, count: 31) }
    let long = { (first: UInt8) in [first] + [UInt8](repeating: 0xff, count: 30) + [0x7f] }
    let order8: [[UInt8]] = [
      [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
      ],
      [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
      ],
    ]
    let all = [short(0), short(1), long(0xec), long(0xed), long(0xee)] + order8
    return all + all.map { $0.dropLast() + [$0[31] | 0x80] }
  }()

  static func key(_ bytes: [UInt8]) -> Key {
    bytes.withUnsafeBytes { Key(at: $0.baseAddress!) }
  }

  @Test(arguments: LowOrderPointTests.points)
  func R31_nothingIsSentToAPeerWithALowOrderKey(_ point: [UInt8]) throws {
    let node = TunnelNode(seed: 1, endpoint: Endpoint(address: ipv4(192, 0, 2, 1), port: 1))
    let id = try node.addPeer(
      LowOrderPointTests.key(point),
      allowed: [#require(IPPrefix(ipv4(10, 0, 0, 2), length: 32))], endpoint: TunnelPair.elsewhere)
    node.tunnel.setPersistentKeepalive(5, of: id, at: Instant(nanoseconds: 1))
    var now = Instant(nanoseconds: nanosecondsPerSecond)
    let wall = WallTime(seconds: 1_800_000_000, nanoseconds: 0)
    var emissions: [Emission] = []
    for _ in 0..<20 {
      let packet = TestPacket.ipv4(from: ipv4(10, 0, 0, 1), to: ipv4(10, 0, 0, 2))
      emissions += node.send([packet], at: now)
      emissions += node.settle(at: now, wall: wall)
      now = now.advanced(by: 6 * nanosecondsPerSecond)
    }
    #expect(emissions.isEmpty)
    #expect(node.count(.lowOrderPoint) > 1)
  }

  /// Each try costs a key agreement: packets cause at most one each rekey-timeout.
  @Test func R31_aLowOrderPeerCostsOneKeyAgreementEachRekeyTimeout() throws {
    let node = TunnelNode(seed: 1, endpoint: Endpoint(address: ipv4(192, 0, 2, 1), port: 1))
    try node.addPeer(
      LowOrderPointTests.key(LowOrderPointTests.points[0]),
      allowed: [#require(IPPrefix(ipv4(10, 0, 0, 2), length: 32))], endpoint: TunnelPair.elsewhere)
    let start = Instant(nanoseconds: nanosecondsPerSecond)
    let wall = WallTime(seconds: 1_800_000_000, nanoseconds: 0)
    let packet = TestPacket.ipv4(from: ipv4(10, 0, 0, 1), to: ipv4(10, 0, 0, 2))
    for (time, tries) in [(0, 1), (1, 1), (2500, 1), (4999, 1), (5000, 2), (5001, 2)]
      as [(UInt64, UInt64)]
    {
      let now = start.advanced(by: time * nanosecondsPerMillisecond)
      #expect(node.send([packet], at: now).isEmpty)
      #expect(node.settle(at: now, wall: wall).isEmpty)
      #expect(node.count(.lowOrderPoint) == tries, "after \(time) ms")
    }
  }

  @Test func R31_packetsForALowOrderPeerDoNotHoldTheStagingSlots() throws {
    let node = TunnelNode(
      seed: 1, endpoint: Endpoint(address: ipv4(192, 0, 2, 1), port: 1), limits: .shrunken())
    try node.addPeer(
      LowOrderPointTests.key(LowOrderPointTests.points[0]),
      allowed: [#require(IPPrefix(ipv4(10, 0, 0, 2), length: 32))], endpoint: TunnelPair.elsewhere)
    let now = Instant(nanoseconds: nanosecondsPerSecond)
    let packet = TestPacket.ipv4(from: ipv4(10, 0, 0, 1), to: ipv4(10, 0, 0, 2))
    _ = node.send([packet, packet], at: now)
    _ = node.settle(at: now, wall: WallTime(seconds: 1_800_000_000, nanoseconds: 0))
    // There will never be a session: the program gets an ICMP error at once.
    #expect(node.freeStagingSlots == node.limits.stagingSlots)
    #expect(node.replies.count == 2)
  }

  /// After the failure it is too early for another try. A packet that is staged then must not hold
  /// its slot for ever.
  @Test func R52_aPacketStagedAfterAFailedInitiationDoesNotStay() throws {
    let node = TunnelNode(seed: 1, endpoint: Endpoint(address: ipv4(192, 0, 2, 1), port: 1))
    try node.addPeer(
      LowOrderPointTests.key(LowOrderPointTests.points[0]),
      allowed: [#require(IPPrefix(ipv4(10, 0, 0, 2), length: 32))], endpoint: TunnelPair.elsewhere)
    var now = Instant(nanoseconds: nanosecondsPerSecond)
    let wall = WallTime(seconds: 1_800_000_000, nanoseconds: 0)
    let packet = TestPacket.ipv4(from: ipv4(10, 0, 0, 1), to: ipv4(10, 0, 0, 2))
    for _ in 0..<2 {
      node.send([packet], at: now)
      _ = node.settle(at: now, wall: wall)
      now = now.advanced(by: 1)
    }
    #expect(node.freeStagingSlots == node.limits.stagingSlots - 1)
    now = try #require(node.nextDeadline(at: now).instant)
    _ = node.settle(at: now, wall: wall)
    #expect(node.freeStagingSlots == node.limits.stagingSlots)
    #expect(node.replies.count == 2)
    // Nothing is left to do.
    expect(!node.nextDeadline(at: now).isSet)
  }

  @Test(arguments: LowOrderPointTests.points)
  func R31_anInitiationWithALowOrderEphemeralIsDropped(_ point: [UInt8]) throws {
    let pair = try TunnelPair()
    var message = try #require(pair.initiationFromA()).bytes
    message.replaceSubrange(8..<40, with: point)
    message = TunnelPair.withMAC1(message, for: pair.b.publicKey)
    pair.b.receive([Arrival(message, from: pair.a.endpoint)], at: pair.now)
    #expect(pair.b.count(.handshakeQueued) == 1)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).isEmpty)
    #expect(pair.b.count(.handshakeFailed) == 1)
    #expect(pair.b.indexCount == 0)
  }

  /// A peer with a low-order ephemeral knows that the product is zero, and can compute everything
  /// else: only the refusal of zero prevents such a handshake.
  @Test func R31_anInitiationWithAZeroSharedSecretIsDropped() throws {
    let pair = try TunnelPair()
    let zero = [UInt8](repeating: 0, count: 32)
    var bytes = [UInt8](repeating: 0, count: 148)
    let noise = pair.a.tunnel.noise
    bytes.withUnsafeMutableBytes { bytes in
      let message = InitiationMessage(writingTo: bytes.baseAddress!, sender: 77)
      message.ephemeral.copyMemory(from: LowOrderPointTests.points[5], byteCount: 32)
      noise.start(from: pair.a.tunnel.constants, responder: pair.b.publicKey)
      noise.mixEphemeral(message.ephemeral)
      // es, which is zero; the message key follows the chaining key.
      HKDF.derive(
        chainingKey: noise.chainingKey, input: zero, byteCount: 32, into: noise.chainingKey,
        second: noise.chainingKey + 32)
      withUnsafeBytes(of: pair.a.publicKey) {
        noise.encryptAndHash($0.baseAddress!, byteCount: 32, into: message.encryptedStatic)
      }
      // ss, which a stores after the preshared key.
      _ = noise.mixPrecomputed(pair.a.state(pair.peerOfA).handshake.presharedKey + 32)
      noise.encryptAndHash(
        [UInt8](repeating: 0x40, count: 12), byteCount: 12, into: message.encryptedTimestamp)
    }
    bytes = TunnelPair.withMAC1(bytes, for: pair.b.publicKey)
    pair.b.receive([Arrival(bytes, from: TunnelPair.elsewhere)], at: pair.now)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).isEmpty)
    #expect(pair.b.count(.handshakeFailed) == 1)
    #expect(pair.b.status(of: pair.peerOfB)?.endpoint == pair.a.endpoint)
  }

  @Test(arguments: LowOrderPointTests.points)
  func R31_aResponseWithALowOrderEphemeralEndsNothing(_ point: [UInt8]) throws {
    let pair = try TunnelPair()
    pair.carryToB([try #require(pair.initiationFromA())])
    let response = try #require(pair.b.settle(at: pair.now, wall: pair.wall).first)
    var forged = response.bytes
    forged.replaceSubrange(12..<44, with: point)
    forged = TunnelPair.withMAC1(forged, for: pair.a.publicKey)
    pair.a.receive([Arrival(forged, from: TunnelPair.elsewhere)], at: pair.now)
    #expect(pair.a.settle(at: pair.now, wall: pair.wall).isEmpty)
    #expect(pair.a.count(.lowOrderPoint) == 1)
    #expect(pair.a.status(of: pair.peerOfA)?.endpoint == pair.b.endpoint)
    pair.carryToA([response])
    _ = pair.a.settle(at: pair.now, wall: pair.wall)
    #expect(pair.a.count(.handshakeAccepted) == 1)
  }

  /// The product of the static keys is zero, which an initiator can compute without b's private
  /// key: its message must be rejected.
  @Test func R31_anInitiationFromALowOrderStaticKeyIsDropped() throws {
    let pair = try TunnelPair()
    let point = LowOrderPointTests.points[5]
    try pair.b.addPeer(LowOrderPointTests.key(point), allowed: [])
    var bytes = [UInt8](repeating: 0, count: 148)
    var entropy = Entropy.seeded(5)
    let noise = pair.a.tunnel.noise
    bytes.withUnsafeMutableBytes { bytes in
      let message = InitiationMessage(writingTo: bytes.baseAddress!, sender: 77)
      pair.b.publicKey.write(to: noise.remoteStatic)
      noise.start(from: pair.a.tunnel.constants, responder: pair.b.publicKey)
      noise.makeEphemeral(into: message.ephemeral, entropy: &entropy)
      noise.mixEphemeral(message.ephemeral)
      _ = noise.mixDH(secret: noise.ephemeralPrivate, point: noise.remoteStatic, keyed: true)
      point.withUnsafeBytes {
        noise.encryptAndHash($0.baseAddress!, byteCount: 32, into: message.encryptedStatic)
      }
    }
    bytes = TunnelPair.withMAC1(bytes, for: pair.b.publicKey)
    pair.b.receive([Arrival(bytes, from: TunnelPair.elsewhere)], at: pair.now)
    #expect(pair.b.settle(at: pair.now, wall: pair.wall).isEmpty)
    #expect(pair.b.count(.lowOrderPoint) == 1)
  }
}
