import Testing

@testable import Culvert

@Suite struct IPv6ExtensionsTests {
  /// A packet whose payload is `payload`, starting with the header `first`.
  private func walk(_ first: UInt8, _ payload: [UInt8]) -> IPv6Extensions? {
    let packet = PacketBuffer([UInt8](repeating: 0, count: 40) + payload)
    let header = IPv6Header.write(
      at: packet.start, payloadByteCount: payload.count, nextHeader: first,
      source: ipv6(1, 1), destination: ipv6(2, 2))
    return withExtendedLifetime(packet) { IPv6Extensions(of: header) }
  }

  @Test func noExtensions() throws {
    let walked = try #require(walk(17, [0]))
    #expect(walked.protocolNumber == 17 && walked.byteOffset == 40)
    #expect(walked.fragmentHeaderByteOffset == 0 && walked.fragmentByteOffset == 0)
  }

  @Test func optionsThenFragmentThenUDP() throws {
    let options: [UInt8] = [44, 1] + [UInt8](repeating: 0, count: 14)
    let fragment: [UInt8] = [17, 0, 0, 1, 0, 0, 0, 9]
    let walked = try #require(walk(0, options + fragment))
    #expect(walked.protocolNumber == 17 && walked.byteOffset == 64)
    #expect(walked.fragmentHeaderByteOffset == 56 && walked.fragmentByteOffset == 0)
  }

  /// What follows a fragment header with an offset is data, whatever it looks like.
  @Test func laterFragmentEndsTheWalk() throws {
    let fragment: [UInt8] = [60, 0, 0x05, 0xa9, 0, 0, 0, 9]
    let walked = try #require(walk(44, fragment + [255, 255]))
    #expect(walked.protocolNumber == 60 && walked.byteOffset == 48)
    #expect(walked.fragmentByteOffset == 0x5a8)
  }

  @Test func brokenChainsAreRefused() {
    // Cut off; longer than the packet; a second fragment header; no end.
    #expect(walk(0, [17, 0, 0, 0, 0, 0, 0]) == nil)
    #expect(walk(0, [17, 1, 0, 0, 0, 0, 0, 0]) == nil)
    #expect(walk(44, [44, 0, 0, 1, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 0]) == nil)
    let options: [UInt8] = [60, 0, 0, 0, 0, 0, 0, 0]
    #expect(walk(60, Array(repeating: options, count: 100).flatMap { $0 }) == nil)
  }
}
