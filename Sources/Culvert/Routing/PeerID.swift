/// Names a peer's place in every per-peer table. The generation tells a place that was given away
/// anew from the removed peer that a batch under way still names.
public struct PeerID: Hashable, Sendable, BitwiseCopyable {
  public var index: UInt32
  public var generation: UInt32

  @inline(__always)
  public init(index: UInt32, generation: UInt32) {
    self.index = index
    self.generation = generation
  }

  /// The peer in 32 bits: those of the index that count, and of the generation what is left. Two
  /// peers that share it are 65,536 removals apart.
  public var sender: UInt32 { index & 0xffff | generation << 16 }

  /// No peer; never a place of the table.
  public static var none: PeerID { PeerID(index: .max, generation: 0) }
}
