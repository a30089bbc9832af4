import Foundation
import Testing

@testable import Culvert

func ipv4(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) -> IPAddress {
  IPAddress(ipv4: UInt32(a) << 24 | UInt32(b) << 16 | UInt32(c) << 8 | UInt32(d))
}

func ipv6(_ high: UInt64, _ low: UInt64) -> IPAddress {
  IPAddress(ipv6High: high, low: low)
}

/// `#expect` for conditions that use a move-only table, which the macro would have to copy for its
/// output.
func expect(
  _ condition: Bool, _ comment: Comment? = nil,
  sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(condition, comment, sourceLocation: sourceLocation)
}

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
  /// Limits so small that tables are often full and rings often wrap.
  static func shrunken(peers: Int = 4, allowedIPs: Int = 8) -> Limits {
    Limits(
      peers: peers, allowedIPs: allowedIPs, stagedPacketsPerPeer: 2, stagingSlots: 4,
      handshakeRing: 8, rateLimiterEntries: 8, batchPackets: 4, batchByteCount: 160 * 1024,
      maximumMTU: 65_475)
  }
}

/// The checkout that these tests were compiled from.
let repositoryRoot: URL = {
  var folder = URL(fileURLWithPath: #filePath)
  while folder.path != "/" {
    folder.deleteLastPathComponent()
    let manifest = folder.appendingPathComponent("Package.swift")
    if FileManager.default.fileExists(atPath: manifest.path) { break }
  }
  return folder
}()
