import Culvert
import Glibc
import Testing

@testable import CulvertLinux

/// A family, and the MTU of a link.
struct FragmentLink {
  let family: IPAddress.Family
  let mtu: Int
}

extension LinuxTests {
  /// What Linux cuts, put together by us; and Linux takes the result for what it has sent.
  @Suite(.enabled(if: canMakeNamespaces)) struct KernelFragmentTests {
    static let links = [
      FragmentLink(family: .ipv4, mtu: 576), FragmentLink(family: .ipv4, mtu: 1280),
      FragmentLink(family: .ipv6, mtu: 1280),
    ]
    /// Of payloads: the least, what just fits into 576 and 1280 bytes of either family and one byte
    /// more, up to the most that UDP can carry over IPv4.
    static let sizes = [
      8, 548, 549, 1232, 1233, 1252, 1253, 1400, 4000, 9000, 30_000, 65_507,
    ]

    @Test(arguments: links, FragmentOrder.allCases)
    func datagramsOfLinuxArePutTogether(link: FragmentLink, order: FragmentOrder) throws {
      try inFreshNamespace { () throws in
        let kernel = try KernelEnd(link.family)
        try check(kernel, link, order, sizes: Self.sizes)
      }
    }

    @Test(arguments: links, FragmentOrder.allCases)
    func echoRequestsOfLinuxArePutTogether(link: FragmentLink, order: FragmentOrder) throws {
      try inFreshNamespace { () throws in
        let kernel = try KernelEnd(link.family, .echo)
        try check(kernel, link, order, sizes: [0, 56, 1472, 8000, 65_507]) { $0.becomeEchoReply() }
      }
    }

    /// Each header of a fragment has options: the first all of them, those behind it only such as
    /// are to be copied.
    @Test(arguments: FragmentOrder.allCases)
    func F13_optionsOfLinuxStay(order: FragmentOrder) throws {
      try inFreshNamespace { () throws in
        let kernel = try KernelEnd(.ipv4)
        // Record route (not copied), nothing, router alert (copied).
        kernel.setHeaders(IP_OPTIONS, [7, 7, 4, 0, 0, 0, 0, 1, 0x94, 4, 0, 0])
        let cut = try check(
          kernel, FragmentLink(family: .ipv4, mtu: 576), order, sizes: [8, 1400, 30_000])
        let options = cut.flatMap { $0 }.map { Array($0.bytes[20..<32]) }
        #expect(Set(options).count == 2)
        #expect(options.allSatisfy { $0.count == 12 && $0[8] == 0x94 })
      }
    }

    /// Hop-by-hop and destination options, before the fragment header.
    @Test(arguments: FragmentOrder.allCases)
    func extensionHeadersOfLinuxStay(order: FragmentOrder) throws {
      try inFreshNamespace { () throws in
        let kernel = try KernelEnd(.ipv6)
        // Next header, no more than 8 bytes, one PadN over the rest; longer ones Linux refuses.
        let header: [UInt8] = [0, 0, 1, 4, 0, 0, 0, 0]
        kernel.setHeaders(54, header)  // IPV6_HOPOPTS
        kernel.setHeaders(59, header)  // IPV6_DSTOPTS
        let cut = try check(
          kernel, FragmentLink(family: .ipv6, mtu: 1280), order, sizes: [8, 1400, 30_000, 65_000])
        let chains = cut.flatMap { $0 }.filter(\.isFragment).map {
          [$0.bytes[6], $0.bytes[40], $0.bytes[48]]
        }
        #expect(Set(chains) == [[0, 60, 44]])
      }
    }

    /// Sends the sizes through a link, puts together what comes, and gives it back to the kernel
    /// with its addresses swapped and changed by `answer`.
    /// - Returns: the packets of each datagram, as the kernel cut them.
    @discardableResult
    private func check(
      _ kernel: KernelEnd, _ link: FragmentLink, _ order: FragmentOrder, sizes: [Int],
      answer: (inout IPPacket) -> Void = { _ in }
    ) throws -> [[IPPacket]] {
      let payloads = sizes.enumerated().map { number, size in
        (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8 &+ number) }
      }
      // The same from the kernel in one piece each, where any interface could carry it.
      let wholes = payloads.map { $0.count <= 65_400 ? kernel.send($0) : [] }
      #expect(wholes.allSatisfy { $0.count <= 1 })
      try kernel.setMTU(link.mtu)
      let start = try KernelCounters()
      let cut = payloads.map { kernel.send($0) }
      let fragments = cut.flatMap { $0 }.filter(\.isFragment)
      #expect(try KernelCounters().ip("FragCreates") - start.ip("FragCreates") == fragments.count)
      #expect(cut.contains { $0.count > 1 } && cut.contains { $0.count == 1 })
      #expect(cut.allSatisfy { $0.allSatisfy { $0.bytes.count <= link.mtu } })

      let arrivals = order.arrange(cut, seed: 7)
      let station = try FragmentStation()
      station.add(arrivals)
      #expect(station.incompleteCount == 0)
      #expect(station.count(.reassembled) == cut.count { $0.count > 1 })
      let count = cut.map(\.count).reduce(0, +)
      #expect(station.count(.duplicate) == arrivals.count - count)
      #expect((arrivals.count > count) == (order == .doubled))
      check(station.packets, payloads, wholes)
      try giveBack(station.packets, to: kernel, answer)
      return cut
    }

    /// They are what was sent, byte by byte, in any order.
    private func check(
      _ packets: [IPPacket], _ payloads: [[UInt8]], _ wholes: [[IPPacket]]
    ) {
      #expect(packets.count == payloads.count)
      for packet in packets {
        #expect(packet.isAsLongAsItSays && packet.hasRightUDPLength && packet.hasRightChecksums)
        #expect(!packet.isFragment)
        guard let index = payloads.firstIndex(of: packet.payload) else {
          Issue.record("\(packet.bytes.count) bytes that nobody sent")
          continue
        }
        guard let whole = wholes[index].first else { continue }
        let isTheSame = packet.withoutIdentification == whole.withoutIdentification
        #expect(isTheSame, "\(packet.bytes.count) bytes")
      }
      let isEachThere = Set(packets.map(\.payload)) == Set(payloads)
      #expect(isEachThere)
    }

    private func giveBack(
      _ packets: [IPPacket], to kernel: KernelEnd, _ answer: (inout IPPacket) -> Void
    ) throws {
      let start = try KernelCounters()
      for packet in packets {
        var answered = packet.withSwappedAddresses
        answer(&answered)
        kernel.write(answered)
        let isReceived = kernel.receive() == packet.payload
        #expect(isReceived, "\(packet.bytes.count) bytes")
      }
      let end = try KernelCounters()
      #expect(end.errors == start.errors)
      #expect(end.ip("ReasmReqds") == start.ip("ReasmReqds"))
    }
  }
}

extension IPPacket {
  /// Makes an echo request the reply to it.
  fileprivate mutating func becomeEchoReply() {
    bytes[transport] = isIPv4 ? 0 : 129
    writeChecksums()
  }
}
