import Glibc
import Testing

@testable import Culvert
@testable import CulvertLinux

/// A family, and the MTU of a link.
struct FragmentLink {
  let family: IPAddress.Family
  let mtu: Int
}

extension LinuxTests {
  /// Packets fragmented by Linux and reassembled by us; Linux accepts the result.
  @Suite(.enabled(if: canMakeNamespaces)) struct KernelFragmentTests {
    static let links = [
      FragmentLink(family: .ipv4, mtu: 576), FragmentLink(family: .ipv4, mtu: 1280),
      FragmentLink(family: .ipv6, mtu: 1280),
    ]
    /// Payload sizes: the smallest, those that just fit into 576 and 1280 bytes in either family
    /// and one byte more, up to the largest of UDP over IPv4.
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

    /// Linux keeps the header's length: the first fragment has all options, and in the others those
    /// without the copied flag are replaced.
    @Test(arguments: FragmentOrder.allCases)
    func F13_optionsOfLinuxStay(order: FragmentOrder) throws {
      try inFreshNamespace { () throws in
        let kernel = try KernelEnd(.ipv4)
        // Record route (not copied), no operation, router alert (copied).
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
        // Next header, length 0 for 8 bytes, and one PadN for the rest; Linux refuses longer ones.
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

    /// Sends datagrams of these sizes through a link, reassembles them, and returns them to the
    /// kernel with swapped addresses, changed by `answer`.
    /// - Returns: the packets of each datagram, as the kernel cut them.
    @discardableResult
    private func check(
      _ kernel: KernelEnd, _ link: FragmentLink, _ order: FragmentOrder, sizes: [Int],
      answer: (inout IPPacket) -> Void = { _ in }
    ) throws -> [[IPPacket]] {
      let payloads = sizes.enumerated().map { number, size in
        (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8 &+ number) }
      }
      // The same datagrams unfragmented, if an interface can carry them.
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

    /// Checks that the packets match what was sent, byte by byte, in any order.
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
  /// Turns an echo request into the reply.
  fileprivate mutating func becomeEchoReply() {
    bytes[transport] = isIPv4 ? 0 : 129
    writeChecksums()
  }
}

extension LinuxTests {
  /// Packets fragmented by us and reassembled by Linux: it delivers the bytes, and counts no
  /// failure.
  @Suite(.enabled(if: canMakeNamespaces)) struct KernelFragmentCutTests {
    static let links = [
      FragmentLink(family: .ipv4, mtu: 68), FragmentLink(family: .ipv4, mtu: 576),
      FragmentLink(family: .ipv4, mtu: 1280), FragmentLink(family: .ipv4, mtu: 1500),
      FragmentLink(family: .ipv6, mtu: 1280), FragmentLink(family: .ipv6, mtu: 1281),
      FragmentLink(family: .ipv6, mtu: 1500),
    ]

    @Test(arguments: links, FragmentOrder.allCases)
    func linuxPutsTogetherWhatWeCut(link: FragmentLink, order: FragmentOrder) throws {
      try inFreshNamespace { () throws in
        let kernel = try KernelEnd(link.family)
        let most = link.family == .ipv4 ? 65_507 : 65_527
        let sizes = KernelFragmentTests.sizes.dropLast() + [most]
        try check(sizes.map { datagram(to: kernel, $0) }, kernel, link, order)
      }
    }

    /// Options with the copied flag are in every header, the others only in the first.
    @Test(arguments: FragmentOrder.allCases)
    func F13_linuxTakesOurOptions(order: FragmentOrder) throws {
      try inFreshNamespace { () throws in
        let kernel = try KernelEnd(.ipv4)
        // Record route (not copied), no operation, router alert (copied).
        let options: [UInt8] = [7, 7, 4, 0, 0, 0, 0, 1, 0x94, 4, 0, 0]
        let datagrams = [8, 1400, 30_000].map { datagram(to: kernel, $0, options: options) }
        let fragments = try check(
          datagrams, kernel, FragmentLink(family: .ipv4, mtu: 576), order)
        for fragment in fragments where fragment.byteOffset > 0 {
          #expect(Array(fragment.bytes[20..<24]) == [0x94, 4, 0, 0])
          #expect(fragment.data.startIndex == 24)
        }
      }
    }

    /// Both ways: we fragment a request, and Linux answers in fragments, which we reassemble.
    @Test(arguments: KernelFragmentTests.links)
    func linuxAnswersWhatWeCut(link: FragmentLink) throws {
      try inFreshNamespace { () throws in
        let kernel = try KernelEnd(link.family)
        try kernel.setMTU(link.mtu)
        let station = try FragmentStation()
        for (number, size) in [1, 1472, 8000, 65_507].enumerated() {
          let type: UInt8 = link.family == .ipv4 ? 8 : 128
          let request = IPPacket.make(
            from: kernel.far, to: kernel.near, number: link.family == .ipv4 ? 1 : 58,
            message: [type, 0, 0, 0, 0x12, 0x34, 0, UInt8(number)] + payload(size))
          for fragment in cut(request, link.mtu, identification: UInt32(number)) {
            kernel.write(fragment)
          }
          let answer = kernel.packets()
          #expect((answer.count > 1) == (size > 1))
          station.add(answer)
          let reply = try #require(station.packets.last)
          #expect(station.packets.count == number + 1)
          #expect(reply.bytes[reply.transport] == (link.family == .ipv4 ? 0 : 129))
          #expect(reply.isAsLongAsItSays && reply.hasRightChecksums)
          let isTheSame = reply.payload == request.payload
          #expect(isTheSame, "\(size) bytes")
        }
      }
    }

    /// Fragments the datagrams, passes all fragments to the kernel, and checks what its socket
    /// receives.
    @discardableResult
    private func check(
      _ datagrams: [IPPacket], _ kernel: KernelEnd, _ link: FragmentLink, _ order: FragmentOrder
    ) throws -> [IPPacket] {
      // Any number of fragments of other datagrams may come between those of one (ipfrag_max_dist).
      #expect(shell("echo 0 > /proc/sys/net/ipv4/ipfrag_max_dist") == 0)
      let start = try KernelCounters()
      let all = datagrams.enumerated().map { number, datagram in
        cut(datagram, link.mtu, identification: 0x1234_0000 + UInt32(number))
      }
      for (datagram, packets) in zip(datagrams, all) {
        #expect((packets.count > 1) == (datagram.bytes.count > link.mtu))
      }
      let arrivals = order.arrange(all, seed: 7)
      for packet in arrivals { kernel.write(packet) }
      let received = datagrams.compactMap { _ in kernel.receive() }
      let isAsSent =
        received.count == datagrams.count && Set(received) == Set(datagrams.map(\.payload))
      #expect(isAsSent)
      let end = try KernelCounters()
      let cutCount = all.count { $0.count > 1 }
      #expect(cutCount > 0 && end.ip("ReasmOKs") - start.ip("ReasmOKs") == cutCount)
      let fragmentCount = arrivals.count { $0.isFragment }
      #expect(end.ip("ReasmReqds") - start.ip("ReasmReqds") == fragmentCount)
      #expect(end.ip("ReasmFails") == start.ip("ReasmFails"))
      #expect(end.errors == start.errors)
      return all.flatMap { $0 }
    }

    private func payload(_ size: Int) -> [UInt8] {
      (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8) }
    }

    private func datagram(to kernel: KernelEnd, _ size: Int, options: [UInt8] = []) -> IPPacket {
      let port = [UInt8(KernelEnd.port >> 8), UInt8(KernelEnd.port & 0xff)]
      let length = [UInt8((size + 8) >> 8), UInt8((size + 8) & 0xff)]
      return .make(
        from: kernel.far, to: kernel.near, number: IPPacket.udp,
        message: port + port + length + [0, 0] + payload(size), options: options)
    }

    /// The fragments; each as large as the MTU allows, except the last.
    private func cut(_ packet: IPPacket, _ mtu: Int, identification: UInt32) -> [IPPacket] {
      var bytes = packet.bytes
      let fragments = bytes.withUnsafeMutableBytes { source -> [IPPacket] in
        guard
          let fragmenter = Fragmenter(
            at: source.baseAddress!, byteCount: source.count, mtu: mtu,
            identification: identification)
        else { return [] }
        return (0..<fragmenter.count).map { index in
          var fragment = [UInt8](repeating: 0xee, count: fragmenter.byteCount(index))
          fragment.withUnsafeMutableBytes { fragmenter.write(index, to: $0.baseAddress!) }
          return IPPacket(fragment)
        }
      }
      #expect(fragments.allSatisfy { $0.isAsLongAsItSays && $0.bytes.count <= mtu })
      #expect(fragments.dropLast().allSatisfy { $0.bytes.count > mtu - 8 })
      return fragments
    }
  }
}
