import Testing

@testable import Culvert

/// Of an element that is smaller than its stride the compiler forgets the alignment where it is
/// indexed, and a board without unaligned loads then reads every field byte by byte.
@Suite struct ElementStrideTests {
  private func fills<Element: ~Copyable>(_ type: Element.Type) -> Bool {
    MemoryLayout<Element>.size == MemoryLayout<Element>.stride
  }

  @Test func elementsOfTablesFillTheirStride() {
    #expect(fills(Peer.self))
    #expect(fills(PeerEntry.self))
    #expect(fills(IndexTable.Entry.self))
    #expect(fills(AllowedIPNode.self))
    #expect(fills(AllowedIPNode.Links.self))
    #expect(fills(OutboundBatch.Packet.self))
    #expect(fills(InboundBatch.Packet.self))
    #expect(fills(InboundBatch.Arrival.self))
    #expect(fills(BatchSession.self))
    #expect(fills(BatchOutputs.Datagram.self))
    #expect(fills(Joiner.Flow.self))
    #expect(fills(Joiner.Group.self))
    #expect(fills(Flow.self))
    #expect(fills(FragmentedDatagram.self))
  }

  @Test func whatStandsBehindPointersFillsItsStride() {
    #expect(fills(Tunnel.self))
    #expect(fills(OutboundBatch.self))
    #expect(fills(InboundBatch.self))
    #expect(fills(DatagramChannel.self))
  }
}
