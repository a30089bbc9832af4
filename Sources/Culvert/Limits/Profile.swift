/// The three sets of limits a user picks from with `--profile`.
public enum Profile: UInt8, Sendable {
  /// Pi Zero and routers with 32-64 MB.
  case tiny
  /// The default.
  case standard
  /// Thousands of peers, 131,072 allowed IPs.
  case gateway

  /// Raw values are 0 up to this. (`CaseIterable` would bring an array, and with it an allocation.)
  public static let count: UInt8 = 3

  public var name: StaticString {
    switch self {
    case .tiny: "tiny"
    case .standard: "standard"
    case .gateway: "gateway"
    }
  }

  public var limits: Limits {
    switch self {
    case .tiny:
      Limits(
        peers: 16, allowedIPs: 256, stagedPacketsPerPeer: 16, stagingSlots: 64,
        handshakeRing: 64, rateLimiterEntries: 256, batchPackets: 128,
        batchByteCount: 80 * 1024, maximumMTU: 65_475,
        reassembledByteCount: 2048, flows: 64)
    case .standard:
      Limits(
        peers: 256, allowedIPs: 8192, stagedPacketsPerPeer: 64, stagingSlots: 512,
        handshakeRing: 512, rateLimiterEntries: 4096, batchPackets: 128,
        batchByteCount: 144 * 1024, maximumMTU: 65_475,
        reassembledByteCount: 65_575, flows: 256)
    case .gateway:
      Limits(
        peers: 4096, allowedIPs: 131_072, stagedPacketsPerPeer: 128, stagingSlots: 4096,
        handshakeRing: 4096, rateLimiterEntries: 16_384, batchPackets: 128,
        batchByteCount: 144 * 1024, maximumMTU: 65_475,
        reassembledByteCount: 65_575, flows: 4096)
    }
  }
}
