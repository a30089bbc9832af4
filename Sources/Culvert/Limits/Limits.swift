/// The fixed capacities of one tunnel. Every table, ring and pool has exactly these sizes.
/// Exceeding one is a named error or a counted drop; nothing ever waits for room.
public struct Limits: Sendable {
  /// Peers that can be configured at once.
  public var peers: Int
  /// Allowed IPs of all peers together.
  public var allowedIPs: Int
  /// Packets staged for one peer during its handshake; a new packet replaces the oldest.
  public var stagedPacketsPerPeer: Int
  /// Staging slots of all peers together, `stagingSlotByteCount` bytes each. A packet larger than
  /// a slot takes several.
  public var stagingSlots: Int
  /// Queued handshake messages. Cookies are required while at least an eighth of the ring is full.
  public var handshakeRing: Int
  /// Sources that the handshake rate limiter remembers.
  public var rateLimiterEntries: Int
  /// Packets in one batch of a lane, before and after segmentation.
  public var batchPackets: Int
  /// Input bytes of one batch of a lane. One packet of any size always fits; small packets use the
  /// remaining space.
  public var batchByteCount: Int
  /// The largest MTU of the interface (R33).
  public var maximumMTU: Int
  /// Bytes of the largest reassembled packet, headers included. Each channel (`DatagramChannel`)
  /// has 64 regions of this size; a tunnel without a channel has none.
  public var reassembledByteCount: Int
  /// Flows of `culvert forward`.
  public var flows: Int
  /// Threads that process batches. Each has one batch per lane.
  public var workers = 1

  /// An outbound and an inbound batch for each worker.
  var batches: Int { 2 * workers }

  static let stagingSlotByteCount = 2048
  /// A handshake message has at most 148 bytes; the slot also holds its path.
  static let handshakeSlotByteCount = 256

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

/// The three sets of limits that a user can choose with `--profile`.
public enum Profile: UInt8, Sendable {
  /// For a Pi Zero and routers with 32-64 MB.
  case tiny
  /// The default.
  case standard
  /// For thousands of peers.
  case gateway

  /// Raw values are 0..<count. (`CaseIterable` would create an array, which is an allocation.)
  package static let count: UInt8 = 3

  package var name: StaticString {
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

/// The list that `culvert budget` prints: the bytes that each owner has carved from the arena,
/// padding included.
public struct Budget: Sendable {
  public struct Addend: Sendable {
    public let owner: StaticString
    public fileprivate(set) var byteCount: Int
  }

  /// Larger than the number of owners; a test prints all profiles.
  static let capacity = 40
  private var addends = InlineArray<40, Addend>(repeating: Addend(owner: "", byteCount: 0))
  public private(set) var count = 0

  init() {}

  public subscript(index: Int) -> Addend {
    precondition(index >= 0 && index < count)
    return addends[index]
  }

  /// Adds bytes to the owner's addend, and creates the addend if it is missing.
  mutating func add(_ owner: StaticString, byteCount: Int) {
    for index in 0..<count where addends[index].owner.utf8Start == owner.utf8Start {
      addends[index].byteCount += byteCount
      return
    }
    precondition(count < Budget.capacity, "more owners than addends in the budget")
    addends[count] = Addend(owner: owner, byteCount: byteCount)
    count += 1
  }

  /// Bytes of all addends.
  public var total: Int {
    var sum = 0
    for index in 0..<count { sum += addends[index].byteCount }
    return sum
  }
}
