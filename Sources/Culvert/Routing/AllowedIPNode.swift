/// A node of the trie: what routing reads, 32 bytes, two to a cache line.
struct AllowedIPNode: BitwiseCopyable {
  /// The prefix, left-aligned as in `IPAddress`; the bits after `length` are 0.
  var high: UInt64
  var low: UInt64
  /// Both children in one word, so that choosing one takes a shift, not a branch. 0 for none.
  var children: UInt64
  /// The peer that the prefix belongs to, or `nobody`.
  var peer: UInt32
  var length: UInt8
  var family: IPAddress.Family
  /// What `commitStaged` will do with the prefix.
  var action: Action
  /// Fills the stride (`Arena.carve`).
  private let padding: UInt8 = 0

  enum Action: UInt8, BitwiseCopyable {
    case none
    case add
    case remove
  }

  /// What only changes and listings read; kept apart, so that routing does not load it.
  struct Links: BitwiseCopyable {
    /// The node above; 0 for the root. In a free node, the next free one.
    var parent: UInt32
    /// Neighbours among the prefixes of one peer, in the order they were added; 0 for none.
    var next: UInt32
    var previous: UInt32
    /// The prefix staged next; 0 for none.
    var nextStaged: UInt32
  }

  static let nobody = UInt32.max

  /// - Parameter side: the bit after the node's own prefix, 0 or 1.
  @inline(__always)
  func child(_ side: UInt64) -> UInt32 {
    UInt32(truncatingIfNeeded: children &>> (side &* 32))
  }

  @inline(__always)
  mutating func setChild(_ side: UInt64, to node: UInt32) {
    let shift = side &* 32
    children = children & ~(0xffff_ffff &<< shift) | UInt64(node) &<< shift
  }

  /// True where the node stands for a prefix of its own, and not only for a fork.
  @inline(__always)
  var isHeld: Bool { peer != AllowedIPNode.nobody || action != .none }
}
