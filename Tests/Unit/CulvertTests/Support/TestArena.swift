@testable import Culvert

/// A zeroed, page-aligned region with an arena on it. It must outlive the tables carved from it:
/// hold it with `withExtendedLifetime`.
final class TestArena {
  private let region: UnsafeMutableRawBufferPointer
  var arena: Arena

  init(byteCount: Int = 1 << 20) {
    region = .allocate(byteCount: byteCount, alignment: Arena.pageByteCount)
    region.initializeMemory(as: UInt8.self, repeating: 0)
    arena = Arena(region: region)
  }

  deinit {
    region.deallocate()
  }
}

extension Limits {
  /// Budgets so small that full and wrapped are everyday states.
  static func shrunken(peers: Int = 4, allowedIPs: Int = 8) -> Limits {
    Limits(
      peers: peers, allowedIPs: allowedIPs, stagedPacketsPerPeer: 2, stagingSlots: 4,
      handshakeRing: 8, rateLimiterEntries: 8, batchPackets: 4, batchByteCount: 160 * 1024,
      maximumMTU: 65_475)
  }
}
