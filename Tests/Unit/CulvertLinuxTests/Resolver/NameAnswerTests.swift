import Testing

@testable import Culvert
@testable import CulvertLinux

/// Answers of name servers, and forged ones.
@Suite struct NameAnswerTests {
  private static let name = "vpn.example.org"
  private static let id: UInt16 = 0xbeef

  private func query<R>(
    _ name: String = name, _ family: IPAddress.Family = .ipv4, _ body: (NameQuery) -> R
  ) -> R {
    bytes(name).withUnsafeBytes { body(NameQuery(name: $0, family: family, id: Self.id)) }
  }

  /// The result, and the addresses that were written.
  private func read(
    _ message: [UInt8], name: String = name, _ family: IPAddress.Family = .ipv4,
    isCut: Bool = false
  ) -> (answer: NameAnswer, addresses: [IPAddress]) {
    query(name, family) { query in
      let table = UnsafeMutableBufferPointer<IPAddress>.allocate(capacity: NameAnswer.capacity)
      table.initialize(repeating: IPAddress(ipv4: 0xdead_beef))
      // A separate allocation, so that the address sanitizer sees any read outside.
      let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: message.count, alignment: 1)
      copy.copyBytes(from: message)
      defer {
        table.deallocate()
        copy.deallocate()
      }
      var life = UInt32.max
      let answer = NameAnswer.read(
        UnsafeRawBufferPointer(copy), to: query, into: table, &life, isCut: isCut)
      guard case .addresses(let count) = answer else { return (answer, []) }
      return (answer, Array(table[..<count]))
    }
  }

  private func message(
    _ answers: [[UInt8]], type: UInt16 = 1, flags: UInt16 = 0x8180
  ) -> NameMessage {
    NameMessage(
      id: Self.id, flags: flags, questions: [NameMessage.question(Self.name, type: type)],
      answers: answers)
  }

  private func answer(_ answers: [[UInt8]]) -> NameAnswer { read(message(answers).bytes).answer }

  @Test func R62_aCutAnswerWithAnAddressIsUsed() {
    let own = NameMessage.record(type: 1, [192, 0, 2, 1])
    let alias = NameMessage.record(type: 5, NameMessage.name("b.example.net"))
    #expect(read(message([own], flags: 0x8380).bytes).answer == .addresses(1))
    #expect(read(message([alias], flags: 0x8380).bytes).answer == .truncated)
    // The last record may be half there, in a cut answer only.
    let half = Array(message([own, own], flags: 0x8380).bytes.dropLast(3))
    #expect(read(half).addresses == [IPAddress(ipv4: 0xc000_0201)])
    let whole = Array(message([own, own]).bytes.dropLast(3))
    #expect(read(whole).answer == .malformed)
    #expect(read(whole, isCut: true).answer == .addresses(1))
  }

  @Test func R45_theShortestLifetimeCounts() {
    var life = UInt32.max
    let records = [
      NameMessage.record(type: 5, NameMessage.name("b.example.net"), life: 300),
      NameMessage.record(NameMessage.name("other.example"), type: 1, [1, 2, 3, 4], life: 1),
      NameMessage.record(NameMessage.name("b.example.net"), type: 1, [1, 2, 3, 4], life: 70),
    ]
    let table = UnsafeMutableBufferPointer<IPAddress>.allocate(capacity: NameAnswer.capacity)
    table.initialize(repeating: IPAddress(ipv4: 0))
    defer { table.deallocate() }
    let answer = query { query in
      message(records).bytes.withUnsafeBytes {
        NameAnswer.read($0, to: query, into: table, &life)
      }
    }
    #expect(answer == .addresses(1) && life == 70)
  }

  @Test func theQueryIsAsTheStandardHasIt() {
    for (family, type) in [(IPAddress.Family.ipv4, UInt8(1)), (.ipv6, 28)] {
      var buffer = [UInt8](repeating: 0xee, count: NameQuery.longestByteCount)
      let count = query("a.example", family) { query in
        buffer.withUnsafeMutableBytes { query.write(to: $0) }
      }
      var expected: [UInt8] = [0xbe, 0xef, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]
      expected += [1, 0x61, 7]
      expected += bytes("example")
      expected += [0, 0, type, 0, 1]
      // EDNS0: the root, OPT, 1232 bytes, nothing else.
      expected += [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]
      #expect(Array(buffer[..<count]) == expected)
    }
    let longest = String(repeating: "a.", count: 126) + "a"
    var buffer = [UInt8](repeating: 0xee, count: NameQuery.longestByteCount)
    let count = query(longest) { query in buffer.withUnsafeMutableBytes { query.write(to: $0) } }
    #expect(count == NameQuery.longestByteCount)
  }

  @Test func addressesOfBothFamilies() {
    let four = message([
      NameMessage.record(type: 1, [192, 0, 2, 1]), NameMessage.record(type: 1, [192, 0, 2, 2]),
    ])
    let addresses = [IPAddress(ipv4: 0xc000_0201), IPAddress(ipv4: 0xc000_0202)]
    #expect(read(four.bytes).addresses == addresses)
    let bits = (0..<16).map { UInt8($0) }
    let six = message([NameMessage.record(type: 28, bits)], type: 28)
    let address = IPAddress(ipv6High: 0x0001_0203_0405_0607, low: 0x0809_0a0b_0c0d_0e0f)
    #expect(read(six.bytes, .ipv6).addresses == [address])
    // A question of the other type does not match.
    #expect(read(six.bytes, .ipv4).answer == .unrelated)
    #expect(read(four.bytes, .ipv6).answer == .unrelated)
  }

  @Test func noMoreThanThereIsRoomFor() {
    let many = (0..<40).map { NameMessage.record(type: 1, [10, 0, 0, $0]) }
    let (answer, addresses) = read(message(many).bytes)
    #expect(answer == .addresses(8))
    #expect(addresses == (0..<8).map { IPAddress(ipv4: 0x0a00_0000 + $0) })
  }

  @Test func onlyTheNamesOwnRecordsCount() {
    let own = NameMessage.record(type: 1, [192, 0, 2, 1])
    let other = NameMessage.record(NameMessage.name("evil.example.org"), type: 1, [6, 6, 6, 6])
    let parent = NameMessage.record([0xc0, 16], type: 1, [6, 6, 6, 6])
    let longer = NameMessage.record([1, 0x61, 0xc0, 12], type: 1, [6, 6, 6, 6])
    let shorter = NameMessage.record(NameMessage.name("vp.example.org"), type: 1, [6, 6, 6, 6])
    let chaos = NameMessage.record(type: 1, kind: 3, [6, 6, 6, 6])
    let text = NameMessage.record(type: 16, [6, 6, 6, 6])
    let spelled = NameMessage.record(NameMessage.name("VPN.Example.ORG"), type: 1, [192, 0, 2, 2])
    let found = read(message([other, parent, longer, shorter, chaos, text, own, spelled]).bytes)
    #expect(found.addresses == [IPAddress(ipv4: 0xc000_0201), IPAddress(ipv4: 0xc000_0202)])
    #expect(answer([other, parent, longer, shorter, chaos, text]) == .addresses(0))
    #expect(answer([]) == .addresses(0))
    // Case is ignored in the question too.
    var upper = message([own])
    upper.questions = [NameMessage.question("VPN.EXAMPLE.ORG", type: 1)]
    #expect(read(upper.bytes).answer == .addresses(1))
  }

  @Test func aliasesAreFollowedInAnyOrder() {
    let first = NameMessage.record(type: 5, NameMessage.name("b.example.net"))
    let second = NameMessage.record(
      NameMessage.name("B.example.net"), type: 5, NameMessage.name("c.example.net"))
    let third = NameMessage.record(NameMessage.name("c.example.net"), type: 1, [192, 0, 2, 7])
    let address = [IPAddress(ipv4: 0xc000_0207)]
    #expect(read(message([first, second, third]).bytes).addresses == address)
    #expect(read(message([third, second, first]).bytes).addresses == address)
    #expect(answer([first, second]) == .addresses(0))
    #expect(answer([second, third]) == .addresses(0))
  }

  @Test func aliasesThatGoInCirclesEnd() {
    let there = NameMessage.record(type: 5, NameMessage.name("b.example.net"))
    let back = NameMessage.record(NameMessage.name("b.example.net"), type: 5, [0xc0, 12])
    #expect(answer([there, back]) == .malformed)
    #expect(answer([NameMessage.record(type: 5, [0xc0, 12])]) == .malformed)
    func chain(_ length: Int) -> [[UInt8]] {
      let links = (0..<length).map { index in
        NameMessage.record(
          index == 0 ? NameMessage.pointerToQuestion : NameMessage.name("n\(index)"), type: 5,
          NameMessage.name("n\(index + 1)"))
      }
      return links + [NameMessage.record(NameMessage.name("n\(length)"), type: 1, [1, 2, 3, 4])]
    }
    #expect(answer(chain(7)) == .addresses(1))
    #expect(answer(chain(8)) == .malformed)
  }

  @Test func whatTheServerSaysOfItself() {
    let own = NameMessage.record(type: 1, [192, 0, 2, 1])
    #expect(read(message([], flags: 0x8183).bytes).answer == .noSuchName)
    for code in [1, 2, 4, 5, 9, 15] as [UInt16] {
      #expect(
        read(message([own], flags: 0x8180 | code).bytes).answer == .refused(code: UInt8(code)))
    }
    #expect(read(message([], flags: 0x8380).bytes).answer == .truncated)
    // Neither authority nor recursion: a referral.
    var referral = message([], flags: 0x8100)
    referral.authorityCount = 2
    #expect(read(referral.bytes).answer == .refused(code: 0))
    referral.flags = 0x8500
    #expect(read(referral.bytes).answer == .addresses(0))
    // Some servers refuse without repeating the question; a positive answer needs it.
    for (code, expected) in [
      (UInt16(2), NameAnswer.refused(code: 2)), (0, .unrelated), (3, .unrelated),
    ] {
      let bare = NameMessage(id: Self.id, flags: 0x8180 | code)
      #expect(read(bare.bytes).answer == expected)
      #expect(read(bare.bytes + [0]).answer == .unrelated)
    }
  }

  @Test func whatIsNoAnswerToTheQuery() {
    let own = NameMessage.record(type: 1, [192, 0, 2, 1])
    let good = message([own])
    #expect(read(good.bytes).answer == .addresses(1))
    var wrong = good
    wrong.id ^= 1
    #expect(read(wrong.bytes).answer == .unrelated)
    for flags in [0x0100, 0x8980, 0xf980] as [UInt16] {
      #expect(read(message([own], flags: flags).bytes).answer == .unrelated)
    }
    let others: [[UInt8]] = [
      NameMessage.question("vpn.example.or", type: 1), NameMessage.question("vpn.example", type: 1),
      NameMessage.question("vpn.example.org.x", type: 1),
      NameMessage.question("vpn.examplf.org", type: 1), NameMessage.question("", type: 1),
      NameMessage.question(Self.name, type: 28), NameMessage.question(Self.name, type: 257),
      NameMessage.question(Self.name, type: 1, kind: 3),
      // Dots separate labels; they are not bytes of a label.
      [15] + bytes("vpn.example.org") + [0, 0, 1, 0, 1],
      [3] + bytes("vpn") + [11] + bytes("example.org") + [0, 0, 1, 0, 1],
    ]
    for question in others {
      wrong = good
      wrong.questions = [question]
      #expect(read(wrong.bytes).answer == .unrelated)
    }
    wrong = good
    wrong.questionCount = 0
    #expect(read(wrong.bytes).answer == .unrelated)
    wrong.questionCount = 2
    #expect(read(wrong.bytes).answer == .unrelated)
  }

  @Test func recordsThatAreNotWhole() {
    let own = NameMessage.record(type: 1, [192, 0, 2, 1])
    var more = message([own])
    more.answerCount = 2
    #expect(read(more.bytes).answer == .malformed)
    more.answerCount = 65_535
    #expect(read(more.bytes).answer == .malformed)
    for data in [[], [1], [1, 2, 3], [1, 2, 3, 4, 5]] as [[UInt8]] {
      #expect(answer([NameMessage.record(type: 1, data)]) == .malformed)
    }
    for length in [3, 5, 6, 65_535] {
      #expect(
        answer([NameMessage.record(type: 1, [1, 2, 3, 4], byteCount: length)]) == .malformed)
    }
    // An alias whose name is longer or shorter than its record.
    let alias = NameMessage.name("b.example.net")
    #expect(answer([NameMessage.record(type: 5, alias + [0])]) == .malformed)
    #expect(
      answer([NameMessage.record(type: 5, alias, byteCount: alias.count - 1), own]) == .malformed)
    #expect(answer([NameMessage.record(type: 5, [])]) == .malformed)
    // Cut short at every offset.
    let whole = message([NameMessage.record(type: 16, [1, 2]), own]).bytes
    for count in 0..<whole.count {
      let (answer, _) = read(Array(whole[..<count]))
      #expect(answer == .unrelated || answer == .malformed)
    }
    #expect(read(whole + [1, 2, 3]).answer == .addresses(1))
  }

  @Test func namesThatDoNotEndOrAreTooLong() {
    let start = UInt8(message([]).bytes.count)
    func owner(_ bytes: [UInt8]) -> NameAnswer {
      answer([NameMessage.record(bytes, type: 1, [192, 0, 2, 1])])
    }
    // Pointers to themselves, forward, beyond the end, and in a loop.
    #expect(owner([0xc0, start]) == .malformed)
    #expect(owner([0xc0, start + 2]) == .malformed)
    #expect(owner([0xff, 0xff]) == .malformed)
    #expect(owner([1, 0x61, 0xc0, start]) == .malformed)
    #expect(owner([1, 0x61, 0xc0, start + 2]) == .malformed)
    // A pointer to the header, which is not a name.
    #expect(owner([0xc0, 0]) == .malformed)
    // The obsolete kinds of length byte.
    #expect(owner([0x40, 0]) == .malformed)
    #expect(owner([0x80, 0]) == .malformed)
    // 255 bytes, and one more: 3 labels of 64 bytes, one of 62, and the root.
    let label = [UInt8(63)] + [UInt8](repeating: 0x61, count: 63)
    let last = [UInt8(61)] + [UInt8](repeating: 0x61, count: 61)
    #expect(owner(label + label + label + last + [0]) == .addresses(0))
    let longer = [UInt8(62)] + [UInt8](repeating: 0x61, count: 62)
    #expect(owner(label + label + label + longer + [0]) == .malformed)
    // Each name ends with a pointer to the previous one, and is 41 bytes longer.
    func stairs(_ count: Int) -> NameAnswer {
      var records: [[UInt8]] = []
      var target: UInt16 = 12
      for _ in 0..<count {
        let name = [UInt8(40)] + [UInt8](repeating: 0x61, count: 40)
        let position = message(records).bytes.count
        records.append(NameMessage.record(name + NameMessage.word(0xc000 | target), type: 16, []))
        target = UInt16(position)
      }
      return answer(records)
    }
    #expect(stairs(5) == .addresses(0))
    #expect(stairs(6) == .malformed)
    // A pointer at the very end, and half of one.
    #expect(read(message([]).bytes + [0xc0]).answer == .addresses(0))
    var half = message([[0xc0]])
    half.answerCount = 1
    #expect(read(half.bytes).answer == .malformed)
  }

  /// Valid messages with bytes changed, removed and added from a seed: nothing traps, and every
  /// address returned is in the message.
  @Test func anythingAtAll() {
    var state: UInt64 = 7
    func random(below bound: Int) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int((state >> 33) % UInt64(bound))
    }
    let good = message([
      NameMessage.record(type: 5, NameMessage.name("b.example.net")),
      NameMessage.record(NameMessage.name("b.example.net"), type: 5, [1, 0x63, 0xc0, 43]),
      NameMessage.record([1, 0x63, 0xc0, 45], type: 1, [192, 0, 2, 7]),
      NameMessage.record(type: 1, [192, 0, 2, 8]),
    ]).bytes
    var kinds: [String: Int] = [:]
    for _ in 0..<20_000 {
      var message = good
      for _ in 0..<(1 + random(below: 4)) {
        switch random(below: 8) {
        case 0: message.removeLast(random(below: message.count))
        case 1: message.insert(UInt8(random(below: 256)), at: random(below: message.count + 1))
        case 2 where !message.isEmpty: message.remove(at: random(below: message.count))
        default:
          guard message.count > 4 else { continue }
          // The id is not changed, or nothing else would be parsed.
          message[2 + random(below: message.count - 2)] = UInt8(random(below: 256))
        }
        if message.isEmpty { break }
      }
      let (answer, addresses) = read(message)
      for address in addresses {
        let bytes = (0..<4).map { UInt8(truncatingIfNeeded: address.ipv4Bits >> (24 - 8 * $0)) }
        #expect(message.indices.contains { message[$0...].starts(with: bytes) })
      }
      kinds["\(answer)".prefix(while: \.isLetter).description, default: 0] += 1
    }
    for kind in ["addresses", "malformed", "unrelated", "refused", "truncated", "noSuchName"] {
      #expect(kinds[kind, default: 0] > 0, "\(kind): \(kinds)")
    }
  }
}
