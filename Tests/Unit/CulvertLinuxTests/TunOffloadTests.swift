import Culvert
import Foundation
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  /// The kernel's own TCP and UDP through two TUNs, each in a namespace of its own.
  @Suite(.enabled(if: canMakeNamespaces)) struct TunOffloadTests {
    static let combinations: [Offloads] = [
      .none, .checksum, [.checksum, .tso], [.checksum, .uso], .all,
    ]

    /// "cvt0" with the addresses 10.9.0.N and fd09::N.
    private func open(_ number: Int, _ offloads: Offloads) throws -> TunDevice {
      let tun = try TunDevice.create(InterfaceName("cvt0")!, offloads: offloads)
      try tun.setUp(true)
      #expect(shell("ip addr add 10.9.0.\(number)/24 dev cvt0") == 0)
      #expect(shell("ip addr add fd09::\(number)/64 dev cvt0 nodad") == 0)
      return tun
    }

    private func address(_ number: UInt8, _ family: IPAddress.Family) -> IPAddress {
      family == .ipv4
        ? IPAddress(ipv4: 0x0a09_0000 | UInt32(number))
        : IPAddress(ipv6High: 0xfd09 << 48, low: UInt64(number))
    }

    /// Wrong checksums that TCP and UDP have met in this thread's namespace.
    private func checksumErrors() throws -> Int {
      let text =
        try String(contentsOfFile: "/proc/thread-self/net/snmp", encoding: .utf8)
      var errors = 0
      let lines = text.split(separator: "\n").map { $0.split(separator: " ") }
      for (names, values) in zip(lines, lines.dropFirst()) where names[0] == values[0] {
        for (name, value) in zip(names, values) where name == "InCsumErrors" {
          errors += Int(value) ?? 0
        }
      }
      let text6 =
        try String(contentsOfFile: "/proc/thread-self/net/snmp6", encoding: .utf8)
      for line in text6.split(separator: "\n") where line.contains("InCsumErrors") {
        errors += Int(line.split(separator: " ").last ?? "") ?? 0
      }
      return errors
    }

    @Test func theKernelTakesWhatIsAskedFor() throws {
      try inFreshNamespace { () throws in
        for wanted in Self.combinations {
          let tun = try TunDevice.create(InterfaceName("cvt0")!, offloads: wanted)
          let expected = wanted.intersection([.checksum, .tso, .uso])
          #expect(tun.offloads == expected)
          #expect(tun.joining == expected.subtracting(.checksum))
          #expect(tun.headerByteCount == (wanted == .none ? 0 : 10))
        }
        // Segments without checksums are none.
        var tun = try TunDevice.create(InterfaceName("cvt0")!, offloads: [.tso, .uso, .gso])
        #expect(tun.offloads == .none && tun.joining == .none)
        tun = try TunDevice.create(InterfaceName("cvt1")!, offloads: .all)
        tun.stopJoining(.uso)
        #expect(tun.joining == .tso)
        #expect(tun.offloads.contains(.uso))
      }
    }

    // MARK: UDP

    @Test(arguments: combinations, TunLink.Way.allCases)
    func datagramsOfASegmentedSendArrive(offloads: Offloads, way: TunLink.Way) throws {
      for family: IPAddress.Family in [.ipv4, .ipv6] {
        try inFreshNamespace { () throws in
          let near = try open(1, offloads)
          let sender = try UDPSocket(family, port: 0, mark: 0, bufferByteCount: 1 << 20)
          try inFreshNamespace { () throws in
            let far = try open(2, .all)
            let receiver = try UDPSocket(family, port: 0, mark: 0, bufferByteCount: 1 << 20)
            let path = Path(
              to: Endpoint(address: address(2, family), port: try receiver.port()))
            let bytes = (0..<20_300).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8) }
            // Interfaces that have just come up may lose the first packets.
            let warmUp = try TunLink(.cut)
            let isUp = eventually {
              _ = bytes.prefix(9).withUnsafeBytes { sender.send($0, to: path) }
              warmUp.carry(from: near, to: far)
              return !receiveAll(receiver).isEmpty
            }
            #expect(isUp)
            let sent = bytes.withUnsafeBytes {
              sender.sendSegments($0, segmentByteCount: 500, to: path, trafficClass: 0)
            }
            #expect(sent == 0)
            let link = try TunLink(way)
            var received: [[UInt8]] = []
            // A busy machine may leave packets for later on either side.
            let isComplete = eventually {
              link.carry(from: near, to: far)
              received += receiveAll(receiver).filter { $0.count > 9 }
              return received.count >= 41
            }
            // The kernel's queues, one for each CPU, may change the order.
            let isAsSent = isComplete && Set(received) == Set(bytes.chunks(of: 500))
            #expect(isAsSent)
            #expect((link.segmentedCount == 1) == offloads.contains(.uso))
            #expect((link.uncheckedCount > 0) == offloads.contains(.checksum))
            #expect(link.joinedCount == (way == .joined ? 1 : 0))
            #expect(try checksumErrors() == 0)
          }
        }
      }
    }

    private func receiveAll(_ socket: borrowing UDPSocket) -> [[UInt8]] {
      var datagrams: [[UInt8]] = []
      var buffer = [UInt8](repeating: 0, count: 65_535)
      while true {
        let count = buffer.withUnsafeMutableBytes { socket.receive(into: $0).byteCount }
        guard count >= 0 else { return datagrams }
        datagrams.append(Array(buffer.prefix(count)))
      }
    }

    // MARK: TCP

    @Test(arguments: combinations, TunLink.Way.allCases)
    func aStreamArrives(offloads: Offloads, way: TunLink.Way) throws {
      for family: IPAddress.Family in [.ipv4, .ipv6] {
        try inFreshNamespace { () throws in
          let near = try open(1, offloads)
          let client = TCPEnd(family)
          try inFreshNamespace { () throws in
            let far = try open(2, .all)
            let server = TCPEnd(family)
            server.listen(at: 4000)
            client.connect(to: address(2, family), port: 4000)
            let there = try TunLink(way)
            let back = try TunLink(.cut)
            let bytes = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8) }
            var sent = 0
            var received: [UInt8] = []
            for _ in 0..<20_000 where received.count < bytes.count {
              there.carry(from: near, to: far)
              back.carry(from: far, to: near)
              sent += client.send(bytes[sent...])
              received += server.receive()
              usleep(20)
            }
            let isAsSent = received == bytes
            #expect(isAsSent)
            #expect((there.segmentedCount > 0) == offloads.contains(.tso))
            #expect((there.uncheckedCount > 0) == offloads.contains(.checksum))
            #expect((there.joinedCount > 0) == (way == .joined))
            #expect(try checksumErrors() == 0)
          }
        }
      }
    }
  }
}

extension [UInt8] {
  fileprivate func chunks(of size: Int) -> [[UInt8]] {
    stride(from: 0, to: count, by: size).map { Array(self[$0..<Swift.min($0 + size, count)]) }
  }
}
