import Testing

@testable import Culvert

private let families: [IPAddress.Family] = [.ipv4, .ipv6]

/// Inbound: fragmented datagrams, their memory and their timeout.
@Suite struct DatagramChannelFragmentTests {
  private let near = ChannelEnd(host: 1)
  private let far = ChannelEnd(host: 2)

  private func model(
    _ family: IPAddress.Family, _ byteCount: Int = 100, identification: UInt32 = 1
  ) -> ChannelPacket {
    var random = SeededGenerator(seed: UInt64(identification))
    var model = near.packet(random.bytes(byteCount), from: far, family)
    model.identification = identification
    return model
  }

  private var incompleteCount: Int { near.channel.reassembler.incompleteCount }
  private var lentCount: Int { near.channel.lentCount }

  // MARK: Senders

  /// Fragments from two peers are never combined, whatever their addresses are.
  @Test(arguments: families) func F8_fragmentsOfTwoSendersNeverMeet(family: IPAddress.Family) {
    let model = model(family)
    let fragments = model.fragments(56)
    #expect(fragments.count == 2)
    #expect(near.receive(fragments[0], from: 1) == .nothing)
    for sender: UInt32 in [2, 0, 0x1_0001, .max] {
      #expect(near.receive(fragments[1], from: sender) == .nothing)
    }
    #expect(incompleteCount == 5)
    #expect(near.receive(fragments[1], from: 1).payload == model.payload)
    #expect(near.receive(fragments[0], from: .max).payload == model.payload)
  }

  /// Nor are those of two protocols (RFC 791 section 3.2).
  @Test func F8_fragmentsOfTwoProtocolsNeverMeet() {
    var model = model(.ipv4)
    let fragments = model.fragments(56)
    model.other = (6, model.transport)
    let others = model.fragments(56)
    #expect(near.receive(fragments[0]) == .nothing && near.receive(others[1]) == .nothing)
    #expect(incompleteCount == 1)
    #expect(near.receive(fragments[1]).payload == model.payload)
  }

  /// Fragments of another protocol, or of a source from which the user expects nothing.
  @Test(arguments: families) func R53_uselessFragmentsTakeNoSlot(family: IPAddress.Family) {
    var model = model(family, 1000)
    for fragment in model.fragments(48) {
      #expect(near.receive(fragment, expects: { _ in false }) == .nothing)
    }
    #expect(incompleteCount == 0 && near.count(.notOurs) == 21)
    for number: UInt8 in [family == .ipv4 ? 58 : 1, 6, 47, 132] {
      model.other = (number, model.transport)
      for fragment in model.fragments(48) { #expect(near.receive(fragment) == .nothing) }
    }
    #expect(incompleteCount == 0 && near.count(.notOurs) == 5 * 21)
    #expect(near.fragmentCount(.held) == 0)
    // What is whole is judged by its contents.
    let whole = self.model(family, 40, identification: 2)
    #expect(near.receive(whole.bytes, expects: { _ in false }).payload == whole.payload)
  }

  @Test(arguments: families) func F8_fragmentsToOthersTakeNoSlot(family: IPAddress.Family) {
    var model = model(family, 1000)
    model.destination = family == .ipv4 ? ipv4(10, 8, 0, 77) : ipv6(0xfd08 << 48, 77)
    for fragment in model.fragments(48) { #expect(near.receive(fragment) == .nothing) }
    #expect(incompleteCount == 0 && near.count(.notOurs) == 21)
    #expect(near.fragmentCount(.held) == 0)
  }

  // MARK: The reassembled datagram

  /// The checksum of the whole datagram, which no single fragment can verify.
  @Test(arguments: families) func F8_theChecksumIsVerifiedAfterReassembly(
    family: IPAddress.Family
  ) {
    let fragments = model(family, 300).fragments(104)
    for index in fragments.indices {
      var wrong = fragments
      wrong[index][wrong[index].count - 1] ^= 0x10
      for fragment in wrong { #expect(near.receive(fragment) == .nothing) }
      near.channel.release()
    }
    #expect(near.count(.badChecksum) == 3 && near.count(.fragment) == 6)
    #expect(near.receiveAll(fragments).count == 1)
  }

  @Test(arguments: families) func toAnotherPort(family: IPAddress.Family) {
    var model = model(family)
    model.destinationPort = 9
    #expect(near.receiveAll(model.fragments(56)) == [])
    #expect(near.count(.notOurs) == 1)
  }

  /// Wrong lengths that only the whole datagram reveals.
  @Test(arguments: families) func theLengthOfUDPIsVerifiedAfterReassembly(
    family: IPAddress.Family
  ) {
    var model = model(family)
    model.lengthField = 109
    #expect(near.receiveAll(model.fragments(56)) == [])
    model.lengthField = 7
    #expect(near.receiveAll(model.fragments(56)) == [])
    #expect(near.count(.malformed) == 2)
  }

  /// Only the first fragment has options; extension headers are in the data.
  @Test func optionsAndExtensionsInFragments() {
    var options = model(.ipv4, 500)
    options.ipv4Options = [0x44, 8, 5, 0, 1, 2, 3, 4]
    #expect(near.receiveAll(options.fragments(64)).map(\.payload) == [options.payload])
    var extensions = model(.ipv6, 500)
    extensions.extensions = [.options(16), .options(8)]
    #expect(near.receiveAll(extensions.fragments(64)).map(\.payload) == [extensions.payload])
  }

  /// An IPv6 fragment that is a whole packet (RFC 6946).
  @Test func atomicFragments() {
    let model = model(.ipv6, 500)
    let fragments = model.fragments(512)
    #expect(fragments.count == 1)
    #expect(near.receive(fragments[0]).payload == model.payload)
    #expect(incompleteCount == 0 && lentCount == 0)
  }

  /// The traffic class of the whole: that of the first fragment, with CE if any fragment had it
  /// (RFC 3168 section 5.3).
  @Test(arguments: families) func congestionMarksOfFragments(family: IPAddress.Family) {
    var model = model(family)
    model.trafficClass = 0x2e << 2 | 2
    var fragments = model.fragments(56)
    model.trafficClass |= 3
    fragments[1] = model.fragments(56)[1]
    #expect(
      near.receiveAll(fragments) == [
        .datagram(
          model.payload, from: far.endpoint(family, port: 7000), port: ChannelEnd.port,
          trafficClass: 0x2e << 2 | 3)
      ])
  }

  // MARK: Lent memory

  @Test(arguments: families) func payloadsStayUntilTheyAreReleased(family: IPAddress.Family) {
    var payloads: [UnsafeMutableRawBufferPointer] = []
    for number: UInt32 in 1...20 {
      for fragment in model(family, 500, identification: number).fragments(200) {
        let buffer = PacketBuffer(fragment)
        let received = near.channel.receive(
          UnsafeMutableRawBufferPointer(start: buffer.start, count: buffer.byteCount), from: 1,
          at: near.now)
        // The packet's memory is freed after this; the payload's is not.
        if case .datagram(let payload, _, _, _) = received { payloads.append(payload) }
      }
    }
    #expect(lentCount == 20 && near.channel.reassembler.completedCount == 20)
    for (index, payload) in payloads.enumerated() {
      let wanted = model(family, 500, identification: UInt32(index + 1)).payload
      #expect([UInt8](payload) == wanted)
    }
    near.channel.release()
    #expect(lentCount == 0 && near.channel.reassembler.completedCount == 0)
    near.channel.release()
  }

  /// All 64 slots may be lent. Then fragments find none, and no lent slot is reused.
  @Test func thereIsAnEndToWhatIsLent() {
    for number: UInt32 in 1...80 {
      _ = model(.ipv4, identification: number).fragments(56).map { near.receive($0) }
      // Whole packets need no memory.
      #expect(near.receive(model(.ipv4).bytes) != .nothing)
    }
    #expect(lentCount == 64 && near.count(.received) == 64 + 80)
    #expect(near.fragmentCount(.noSlot) == 32)
    near.channel.release()
    #expect(near.receiveAll(model(.ipv4).fragments(56)).count == 1)
  }

  /// Complete datagrams that were dropped are not lent: a caller that releases all received
  /// payloads has released everything.
  @Test func whatIsDroppedIsNotLent() {
    near.channel.forbidsFragmentation = true
    var closed = model(.ipv4)
    closed.destinationPort = 9
    var wrong = model(.ipv6)
    wrong.checksumField = 1
    var other = model(.ipv4)
    other.other = (47, other.transport)
    var long = model(.ipv6)
    long.lengthField = 0xfff0
    let error = ChannelPacket.icmp(
      3, 4, word: 1000, quoting: near.packets(of: [1], to: far.endpoint(.ipv4))[0],
      from: far.ipv4, to: near.ipv4)
    let unreachable = ChannelPacket.icmp(
      3, 3, quoting: near.packets(of: [1], to: far.endpoint(.ipv4))[0], from: far.ipv4,
      to: near.ipv4)
    for _ in 0..<30 {
      for model in [closed, wrong, other, long, error, unreachable] {
        for fragment in model.fragments(24) { _ = near.receive(fragment) }
        #expect(lentCount == 0 && near.channel.reassembler.completedCount == 0)
      }
    }
    // The other protocol is dropped fragment by fragment.
    let others = UInt64(30 * other.fragments(24).count)
    #expect(near.count(.notOurs) == 30 + others && near.count(.badChecksum) == 30)
    #expect(near.count(.malformed) == 30 && near.count(.tooLargeForPath) == 30)
    #expect(near.count(.unreachable) == 30)
  }

  @Test func releaseGivesBackInAnyState() {
    near.channel.release()
    _ = near.receive(model(.ipv4).fragments(56)[0])
    near.channel.release()
    #expect(incompleteCount == 1)
    #expect(near.receive(model(.ipv4).fragments(56)[1]) != .nothing)
    // Closing the channel does not affect lent slots.
    near.channel.close()
    #expect(lentCount == 1 && near.channel.reassembler.completedCount == 1)
    near.channel.release()
    #expect(lentCount == 0 && near.channel.reassembler.completedCount == 0)
  }

  // MARK: Time

  /// Incomplete datagrams with their first fragments, and one without it.
  private func leaveIncomplete(_ family: IPAddress.Family, _ count: UInt32) {
    for number in 1...count {
      _ = near.receive(model(family, identification: number).fragments(56)[0])
    }
    _ = near.receive(model(family, identification: 999).fragments(56)[1])
  }

  private func wait(seconds: UInt64) {
    near.now = near.now.advanced(by: seconds * nanosecondsPerSecond)
  }

  @Test(arguments: families) func F9_expiryIsToldToTheSenderOnce(family: IPAddress.Family) throws {
    expect(!near.channel.nextDeadline.isSet)
    leaveIncomplete(family, 1)
    let seconds: UInt64 = family == .ipv4 ? 30 : 60
    let due = near.now.advanced(by: seconds * nanosecondsPerSecond)
    expect(near.channel.nextDeadline.instant == due)
    wait(seconds: seconds - 1)
    near.channel.expireFragments(into: &near.batch, at: near.now)
    #expect(near.batch.count == 0 && incompleteCount == 2)
    wait(seconds: 1)
    near.channel.expireFragments(into: &near.batch, at: near.now)
    // No error is sent about the datagram without its first fragment.
    #expect(near.batch.count == 1 && incompleteCount == 0)
    near.channel.expireFragments(into: &near.batch, at: near.now)
    #expect(near.batch.count == 1)
    expect(!near.channel.nextDeadline.isSet)
    #expect(near.fragmentCount(.expired) == 2 && near.fragmentCount(.timeExceededSent) == 1)
    try checkError(near.packets[0], family, about: model(family).fragments(56)[0])
    // A fragment that arrives now starts another datagram.
    #expect(near.receive(model(family).fragments(56)[1]) == .nothing)
  }

  /// An ICMP error from the channel's address to the sender that quotes the fragment unchanged.
  private func checkError(
    _ error: [UInt8], _ family: IPAddress.Family, about fragment: [UInt8]
  ) throws {
    let header = family == .ipv4 ? 20 : 40
    var expected = ChannelPacket.icmp(
      family == .ipv4 ? 11 : 3, 1, quoting: fragment, from: near.address(family),
      to: far.address(family)
    ).bytes
    if family == .ipv4 {
      // Fields that a router may choose: precedence, identification.
      #expect(PacketModel.sum(Array(error[..<20])) == 0xffff)
      for offset in [1, 4, 5, 10, 11] { expected[offset] = error[offset] }
    }
    #expect(error.count == header + 8 + fragment.count)
    #expect(error == expected)
    #expect(try #require(PacketModel(error)).bytes.count == error.count)
  }

  /// An error that finds no place in the batch is sent with the next batch.
  @Test(arguments: families) func F9_aFullBatchLosesNoExpiry(family: IPAddress.Family) {
    leaveIncomplete(family, 3)
    wait(seconds: 60)
    near.batch.reset()
    for _ in 0..<126 { #expect(near.isSent(near.send([1], to: far.endpoint(family)))) }
    near.channel.expireFragments(into: &near.batch, at: near.now)
    #expect(near.batch.count == 128 && incompleteCount == 2)
    expect(near.channel.nextDeadline.isDue(at: near.now))
    near.channel.expireFragments(into: &near.batch, at: near.now)
    #expect(near.batch.count == 128 && incompleteCount == 2)
    near.reset()
    near.channel.expireFragments(into: &near.batch, at: near.now)
    #expect(near.batch.count == 1 && incompleteCount == 0)
    near.reset()
    // A batch without free bytes loses none either.
    let small = ChannelEnd(
      host: 1, limits: .channel(batchPackets: 128, batchByteCount: 4096))
    let fragment = model(family).fragments(56)[0]
    _ = small.receive(fragment)
    small.now = near.now.advanced(by: 60 * nanosecondsPerSecond)
    #expect(small.isSent(small.send([UInt8](repeating: 1, count: 2600), to: far.endpoint(family))))
    small.channel.expireFragments(into: &small.batch, at: small.now)
    expect(small.channel.reassembler.incompleteCount == 1)
    small.reset()
    small.channel.expireFragments(into: &small.batch, at: small.now)
    #expect(small.batch.count == 1)
  }

  /// Sixteen at once, then ten a second: a flood of fragments does not cause a flood of errors.
  @Test func F9_errorsAreLimited() {
    leaveIncomplete(.ipv4, 60)
    wait(seconds: 30)
    near.channel.expireFragments(into: &near.batch, at: near.now)
    #expect(near.batch.count == 16 && incompleteCount == 0)
    near.reset()
    leaveIncomplete(.ipv4, 60)
    wait(seconds: 30)
    near.channel.expireFragments(into: &near.batch, at: near.now)
    #expect(near.batch.count == 16)
  }

  /// The error does not change when the reassembler's memory is reused.
  @Test func F9_errorsAreCopied() throws {
    leaveIncomplete(.ipv4, 2)
    wait(seconds: 30)
    near.channel.expireFragments(into: &near.batch, at: near.now)
    for number: UInt32 in 100..<164 {
      _ = near.receive(model(.ipv4, 400, identification: number).fragments(376)[0])
    }
    #expect(near.batch.count == 2)
    for index in 0..<2 {
      let fragment = model(.ipv4, identification: UInt32(index + 1)).fragments(56)[0]
      try checkError(near.packets[index], .ipv4, about: fragment)
    }
  }

  /// A clock that goes back, or stops at its maximum.
  @Test func R24_clocksThatJump() {
    leaveIncomplete(.ipv4, 1)
    near.now = Instant(nanoseconds: 0)
    near.channel.expireFragments(into: &near.batch, at: near.now)
    #expect(near.batch.count == 0)
    leaveIncomplete(.ipv6, 1)
    near.now = Instant(nanoseconds: .max)
    near.channel.expireFragments(into: &near.batch, at: near.now)
    #expect(incompleteCount == 0 && near.batch.count == 2)
    leaveIncomplete(.ipv4, 1)
    near.now = Instant(nanoseconds: 1)
    near.channel.expireFragments(into: &near.batch, at: near.now)
    #expect(incompleteCount == 2)
  }

  // MARK: Removal

  @Test func F10_aRemovedSenderTakesItsFragmentsAlong() {
    let fragments = model(.ipv4).fragments(56)
    for sender: UInt32 in 0..<6 {
      _ = near.receive(fragments[0], from: sender)
      _ = near.receive(model(.ipv6).fragments(56)[0], from: sender)
    }
    // One datagram is complete, and stays until it is released.
    #expect(near.receive(fragments[1], from: 2) != .nothing)
    #expect(incompleteCount == 11 && lentCount == 1)
    near.channel.reassembler.removeAll(fromSenders: { $0 == 2 || $0 == 4 })
    #expect(incompleteCount == 8 && lentCount == 1)
    #expect(near.fragmentCount(.removed) == 3)
    #expect(near.receive(fragments[1], from: 4) == .nothing)
    #expect(near.receive(fragments[1], from: 5) != .nothing)
    near.channel.release()
    near.channel.reassembler.removeAll(from: 0)
    #expect(near.receive(fragments[1], from: 0) == .nothing)
    near.channel.reassembler.removeAll()
    #expect(incompleteCount == 0)
  }
}
