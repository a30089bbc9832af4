import CLinux
import Foundation
import Glibc
import Testing

@testable import Culvert
@testable import CulvertLinux

extension LinuxTests {
  /// The kernel's TCP and UDP through two TUNs, each in its own namespace.
  @Suite(.enabled(if: canMakeNamespaces)) struct TunOffloadTests {
    static let combinations: [Offloads] = [
      .none, .checksum, [.checksum, .tso], [.checksum, .uso], .all,
    ]

    /// "cvt0" with the addresses 10.9.0.N and fd09::N.
    private func open(_ number: Int, _ offloads: Offloads) throws -> TunDevice {
      let tun = try TunDevice.create(InterfaceName("cvt0")!, offloads: offloads)
      try tun.setUp(true)
      #expect(shell("ip addr add 10.9.0.\(number)/24 dev cvt0") == 0)
      try #require(addIPv6Address("fd09::\(number)", length: 64, to: "cvt0"))
      return tun
    }

    private func address(_ number: UInt8, _ family: IPAddress.Family) -> IPAddress {
      family == .ipv4
        ? IPAddress(ipv4: 0x0a09_0000 | UInt32(number))
        : IPAddress(ipv6High: 0xfd09 << 48, low: UInt64(number))
    }

    /// Checksum errors that TCP and UDP have counted in this thread's namespace.
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
        // Segmentation offloads without checksum offload are not enabled.
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
            // A new interface may lose the first packets.
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
            // On a busy machine packets may be delayed on either side.
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

/// Carries packets from one TUN to another, instead of a tunnel and a network.
final class TunLink {
  enum Way: CaseIterable {
    /// Each packet is segmented, and each segment is written alone.
    case cut
    /// The segments are joined again, together with other packets that fit.
    case joined
    /// Each packet is written as read, with the virtio header.
    case unchanged
  }

  let way: Way
  /// Packets read with a segmentation offload, and packets read without a complete checksum.
  private(set) var segmentedCount = 0
  private(set) var uncheckedCount = 0
  /// Writes that join several packets.
  private(set) var joinedCount = 0
  private let region: MemoryRegion
  private let buffer: UnsafeMutableRawPointer
  private let scratch: UnsafeMutableRawPointer
  private var joiner: Joiner
  private static let capacity = 512

  init(_ way: Way) throws {
    self.way = way
    region = try MemoryRegion(byteCount: 1 << 20)
    var arena = Arena(region: region.bytes)
    buffer = arena.carveBytes(65_535 + 128, owner: "buffer").baseAddress! + 64
    scratch = arena.carveBytes(Segmenter.headersByteCount, owner: "headers").baseAddress!
    joiner = Joiner(carvingFrom: &arena, packets: TunLink.capacity)
  }

  /// Carries all packets that are available.
  func carry(from source: borrowing TunDevice, to target: borrowing TunDevice) {
    var packets: [[UInt8]] = []
    while packets.count < TunLink.capacity - 64 {
      let packet = source.read(
        into: UnsafeMutableRawBufferPointer(start: buffer, count: 65_535))
      guard packet.byteCount >= 0 else { break }
      if packet.offload.segmentation != .none { segmentedCount += 1 }
      if packet.offload.needsChecksum { uncheckedCount += 1 }
      if way == .unchanged {
        write(packet, to: target)
      } else {
        packets += cut(packet)
      }
    }
    if way == .cut { for packet in packets { write(packet, to: target) } }
    if way == .joined { join(packets, to: target) }
  }

  private func cut(_ packet: TunDevice.Packet) -> [[UInt8]] {
    guard
      var segmenter = Segmenter(
        at: buffer, byteCount: packet.byteCount, offload: packet.offload, headers: scratch)
    else {
      Issue.record("a packet from the kernel cannot be cut")
      return []
    }
    return (0..<segmenter.segmentCount).map { index in
      let start = segmenter.cut(index)
      return [UInt8](UnsafeRawBufferPointer(start: start, count: segmenter.byteCount(index)))
    }
  }

  private func write(_ packet: [UInt8], to target: borrowing TunDevice) {
    var bytes = [UInt8](repeating: 0xee, count: TunDevice.headroom) + packet
    let written = bytes.withUnsafeMutableBytes {
      target.write(UnsafeMutableRawBufferPointer(rebasing: $0[TunDevice.headroom...]))
    }
    #expect(written == packet.count)
  }

  private func write(_ packet: TunDevice.Packet, to target: borrowing TunDevice) {
    let header = buffer - target.headerByteCount
    header.initializeMemory(as: UInt8.self, repeating: 0, count: target.headerByteCount)
    packet.offload.write(
      to: header, headerByteCount: packet.offload.checksumStart + packet.offload.checksumOffset)
    var slice = clinux_slice(
      bytes: header, byte_count: packet.byteCount + target.headerByteCount)
    #expect(target.write(pieces: &slice, count: 1) == slice.byte_count)
  }

  /// Joins and writes packets as the inbound lane does.
  private func join(_ packets: [[UInt8]], to target: borrowing TunDevice) {
    let buffers = packets.map { packet in
      let bytes = UnsafeMutableRawPointer.allocate(byteCount: 64 + packet.count, alignment: 16)
      UnsafeMutableRawBufferPointer(start: bytes + 64, count: packet.count)
        .copyBytes(from: packet)
      return bytes
    }
    defer { for bytes in buffers { bytes.deallocate() } }
    joiner.reset()
    joiner.allowTCP = true
    joiner.allowUDP = true
    for (index, packet) in packets.enumerated() {
      let bytes = buffers[index] + 64
      joiner.add(
        index, JoinCandidate(at: bytes, byteCount: packet.count), at: bytes,
        byteCount: packet.count)
    }
    for group in 0..<joiner.groupCount {
      var slices: [clinux_slice] = []
      joiner.forEachPiece(of: group) { slices.append(clinux_slice(bytes: $0, byte_count: $1)) }
      let header = slices[0].bytes! - target.headerByteCount
      header.initializeMemory(as: UInt8.self, repeating: 0, count: target.headerByteCount)
      joiner.finish(group).write(to: header, headerByteCount: joiner.headerByteCount(of: group))
      slices[0].bytes = header
      slices[0].byte_count += target.headerByteCount
      if slices.count > 1 { joinedCount += 1 }
      let byteCount = slices.map(\.byte_count).reduce(0, +)
      #expect(target.write(pieces: slices, count: slices.count) == byteCount)
    }
  }
}
