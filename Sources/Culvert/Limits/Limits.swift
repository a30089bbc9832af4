/// The fixed capacities of one tunnel. Every table, ring and pool is carved to exactly these
/// numbers; running into one is a named error or a counted drop, never a wait.
public struct Limits: Sendable {
  /// Peers that can be configured at once.
  public var peers: Int
  /// Allowed IPs of all peers together.
  public var allowedIPs: Int
  /// Packets staged for one peer during its handshake; the oldest is dropped for the newest.
  public var stagedPacketsPerPeer: Int
  /// Staging slots of all peers together, `stagingSlotByteCount` bytes each. A packet larger than
  /// a slot takes several.
  public var stagingSlots: Int
  /// Handshake messages that wait for the control path; an eighth of it is the load signal.
  public var handshakeRing: Int
  /// Sources that the handshake rate limiter tells apart.
  public var rateLimiterEntries: Int
  /// Packets in one batch of a lane, before and after the kernel's segments are cut.
  public var batchPackets: Int
  /// Bytes that one batch of a lane takes in. One packet of any size always fits; beside it as
  /// many small ones as make up the rest.
  public var batchByteCount: Int
  /// Largest MTU that the interface may have (R33).
  public var maximumMTU: Int
  /// Bytes of the largest packet, headers included, that is put together from fragments; 64 such
  /// regions are carved for each channel (DatagramChannel), none for a tunnel without one.
  public var reassembledByteCount: Int
  /// Flows that `culvert forward` keeps apart.
  public var flows: Int
  /// Threads that carry batches, each with one batch of either lane.
  public var workers = 1

  /// An outbound and an inbound one for each worker.
  var batches: Int { 2 * workers }

  public static let stagingSlotByteCount = 2048
  /// A handshake message is at most 148 bytes; the slot keeps its source beside it.
  public static let handshakeSlotByteCount = 256

  public init(
    peers: Int, allowedIPs: Int, stagedPacketsPerPeer: Int, stagingSlots: Int, handshakeRing: Int,
    rateLimiterEntries: Int, batchPackets: Int, batchByteCount: Int, maximumMTU: Int,
    reassembledByteCount: Int = 65_575, flows: Int = 256
  ) {
    self.peers = peers
    self.allowedIPs = allowedIPs
    self.stagedPacketsPerPeer = stagedPacketsPerPeer
    self.stagingSlots = stagingSlots
    self.handshakeRing = handshakeRing
    self.rateLimiterEntries = rateLimiterEntries
    self.batchPackets = batchPackets
    self.batchByteCount = batchByteCount
    self.maximumMTU = maximumMTU
    self.reassembledByteCount = reassembledByteCount
    self.flows = flows
  }
}
