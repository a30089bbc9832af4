import Glibc
import Testing

@testable import Culvert
@testable import CulvertLinux

/// What comes in is no message of the protocol, which is enough to count it.
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

  /// How many datagrams came whole, and how many were truncated or had no place, in one call.
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
  /// The lanes' own part: what is received into a batch, and what is sent out of one.
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

    /// Room for each grows with what was cut off, up to the largest; then no datagram's end may
    /// reach into the place of the next.
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
