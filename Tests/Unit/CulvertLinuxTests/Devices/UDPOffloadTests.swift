import CLinux
import Glibc
import Testing

@testable import Culvert
@testable import CulvertLinux

extension LinuxTests {
  /// Many datagrams per call, over loopback.
  @Suite struct UDPOffloadTests {
    static let pattern = (0..<1500).map { UInt8(truncatingIfNeeded: $0 &* 167) }

    private func bound(_ offloads: Offloads) throws -> UDPSockets {
      var sockets = UDPSockets(offloads: offloads)
      try sockets.bind(port: 0)
      return sockets
    }

    /// Waits for the datagrams of one call.
    private func receive(
      _ sockets: borrowing UDPSockets, _ family: IPAddress.Family
    ) throws -> (bytes: [UInt8], received: UDPSocket.Received) {
      var buffer = [UInt8](repeating: 0, count: 65_535)
      for _ in 0..<10_000 {
        let received = buffer.withUnsafeMutableBytes { sockets.receive(into: $0, family) }
        if received.byteCount >= 0 { return (Array(buffer.prefix(received.byteCount)), received) }
        usleep(1000)
      }
      throw SystemError.EAGAIN
    }

    /// An address of this host that the kernel would not choose by itself.
    private func path(to address: IPAddress, _ port: UInt16) -> Path {
      let isIPv4 = address.family == .ipv4
      return Path(
        endpoint: Endpoint(address: address, port: port),
        source: isIPv4 ? IPAddress(ipv4: 0x7f00_0063) : loopback6)
    }

    // MARK: Segments

    @Test(arguments: [loopback4, loopback6])
    func segmentsArriveAsDatagrams(address: IPAddress) throws {
      let sender = try bound(.all)
      let receiver = try bound(.none)
      #expect(sender.sending.contains(.gso))
      let path = path(to: address, receiver.port)
      let result = Self.pattern.withUnsafeBytes {
        sender.sendSegments($0, segmentByteCount: 600, to: path, trafficClass: 0xb9)
      }
      #expect(result == 0)
      var offset = 0
      for size in [600, 600, 300] {
        let (bytes, received) = try receive(receiver, address.family)
        #expect(bytes == Array(Self.pattern[offset..<offset + size]))
        #expect(received.segmentByteCount == 0)
        #expect(received.trafficClass == 0xb9)
        #expect(
          received.path.endpoint == Endpoint(address: path.source, port: sender.port))
        offset += size
      }
    }

    @Test(arguments: [loopback4, loopback6])
    func segmentsArriveGluedWhereThatIsAskedFor(address: IPAddress) throws {
      let sender = try bound(.all)
      let receiver = try bound(.all)
      #expect(receiver.receiving.contains(.gro))
      let path = path(to: address, receiver.port)
      let result = Self.pattern.withUnsafeBytes {
        sender.sendSegments($0, segmentByteCount: 600, to: path, trafficClass: 0x22)
      }
      #expect(result == 0)
      let (bytes, received) = try receive(receiver, address.family)
      #expect(bytes == Self.pattern)
      #expect(received.segmentByteCount == 600)
      #expect(received.trafficClass == 0x22)
      #expect(received.path.endpoint == Endpoint(address: path.source, port: sender.port))
      #expect(received.path.source == address)
      // A separate datagram is not merged with them.
      let alone = Self.pattern.prefix(700).withUnsafeBytes { sender.send($0, to: path) }
      #expect(alone.result == 0)
      let next = try receive(receiver, address.family)
      #expect(next.bytes.count == 700 && next.received.segmentByteCount == 0)
    }

    /// The kernel accepts runs up to the batch's limits.
    @Test(arguments: [loopback4, loopback6])
    func theLargestRunsAreTaken(address: IPAddress) throws {
      let sender = try bound(.all)
      let receiver = try bound(.all)
      let path = Path(to: Endpoint(address: address, port: receiver.port))
      let bytes = [UInt8](repeating: 7, count: 65_487)
      for (byteCount, size) in [(65_487, 1452), (64 * 32, 32), (65_487, 65_000)] {
        let result = bytes.prefix(byteCount).withUnsafeBytes {
          sender.sendSegments($0, segmentByteCount: size, to: path, trafficClass: 0)
        }
        // Segments above the path's MTU may be refused.
        #expect(result == 0 || size == 65_000)
        if result != 0 { continue }
        // Over IPv6 the kernel may fragment the largest.
        var received = 0
        while received < byteCount {
          received += try receive(receiver, address.family).bytes.count
        }
        #expect(received == byteCount)
      }
    }

    @Test(.enabled(if: canMakeNamespaces), arguments: [loopback4, loopback6])
    func segmentsLargerThanThePathAreRefusedTogether(address: IPAddress) throws {
      try inFreshNamespace { () throws in
        #expect(shell("ip link set lo mtu 1300") == 0)
        let sender = try bound(.all)
        let receiver = try bound(.none)
        let path = Path(to: Endpoint(address: address, port: receiver.port))
        let bytes = [UInt8](repeating: 7, count: 2900)
        let refused = bytes.withUnsafeBytes {
          sender.sendSegments($0, segmentByteCount: 1452, to: path, trafficClass: 0)
        }
        #expect(refused == -EINVAL || refused == -EMSGSIZE)
        // Sent alone, a datagram may be fragmented.
        let alone = bytes.prefix(1452).withUnsafeBytes { sender.send($0, to: path) }
        #expect(alone.result == 0)
        let count = try receive(receiver, address.family).bytes.count
        #expect(count == 1452)
        let fits = bytes.withUnsafeBytes {
          sender.sendSegments($0, segmentByteCount: 1200, to: path, trafficClass: 0)
        }
        #expect(fits == 0)
      }
    }

    // MARK: Messages

    /// Sends datagrams of these sizes in one call; each is filled with its number.
    private func sendMany(
      _ sockets: borrowing UDPSockets, _ sizes: [Int], to path: Path, trafficClass: UInt8 = 0
    ) -> Int32 {
      var bytes: [UInt8] = []
      for (number, size) in sizes.enumerated() {
        bytes += [UInt8](repeating: UInt8(number), count: size)
      }
      return bytes.withUnsafeMutableBytes { bytes in
        var start = bytes.baseAddress!
        let slices = sizes.map { size -> clinux_slice in
          defer { start += size }
          return clinux_slice(bytes: start, byte_count: size)
        }
        return sockets.sendMany(slices, count: sizes.count, to: path, trafficClass: trafficClass)
      }
    }

    @Test(arguments: [loopback4, loopback6])
    func manyDatagramsGoInOneCallAndComeInAnother(address: IPAddress) throws {
      let sender = try bound(.mmsg)
      let receiver = try bound(.mmsg)
      let path = path(to: address, receiver.port)
      let region = try MemoryRegion(byteCount: 1 << 20)
      var arena = Arena(region: region.bytes)
      let messages = UDPSocket.Messages(carvingFrom: &arena)
      let room = arena.carveBytes(8 * 1024, owner: "room").baseAddress!
      // One is empty, and one is longer than its room.
      let sizes = [10, 1000, 0, 1001, 7]
      #expect(sendMany(sender, sizes, to: path, trafficClass: 0x45) == 5)
      usleep(20_000)
      let first = receiver.receive(
        messages, into: room, stride: 1024, capacity: 1000, count: 3, address.family)
      #expect(first == 3)
      for index in 0..<3 {
        #expect(messages[index].byteCount == sizes[index] && !messages[index].isTruncated)
        #expect(messages[index].trafficClass == 0x45)
        #expect(
          messages[index].path.endpoint == Endpoint(address: path.source, port: sender.port))
        for byte in 0..<sizes[index]
        where room.load(fromByteOffset: index * 1024 + byte, as: UInt8.self) != index {
          Issue.record("datagram \(index) is not where it belongs")
          break
        }
      }
      let rest = receiver.receive(
        messages, into: room, stride: 1024, capacity: 1000, count: 5, address.family)
      #expect(rest == 2)
      #expect(messages[0].byteCount == 1000 && messages[0].isTruncated)
      #expect(messages[1].byteCount == 7 && !messages[1].isTruncated)
      #expect(room.load(fromByteOffset: 1024, as: UInt8.self) == 4)
      let none = receiver.receive(
        messages, into: room, stride: 1024, capacity: 1000, count: 5, address.family)
      #expect(none == -Int(EAGAIN))
    }

    @Test func sendingManyStopsAtTheFirstThatIsRefused() throws {
      let sender = try bound(.mmsg)
      let receiver = try bound(.none)
      let path = Path(to: Endpoint(address: loopback4, port: receiver.port))
      #expect(sendMany(sender, [5, 6, 70_000, 7], to: path) == 2)
      #expect(sendMany(sender, [70_000, 7], to: path) == -EMSGSIZE)
      // One call sends at most `capacity` messages.
      let capacity = UDPSocket.Messages.capacity
      let many = [Int](repeating: 1, count: capacity + 3)
      #expect(sendMany(sender, many, to: path) == Int32(capacity))
    }

    // MARK: Proof

    @Test func nothingIsRefutedHere() throws {
      let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
      defer { memory.deallocate() }
      for offloads: Offloads in [.all, .gso, .gro, [.gso, .gro], .none, .mmsg] {
        #expect(OffloadProof.refuted(offloads, memory: memory) == .none)
      }
    }

    /// A kernel that segments wrongly, simulated by expecting another segment size.
    @Test func whatArrivesOtherwiseIsRefuted() throws {
      let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
      defer { memory.deallocate() }
      // The receive offload is then tested with the remaining ones, and works.
      #expect(OffloadProof.refuted(.all, memory: memory, expecting: 500) == .gso)
      #expect(OffloadProof.refuted(.gso, memory: memory, expecting: 601) == .gso)
      #expect(OffloadProof.refuted(.gro, memory: memory, expecting: 500) == .none)
    }

    @Test(.enabled(if: canMakeNamespaces))
    func withoutLoopbackNothingIsRefuted() throws {
      try inFreshNamespace { () throws in
        #expect(shell("ip link set lo down") == 0)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
        defer { memory.deallocate() }
        #expect(OffloadProof.refuted(.all, memory: memory) == .none)
      }
    }
  }
}

/// Receives datagrams that are not messages of the protocol, which is enough to count them.
private final class Receiver {
  let region: MemoryRegion
  var tunnel: Tunnel
  var lane: InboundLane
  var sockets: UDPSockets

  init(offloads: Offloads) throws {
    var limits = Profile.tiny.limits
    limits.batchByteCount = 160 * 1024
    var sockets = UDPSockets(offloads: offloads)
    try sockets.bind(port: 0)
    let region = try MemoryRegion(byteCount: 4 << 20)
    var arena = Arena(region: region.bytes)
    var tunnel = Tunnel(carvingFrom: &arena, limits: limits)
    lane = InboundLane(carvingFrom: &arena, hops: 1)
    lane.setBatch(tunnel.makeInboundBatch(carvingFrom: &arena), of: 0)
    self.tunnel = tunnel
    self.sockets = sockets
    self.region = region
  }

  func send(_ sizes: [Int], to address: IPAddress) {
    let path = Path(to: Endpoint(address: address, port: sockets.port))
    for size in sizes {
      let bytes = [UInt8](repeating: 9, count: size)
      let sent = bytes.withUnsafeBytes { sockets.send($0, to: path) }
      #expect(sent.result == 0)
    }
    usleep(20_000)
  }

  /// Receives once, and counts datagrams received whole, and those truncated or without a place.
  func receive(_ family: IPAddress.Family) -> [UInt64] {
    let before = [tunnel.counters[.malformedMessage], tunnel.counters[.truncated]]
    _ = lane.receive(sockets, family)
    lane.accept(&tunnel, at: Instant(nanoseconds: 1))
    return [
      tunnel.counters[.malformedMessage] - before[0],
      tunnel.counters[.truncated] - before[1],
    ]
  }
}

extension LinuxTests {
  /// The lanes: receiving into a batch, and sending from one.
  @Suite struct LaneTests {
    @Test(arguments: [loopback4, loopback6], [Offloads.none, .mmsg, .gro, .all])
    func datagramsOfAnySizeAreReceived(address: IPAddress, offloads: Offloads) throws {
      let receiver = try Receiver(offloads: offloads)
      receiver.send([1, 0, 2048, 100], to: address)
      let got = receiver.receive(address.family)
      #expect(got == [4, 0])
      receiver.send([], to: address)
      let none = receiver.receive(address.family)
      #expect(none == [0, 0])
    }

    /// After a truncation, the room for each datagram grows, up to the largest one. No datagram may
    /// reach into the room of the next.
    @Test func roomGrowsToTheLargestDatagram() throws {
      let receiver = try Receiver(offloads: .mmsg)
      for size in [2049, 9000, 40_000] {
        receiver.send([size, 10], to: loopback6)
        let cut = receiver.receive(.ipv6)
        #expect(cut == [1, 1])
        receiver.send([size], to: loopback6)
        let whole = receiver.receive(.ipv6)
        #expect(whole == [1, 0])
      }
      for size in [65_500, 65_521, 65_527] {
        receiver.send([size, size], to: loopback6)
        let largest = receiver.receive(.ipv6)
        #expect(largest == [2, 0])
      }
    }
  }
}
